"""Held-out grid worlds: new random levels, the hand-designed sets and the mazes.

Agents read the observations of one mode, so each suite is played in the environment of its mode.
The levels of the suite `test` have the mode of the given environment.

Levels are sampled with numpy in double precision from separate random streams (see `Stream`).
Rewards and probabilities are rounded to four significant digits, so that rounding errors do not
differ between machines. In tabular modes the optimal returns are known.
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
from rlgen.levels import Suite, exclude, make_level_set, take

VERSION = "1"
NUM_UNSEEN, NUM_TEST, NUM_DESIGNED, NUM_MAZES = 64, 64, 4, 2


FEW_LEVELS = (
    "rand-dense", "rand-long", "rand-small", "rand-sparse", "rand-tiny", "rand-very-dense",
)  # fmt: skip
"""Modes with at most 121 different levels, too few to hold levels out of training."""


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """Return the suites by name, each as a function that builds the suite.

    Args:
        env: Environment whose mode is the mode of the suite `test`. In modes with few levels, the
            suite is called `seen`, because its levels also occur in training.
    """
    designed = partial(_each_family, tuple(DESIGNS), NUM_DESIGNED)
    mazes = partial(_each_family, tuple(MAZES), NUM_MAZES)
    made = {
        "unseen": ("all", partial(_unseen, NUM_UNSEEN)),
        "unseen-1024": ("all", partial(_unseen, 1024)),  # the first 64 levels are those of `unseen`
        "handcrafted": ("handcrafted", designed),
        "mazes": ("mazes", mazes),
    }
    found = {name: partial(_suite, type(env), name, *entry) for name, entry in made.items()}
    return {"seen" if env.mode in FEW_LEVELS else "test": partial(_test, env), **found}


def _suite(make: Callable[[str], Any], name: str, mode: str, draw: Callable) -> Suite:
    names, levels = zip(*draw(generator.table_of(MODES[mode])), strict=True)
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *levels)
    env = make(mode)
    return Suite(f"gridworld/{name}", env, make_level_set(env, stacked, names, version=VERSION))


def _test(env: Any) -> Suite:
    """Build at most `NUM_TEST` distinct levels of the environment's mode.

    In tabular modes all levels are solvable. Only `rand-tiny` has fewer different levels.
    """
    name = "seen" if env.mode in FEW_LEVELS else "test"
    suite = _suite(type(env), name, env.mode, partial(_candidates, env))
    levels = suite.levels
    if env.is_tabular:
        levels = take(levels, np.asarray(levels.optimal_steps) >= 0)
    levels, _ = exclude(levels, jnp.zeros((0, 2), jnp.uint32))  # drops repeated levels
    levels = take(levels, slice(NUM_TEST))
    names = tuple(f"{name}-{i:04d}" for i in range(len(levels)))
    split = "seen" if env.mode in FEW_LEVELS else levels.split
    return suite._replace(levels=replace(levels, names=names, split=split))


def _candidates(env: Any, table: generator.Table) -> Iterator[tuple[str, Level]]:
    stream = Stream(f"gridworld/test/{env.mode}")
    # 1.5 times as many candidates as levels, because some of them are dropped.
    for i in range(NUM_TEST * 3 // 2):
        level = _level(table, stream)
        if not env.is_tabular:  # each episode draws the cells of the objects
            level = replace(level, object_pos=np.full_like(level.object_pos, -1))
        yield f"candidate-{i}", level


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
