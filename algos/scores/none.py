"""No score, at no cost; intended for samplers that do not use scores."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class NoScore(Score):
    """Gives every level the score `-inf`, which means that no score is known."""

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return `-inf` for every level, and the unchanged memory."""
        del key, outcome
        # The value is not 0, because a buffer would accept 0 as a score.
        return jnp.full(slots.buffer_index.shape, -jnp.inf), slots.score_state


def build(env: LevelEnv, learner: Learner) -> NoScore:
    """Build the score for a curriculum that does not select levels by score."""
    del env, learner
    return NoScore()


def tiny(env: LevelEnv) -> NoScore:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return NoScore()
