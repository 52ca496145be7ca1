"""Fixed sets of houses of 41 x 41 cells for training and testing.

`train` is a set of training levels; the other suites share no level with `train`. All suites reward
coverage, the fraction of the free cells that an agent has seen, so the return of an episode is its
coverage.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.levels import LevelSet, Suite, exclude, level_stream, make_level_set, take

VERSION = "1"

SETS = {
    # Number of levels, smallest and largest number of rooms, seed.
    "train": (1000, (6, 12), 41_001),
    "test": (100, (6, 12), 41_101),
    "crowded": (100, (13, 15), 41_201),  # more rooms than any training house
}
SPARE = 8
"""Number of additional houses, which replace duplicates and houses of the training set."""


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """Return functions that build the suites, by name.

    The environment of a suite is a copy of `env` with the default size.
    """
    return {name: partial(_suite, env, name) for name in SETS}


def _suite(env: Any, name: str) -> Suite:
    usual, (num_levels, num_rooms, _) = type(env)(), SETS[name]
    env = replace(
        env,
        size=usual.size,
        num_rooms=num_rooms,
        min_side=usual.min_side,
        max_steps=usual.max_steps,
        pay_coverage=True,
    )
    others = _drawn(type(env), "train").hash if name != "train" else jnp.zeros((0, 2), jnp.uint32)
    levels, _ = exclude(_drawn(type(env), name), others)
    names = tuple(f"{name}-{i:04d}" for i in range(num_levels))
    return Suite(f"houses/{name}", env, replace(take(levels, slice(num_levels)), names=names))


@cache
def _drawn(family: Any, name: str) -> LevelSet:
    """Sample the candidates for a set, each house from its own random stream."""
    num_levels, num_rooms, seed = SETS[name]
    env = family(num_rooms=num_rooms)
    words = [level_stream(seed, i).random_raw(env.num_draws()) for i in range(num_levels + SPARE)]
    draws = (np.stack(words) >> np.uint64(40)) * np.float64(2.0**-24)  # exact in float32
    drawn = jax.jit(jax.vmap(env.level_of))(jnp.asarray(draws, jnp.float32))
    split = "train" if name == "train" else "test"
    return make_level_set(env, drawn, split=split, version=VERSION)
