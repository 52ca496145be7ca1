"""Held-out levels of a family, sampled from a random stream derived from the suite's name."""

import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.levels import Suite, make_level_set, sealed_if_large

VERSION = "1"
NUM_LEVELS = 100


def suites(family: str, members: Mapping[str, Any]) -> dict[str, Callable[[], Suite]]:
    """Return functions that build the suites, by name.

    Args:
        family: Name of the family.
        members: For each suite, the environment from which the levels are sampled and in which they
            are played.
    """
    return {name: partial(_suite, family, name, env) for name, env in members.items()}


def single(name: str, env: Any, members: Sequence[Any], split: str = "test") -> Suite:
    """Build a suite from environments with one level each; all levels are played in `env`."""
    levels = [jax.tree.map(jnp.asarray, each.default_params) for each in members]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *levels)
    names = tuple(f"seed-{each.seed}" for each in members)
    return Suite(name, env, make_level_set(env, stacked, names, split, VERSION))


# Cached, because environments that differ in other fields share suites.
@lru_cache(maxsize=32)
def _suite(family: str, name: str, env: Any) -> Suite:
    seed = zlib.crc32(f"{family}/{name}".encode()) >> 1
    # The random number generator is named explicitly, so that a new default of JAX does not
    # change the levels.
    keys = jax.random.split(jax.random.key(seed, impl="threefry2x32"), NUM_LEVELS)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    names = tuple(f"{name}-{i:03d}" for i in range(NUM_LEVELS))
    made = sealed_if_large(make_level_set(env, levels, names, version=VERSION))
    return Suite(f"{family}/{name}", env, made)
