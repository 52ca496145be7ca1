"""Collect inputs of reports from run folders or by playing with their policies."""
