"""Houses: explore six to twelve rooms to see as much as possible; no goal and no reward."""

from rlgen.envs.houses.env import VARIANTS, Houses, build, tiny
from rlgen.envs.houses.view import Level, Obs, State, cells_seen, make_level, walls_of

__all__ = [
    "VARIANTS",
    "Houses",
    "Level",
    "Obs",
    "State",
    "build",
    "cells_seen",
    "make_level",
    "tiny",
    "walls_of",
]
