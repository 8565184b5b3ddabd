"""TREBI: trajectory-based real-time budget inference (Lin et al. 2023)."""
