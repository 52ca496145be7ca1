"""No score, for samplers that ask for none: free of charge."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class NoScore(Score):
    """Says of no level that anything was learned about it."""

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """`-inf` for every level."""
        del key, outcome
        return jnp.full(slots.buffer_index.shape, -jnp.inf), slots.score_state


def build(env: LevelEnv, learner: Learner) -> NoScore:
    """The score of a curriculum that does not choose."""
    del env, learner
    return NoScore()


def tiny(env: LevelEnv) -> NoScore:
    """The smallest instance, for tests of laws."""
    del env
    return NoScore()
