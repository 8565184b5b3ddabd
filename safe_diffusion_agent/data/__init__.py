"""Where episodes come from: SAC, policies of others, recordings, Minari datasets and files."""
