"""Recipes that learn an update rule, or train agents with one."""
