"""Collect the inputs of reports: data from run folders, and episodes played by their policies."""
