"""Suites of caves: a training set, its test set, and sets outside the training distribution.

The suites ship as plain files (see `files`). The suite `train` is the training set, and the other
suites share no level with it. Every level is solvable.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design". The sets are built as in that paper, but the levels were
generated for rlgen.
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
    # Time limit in env steps, by the name of the suite, which is also the name of its file.
    "train": 250,  # four wall structures
    "test": 250,  # new levels of the same four structures
    "unseen": 250,  # fourteen other structures
    "few-cues": 250,  # the structures of `unseen` with little moss
    "lava": 250,  # the structures of `unseen` with little moss and much lava
    "large": 2250,  # 43 x 43 cells
}


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """Suites by name, each as a function that builds the suite.

    The environment of a suite is `env` with the height and width of the suite's caves.
    """
    return {name: partial(suite, env, name, FOLDER) for name in LIMITS}


def suite(env: Any, name: str, folder: Path) -> Suite:
    """Build the suite stored as `name.npz` in a folder.

    Raises:
        ValueError: The file is missing or damaged, or a level is not well-formed.
    """
    plain = read_plain(folder / f"{name}.npz")
    _, height, width = plain.tiles.shape
    # `num_objects` does not affect stored levels, but must be valid for the size of the caves.
    num_objects = min(env.num_objects, height * width - 2)
    env = replace(env, height=height, width=width, max_steps=LIMITS[name], num_objects=num_objects)
    levels = stack(plain, env.max_steps)
    levels = make_level_set(env, levels, plain.names, plain.split, VERSION)
    return Suite(f"cave/{name}", env, levels)
