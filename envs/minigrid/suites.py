"""Held-out MiniGrid levels: drawn from streams of their own, the same in every version of numpy.

Training levels are drawn from all levels there are; in the smallest worlds, of which there are few,
some of them will be among those held out.
"""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlgen.envs.minigrid.level import Level
from rlgen.levels import Suite, make_level_set
from rlgen.protocols import LevelEnv

VERSION = "1"
NUM_LEVELS = 100


class Drawn(LevelEnv, abstract=True):
    """An environment whose levels are functions of uniform numbers."""

    @abc.abstractmethod
    def num_draws(self) -> int:
        """How many make a level."""

    @abc.abstractmethod
    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """The level of some."""


def suite(family: str, name: str, make: Callable[[str], Drawn]) -> Suite:
    """The held-out levels of one variant; `make` gives its environment."""
    env = make(name)
    levels = draw(env, f"{family}/{name}", NUM_LEVELS)
    names = tuple(f"{name}-{i:03d}" for i in range(NUM_LEVELS))
    return Suite(f"{family}/{name}", env, make_level_set(env, levels, names, version=VERSION))


def draw(env: Drawn, stream: str, num: int) -> Level:
    """The first levels `[num, ...]` of a stream."""
    bits = np.random.PCG64(np.random.SeedSequence(list(stream.encode())))
    raw = bits.random_raw(num * env.num_draws()).reshape(num, env.num_draws())
    uniform = jnp.asarray((raw >> np.uint64(40)) * 2.0**-24, jnp.float32)  # exactly
    return jax.jit(jax.vmap(env.level_of))(uniform)


def example(env: Drawn, family: str) -> Level:
    """One level of an environment, always the same; concrete even under a trace."""
    with jax.ensure_compile_time_eval():
        return jax.tree.map(lambda x: x[0], draw(env, f"{family}/example", 1))
