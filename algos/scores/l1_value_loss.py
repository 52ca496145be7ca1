"""L1 value loss: how wrong the critic was about a level, in either direction.

Source: Jiang et al., 2021, "Prioritized Level Replay", section 3.1 (GAE magnitude); with
`gae_lambda=0` their one-step TD error.
"""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.returns import extrinsic_advantage, mean_per_level, protagonist
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class L1ValueLoss(Score):
    """Mean over episodes of the mean over steps of |A_t|, A_t the GAE advantage.

    Measured on extrinsic reward alone, so exploration bonuses cannot raise it.

    Attributes:
        discount: γ; the learner's own.
        gae_lambda: λ; the learner's own.
        bootstrap_truncation: whether a time limit bootstraps; as the learner does.
        completed_only: whether the episode that the rollout's end cuts off is left out, as in
            published code; a level without a completed episode then has no score.
    """

    discount: float = 0.995
    gae_lambda: float = 0.98
    bootstrap_truncation: bool = True
    completed_only: bool = False

    reads = frozenset({"rollout"})

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score in units of reward, 0 or more; reads member 0 of the population."""
        del key
        rollout = protagonist(outcome)
        advantage = extrinsic_advantage(
            rollout, self.discount, self.gae_lambda, self.bootstrap_truncation
        )
        size = jnp.abs(advantage)
        score = mean_per_level(size, rollout, slots.buffer_index.shape[1], self.completed_only)
        return score, slots.score_state


def build(env: LevelEnv, learner: Learner, **fields: Any) -> L1ValueLoss:
    """The score with the learner's own γ, λ and treatment of time limits."""
    del env
    return L1ValueLoss(**(learner.discounting() | fields))


def tiny(env: LevelEnv) -> L1ValueLoss:
    """The smallest instance, for tests of laws."""
    del env
    return L1ValueLoss()
