"""Recipes that learn an update rule, or that train an agent with a learned rule."""
