"""L1 value loss: how wrong the critic was about a level, in either direction.

Source: Jiang et al., 2021, "Prioritized Level Replay", section 3.1 (GAE magnitude); with
`gae_lambda=0` their one-step TD error.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.value_loss import ValueLoss
from rlgen.protocols import Learner, LevelEnv


@dataclass(frozen=True)
class L1ValueLoss(ValueLoss):
    """Mean over episodes of the mean over steps of |A_t|, A_t the GAE advantage.

    Measured on extrinsic reward alone, so exploration bonuses cannot raise it; fields as in
    `rlgen.algos.scores.value_loss.ValueLoss`.
    """

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """The size of the advantage."""
        return jnp.abs(advantage)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> L1ValueLoss:
    """The score with the learner's own γ, λ and treatment of time limits."""
    del env
    return L1ValueLoss(**(learner.discounting() | fields))


def tiny(env: LevelEnv) -> L1ValueLoss:
    """The smallest instance, for tests of laws."""
    del env
    return L1ValueLoss()
