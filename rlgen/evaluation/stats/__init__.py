"""Statistics of evaluations: aggregates, confidence intervals and comparisons of runs."""
