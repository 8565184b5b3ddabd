"""From datasets to results: the stages of a run, studies of many runs, and their pages."""
