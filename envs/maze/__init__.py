"""Maze: find the goal in a grid of walls, observing only the 5x5 cells ahead."""

from rlgen.envs.grid.bitboard import (
    Grid,
    Level,
    PackedObs,
    State,
    make_level,
    size_of,
    to_grid,
    unpack,
)
from rlgen.envs.maze.codec import check_level, check_levels, to_text
from rlgen.envs.maze.env import Maze, build, tiny

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
