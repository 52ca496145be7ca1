"""Small stand-ins for components from outside rlgen, named by dotted path."""
