"""Where episodes come from: SAC, recorded policies, Minari datasets and files of others."""
