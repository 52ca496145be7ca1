"""L1 value loss: mean absolute GAE advantage, the size of the critic's error on a level.

Source: Jiang et al., 2021, "Prioritized Level Replay", section 3.1 (GAE magnitude). With
`gae_lambda=0` the score is the one-step TD error of this paper.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.value_loss import ValueLoss
from rlgen.protocols import Learner, LevelEnv


@dataclass(frozen=True)
class L1ValueLoss(ValueLoss):
    """Mean over episodes of the mean over steps of |A_t|, where A_t is the GAE advantage.

    The advantage is computed from the extrinsic reward alone, so exploration bonuses cannot raise
    the score. The fields are described in `rlgen.algos.scores.value_loss.ValueLoss`.
    """

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """Return the absolute value of the advantage."""
        return jnp.abs(advantage)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> L1ValueLoss:
    """Build the score with the learner's γ, λ and treatment of time limits."""
    del env
    return L1ValueLoss(**(learner.discounting() | fields))


def tiny(env: LevelEnv) -> L1ValueLoss:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return L1ValueLoss()
