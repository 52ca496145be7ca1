"""Cave: find the goal among walls, lava and moss, seeing only the 5x5 cells ahead."""

from rlgen.envs.cave.check import check_levels
from rlgen.envs.cave.codec import CaveCodec
from rlgen.envs.cave.env import Cave, build, tiny
from rlgen.envs.cave.files import save_plain
from rlgen.envs.cave.level import (
    EMPTY,
    KINDS,
    LAVA,
    MOSS,
    WALL,
    Grid,
    Level,
    make_level,
    size_of,
    to_grid,
)
from rlgen.envs.cave.solver import distances, path_length
from rlgen.envs.cave.text import to_text
from rlgen.envs.cave.view import PackedObs, unpack
from rlgen.envs.grid.bitboard import State

__all__ = [
    "EMPTY",
    "KINDS",
    "LAVA",
    "MOSS",
    "WALL",
    "Cave",
    "CaveCodec",
    "Grid",
    "Level",
    "PackedObs",
    "State",
    "build",
    "check_levels",
    "distances",
    "make_level",
    "path_length",
    "save_plain",
    "size_of",
    "tiny",
    "to_grid",
    "to_text",
    "unpack",
]
