"""Grounded L1 value loss: how wrong the critic was about a level that is known to be feasible.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.returns import (
    best_return,
    environment_fields,
    extrinsic_advantage,
    mean_per_level,
    protagonist,
)
from rlgen.types import Key, Outcome, Slots


@dataclass(frozen=True)
class GroundedL1ValueLoss(Score):
    """The L1 value loss where some episode so far beat the floor, 0 elsewhere.

    The L1 value loss is the mean over episodes of the mean over steps of |A_t|, A_t the GAE
    advantage of the extrinsic reward. The level's memory is the highest undiscounted extrinsic
    return of a completed episode on it so far, this rollout included.

    Attributes:
        discount: γ; the learner's own.
        gae_lambda: λ; the learner's own.
        bootstrap_truncation: whether a time limit bootstraps; as the learner does.
        completed_only: whether the episode that the rollout's end cuts off is left out, as in
            published code; a level without a completed episode then has no score.
        floor: the return of an episode that achieved nothing; `build` asks the environment for its
            `lowest_return`. 0 as published.
    """

    discount: float = 0.995
    gae_lambda: float = 0.98
    bootstrap_truncation: bool = True
    completed_only: bool = False
    floor: float = 0.0

    reads = frozenset({"rollout"})

    def initial_state(self) -> Float[Array, ""]:
        """Best return on an unseen level."""
        return jnp.float32(self.floor)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of reward, 0 or more, and the new best return; reads member 0."""
        del key
        rollout = protagonist(outcome)
        best = best_return(slots, outcome)
        advantage = extrinsic_advantage(
            rollout, self.discount, self.gae_lambda, self.bootstrap_truncation
        )
        size = jnp.abs(advantage)
        loss = mean_per_level(size, rollout, slots.buffer_index.shape[1], self.completed_only)
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
