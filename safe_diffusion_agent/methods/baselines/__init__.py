"""The methods that TREBI is compared with; like TREBI, each has `fit` and an `Agent`."""
