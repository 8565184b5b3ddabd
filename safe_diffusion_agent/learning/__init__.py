"""What methods share: the training loop, networks, cuts of a dataset, one-step models."""
