"""Evaluate learned update rules by the agents that they train."""
