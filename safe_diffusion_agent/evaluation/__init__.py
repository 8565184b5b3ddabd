"""Evaluated episodes: how they are run, what is measured, and how it is shown."""
