"""Positive value loss: mean positive part of the GAE advantage on a level, a regret estimate.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", eq. 4.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.value_loss import ValueLoss
from rlgen.protocols import Learner, LevelEnv


@dataclass(frozen=True)
class PositiveValueLoss(ValueLoss):
    """Mean over episodes of the mean over steps of max(A_t, 0), where A_t is the GAE advantage.

    The advantage is computed from the extrinsic reward alone, so exploration bonuses cannot raise
    the score. The fields are described in `rlgen.algos.scores.value_loss.ValueLoss`.
    """

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """Return the positive part of the advantage."""
        return jnp.maximum(advantage, 0.0)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> PositiveValueLoss:
    """Build the score with the learner's γ, λ and treatment of time limits."""
    del env
    return PositiveValueLoss(**(learner.discounting() | fields))


def tiny(env: LevelEnv) -> PositiveValueLoss:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return PositiveValueLoss()
