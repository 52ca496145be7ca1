"""Houses: explore a house of six to twelve rooms; there is no goal and, by default, no reward."""

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
