"""Domain randomisation: every level is a fresh draw from the environment's base distribution.

Source: Tobin et al., 2017, "Domain Randomization for Transferring Deep Neural Networks from
Simulation to the Real World".
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.branching import where
from rlgen.protocols import LevelEnv
from rlgen.types import NEW, Keys, PyTree, Slots


@dataclass(frozen=True)
class Random:
    """Fills each free slot, and each place of its queue, with a new level."""

    env: LevelEnv

    def init(self, key: jax.Array) -> tuple[()]:
        """There is nothing to remember."""
        del key
        return ()

    def blank(self) -> PyTree:
        """One level of the family, always the same."""
        return self.env.sample_level(jax.random.key(0))

    def propose(
        self, keys: Keys, state: tuple[()], slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[tuple[()], Slots]:
        """New levels, of weight 1, for the free slots."""
        keys_level = jax.random.split(keys.own, slots.row.shape)
        level = jax.vmap(jax.vmap(self.env.sample_level))(keys_level)
        return state, fill_new(slots, free, level)

    def observe(
        self,
        keys: Keys,
        state: tuple[()],
        slots: Slots,
        score: Float[Array, "N R"],
        done: Bool[Array, " N"],
    ) -> tuple[()]:
        """Random levels do not depend on how earlier ones went."""
        del keys, slots, score, done
        return state


def fill_new(slots: Slots, free: Bool[Array, " N"], level: PyTree) -> Slots:
    """The slots with levels [N, R, ...] without a past in the free ones, to be trained on."""
    new = Slots(
        level=level,
        memory=slots.memory,
        row=jnp.full_like(slots.row, -1),
        origin=jnp.full_like(slots.origin, NEW),
        weight=jnp.ones_like(slots.weight),
    )
    return where(free, new, slots)


def build(env: LevelEnv) -> Random:
    """Domain randomisation over an environment's levels."""
    return Random(env)


def tiny(env: LevelEnv) -> Random:
    """The smallest instance, for tests of laws."""
    return Random(env)
