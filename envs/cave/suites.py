"""Caves of known make: training and test sets, and tests of what training did not show.

They ship as plain files (see `files`); `train` is no test but the set to learn from, and all
others share no level with it. Every level is solvable.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", whose sets are made likewise; the levels are rlgen's own.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rlgen.envs.cave.files import read_plain, stack
from rlgen.levels import Suite, make_level_set

VERSION = "1"
FOLDER = Path(__file__).parent / "data"

LIMITS = {
    # Name of the suite and of its file, and the time limit in steps.
    "train": 250,  # four structures of rock
    "test": 250,  # new levels of the same four
    "unseen": 250,  # fourteen other structures
    "few-cues": 250,  # the same with little moss
    "lava": 250,  # the same with little moss and much lava
    "large": 2250,  # 43 x 43 cells
}


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """The suites by name, each a function that makes it in a copy of `env` of the right size."""
    return {name: partial(suite, env, name, FOLDER) for name in LIMITS}


def suite(env: Any, name: str, folder: Path) -> Suite:
    """The suite of one file of a folder.

    Raises:
        ValueError: the file is missing, damaged or has a level that is not well-formed.
    """
    plain = read_plain(folder / f"{name}.npz")
    _, height, width = plain.tiles.shape
    num_objects = min(env.num_objects, height * width - 2)
    env = replace(env, height=height, width=width, max_steps=LIMITS[name], num_objects=num_objects)
    levels = stack(plain, env.max_steps)
    levels = make_level_set(env, levels, plain.names, plain.split, VERSION)
    return Suite(f"cave/{name}", env, levels)
