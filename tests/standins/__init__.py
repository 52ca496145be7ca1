"""Small stand-ins for components from outside rlgen, referenced by dotted path."""
