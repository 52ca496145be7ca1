"""Rooms behind doors: families for exploration on grids of walls, lava, doors and keys."""
