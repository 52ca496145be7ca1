"""Statistics of evaluations: aggregates, intervals, comparisons."""
