"""Grounded L1 value loss: how wrong the critic was about a level that is known to be feasible.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.best_return import BestReturnScore
from rlgen.algos.scores.value_loss import ValueLoss
from rlgen.protocols import Learner, LevelEnv
from rlgen.returns import best_return, environment_fields
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class GroundedL1ValueLoss(ValueLoss, BestReturnScore):
    """The L1 value loss where some episode so far beat the floor, 0 elsewhere.

    The L1 value loss is the mean over episodes of the mean over steps of |A_t|, A_t the GAE
    advantage of the extrinsic reward. The level's memory is the highest undiscounted extrinsic
    return of a completed episode on it so far, this rollout included. Other fields as in
    `rlgen.algos.scores.value_loss.ValueLoss`.

    Attributes:
        floor: the return of an episode that achieved nothing; `build` asks the environment for its
            `lowest_return`. 0 as published.
    """

    floor: float = 0.0

    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """The size of the advantage."""
        return jnp.abs(advantage)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of reward, 0 or more, and the new best return; reads member 0."""
        loss, _ = super().__call__(key, slots, outcome)
        best = best_return(slots, outcome)
        # Zero, and not `-inf`, where nothing was achieved: the level was judged, and found wanting.
        futile = jnp.isfinite(loss) & (best <= self.floor)
        return jnp.where(futile, 0.0, loss), best


def build(env: LevelEnv, learner: Learner, **fields: Any) -> GroundedL1ValueLoss:
    """The score with the learner's own discounting and the environment's lowest return."""
    return GroundedL1ValueLoss(**(learner.discounting() | environment_fields(env) | fields))


def tiny(env: LevelEnv) -> GroundedL1ValueLoss:
    """The smallest instance, for tests of laws."""
    del env
    return GroundedL1ValueLoss()
