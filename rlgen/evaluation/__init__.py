"""Zero-shot evaluation: suites, statistics, figures and reports."""
