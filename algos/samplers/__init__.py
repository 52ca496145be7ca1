"""Samplers choose the levels that the slots play."""
