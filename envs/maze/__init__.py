"""Maze: find the goal in a grid of walls, seeing only the 5x5 cells ahead."""

from rlgen.envs.maze.env import (
    Grid,
    Level,
    Maze,
    PackedObs,
    State,
    build,
    check_level,
    check_levels,
    make_level,
    size_of,
    tiny,
    to_grid,
    to_text,
    unpack,
)

__all__ = [
    "Grid",
    "Level",
    "Maze",
    "PackedObs",
    "State",
    "build",
    "check_level",
    "check_levels",
    "make_level",
    "size_of",
    "tiny",
    "to_grid",
    "to_text",
    "unpack",
]
