"""Held-out grid worlds: new random levels, the hand-designed sets and the mazes.

Levels are sampled with numpy in double precision from separate random streams (see `Stream`).
Rewards and probabilities are rounded to four significant digits, so that rounding errors do not
differ between machines. Each suite is played in the environment of its mode. The modes of all
suites are tabular, so the optimal returns are known.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.envs.gridworld import generator
from rlgen.envs.gridworld.level import Level
from rlgen.envs.gridworld.modes import DESIGNS, MAZES, MODES
from rlgen.envs.streams import Stream, rounded
from rlgen.levels import Suite, make_level_set

VERSION = "1"
NUM_UNSEEN, NUM_DESIGNED, NUM_MAZES = 64, 4, 2


def suites(make: Callable[[str], Any]) -> dict[str, Callable[[], Suite]]:
    """Return the suites by name, each as a function that builds the suite.

    Args:
        make: Function that returns the environment of a mode.
    """
    designed = partial(_each_family, tuple(DESIGNS), NUM_DESIGNED)
    mazes = partial(_each_family, tuple(MAZES), NUM_MAZES)
    made = {
        "unseen": ("all", partial(_unseen, NUM_UNSEEN)),
        "unseen-1024": ("all", partial(_unseen, 1024)),  # the first 64 levels are those of `unseen`
        "handcrafted": ("handcrafted", designed),
        "mazes": ("mazes", mazes),
    }
    return {name: partial(_suite, make, name, *entry) for name, entry in made.items()}


def _suite(make: Callable[[str], Any], name: str, mode: str, draw: Callable) -> Suite:
    names, levels = zip(*draw(generator.table_of(MODES[mode])), strict=True)
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *levels)
    env = make(mode)
    return Suite(f"gridworld/{name}", env, make_level_set(env, stacked, names, version=VERSION))


def _unseen(num: int, table: generator.Table) -> Iterator[tuple[str, Level]]:
    stream = Stream("gridworld/unseen")
    for i in range(num):
        yield f"unseen-{i:04d}", _level(table, stream)


def _each_family(
    families: tuple[str, ...], num: int, table: generator.Table
) -> Iterator[tuple[str, Level]]:
    for i, family in enumerate(families):
        stream = Stream(f"gridworld/{family}")
        # Use the table of one family, so that its levels do not depend on the other families.
        one = jax.tree.map(lambda x, i=i: x[i : i + 1], table)
        for k in range(num):
            yield f"{family}-{k}", _level(one, stream)


def _level(table: generator.Table, stream: Stream) -> Level:
    uniform = stream.uniform(generator.num_draws(table))
    level = generator.draw(table, uniform, np)
    names = ("reward", "terminate_prob", "respawn_prob")
    return replace(level, **{name: rounded(getattr(level, name)) for name in names})
