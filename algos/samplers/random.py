"""Domain randomisation: every level is a fresh draw from the environment's base distribution.

Source: Tobin et al., 2017, "Domain Randomization for Transferring Deep Neural Networks from
Simulation to the Real World".
"""

from dataclasses import dataclass
from typing import Any

import jax
from jaxtyping import Array, Bool

from rlgen.curriculum import fill_new
from rlgen.protocols import LevelEnv, Sampler
from rlgen.registry import require
from rlgen.types import Key, Keys, PyTree, Slots


@dataclass(frozen=True)
class Random(Sampler):
    """Fills each free slot, and each place of its queue, with a new level.

    Attributes:
        simple: draw levels of the environment's simplest kind, from which ACCEL grows others.

    Raises:
        ValueError: simple levels of an environment that has none.
    """

    env: LevelEnv
    simple: bool = False

    def __post_init__(self):
        if self.simple:
            require(
                self.env, LevelEnv.sample_simple_level, "a source of simple levels (simple=True)"
            )

    def init(self, key: Key, memory: PyTree) -> tuple[()]:
        """There is nothing to remember."""
        del key, memory
        return ()

    def example_level(self) -> PyTree:
        """One level of the family, always the same."""
        return self._sample(jax.random.key(0))

    def propose(
        self, keys: Keys, state: tuple[()], slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[tuple[()], Slots]:
        """New levels, of weight 1, for the free slots."""
        keys_level = jax.random.split(keys.own, slots.buffer_index.shape)
        level = jax.vmap(jax.vmap(self._sample))(keys_level)
        return state, fill_new(slots, free, level)

    def _sample(self, key: Key) -> PyTree:
        return self.env.sample_simple_level(key) if self.simple else self.env.sample_level(key)


def build(env: LevelEnv, **fields: Any) -> Random:
    """Domain randomisation over an environment's levels."""
    return Random(env, **fields)


def tiny(env: LevelEnv) -> Random:
    """The smallest instance, for tests of laws."""
    return Random(env)
