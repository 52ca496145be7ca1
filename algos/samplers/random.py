"""Domain randomisation: every level is sampled from the environment's base distribution.

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
    """Fills each queue position of each free slot with a new level.

    Attributes:
        simple: Sample levels of the environment's simplest kind, with which ACCEL starts.

    Raises:
        ValueError: If `simple` is set and the environment has no simple levels.
    """

    env: LevelEnv
    simple: bool = False

    def __post_init__(self):
        if self.simple:
            require(
                self.env, LevelEnv.sample_simple_level, "a source of simple levels (simple=True)"
            )

    def init(self, key: Key, memory: PyTree) -> tuple[()]:
        """Return the empty state."""
        del key, memory
        return ()

    def example_level(self) -> PyTree:
        """Return one level of the family, always the same."""
        return self._sample(jax.random.key(0))

    def propose(
        self, keys: Keys, state: tuple[()], slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[tuple[()], Slots]:
        """Fill the free slots with new levels, with weight 1 in the loss."""
        # One key per queue position, [N, R]. Levels are also sampled for busy slots and dropped.
        keys_level = jax.random.split(keys.own, slots.buffer_index.shape)
        level = jax.vmap(jax.vmap(self._sample))(keys_level)
        return state, fill_new(slots, free, level)

    def _sample(self, key: Key) -> PyTree:
        return self.env.sample_simple_level(key) if self.simple else self.env.sample_level(key)


def build(env: LevelEnv, **fields: Any) -> Random:
    """Build domain randomisation over an environment's levels."""
    return Random(env, **fields)


def tiny(env: LevelEnv) -> Random:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return Random(env)
