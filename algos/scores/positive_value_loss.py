"""Positive value loss: how much better a level went than the critic foresaw.

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
    """Mean over episodes of the mean over steps of max(A_t, 0), A_t the GAE advantage.

    Measured on extrinsic reward alone, so exploration bonuses cannot raise it; fields as in
    `rlgen.algos.scores.value_loss.ValueLoss`.
    """

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """The advantage, where it is positive."""
        return jnp.maximum(advantage, 0.0)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> PositiveValueLoss:
    """The score with the learner's own γ, λ and treatment of time limits."""
    del env
    return PositiveValueLoss(**(learner.discounting() | fields))


def tiny(env: LevelEnv) -> PositiveValueLoss:
    """The smallest instance, for tests of laws."""
    del env
    return PositiveValueLoss()
