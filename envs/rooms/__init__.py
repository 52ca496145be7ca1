"""Rooms behind doors: grids of walls, lava, doors and keys, the families for exploration."""
