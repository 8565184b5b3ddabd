"""The pages of stored results: each function returns the text of one, and measures nothing."""
