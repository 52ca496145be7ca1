"""Generalisation gaps, level information and analysis of curriculum logs."""
