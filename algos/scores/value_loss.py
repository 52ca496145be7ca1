"""What value losses have in common: they are judged by the critic's advantages on a level."""

import abc
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Array, Float

from rlgen.protocols import Score
from rlgen.returns import extrinsic_advantage, mean_per_level, protagonist
from rlgen.types import Key, Outcome, PyTree, Slots


@dataclass(frozen=True)
class ValueLoss(Score, abstract=True):
    """Base of value losses: the mean over episodes of the mean over steps of a loss.

    The loss is of A_t, the GAE advantage of the extrinsic reward alone, so exploration bonuses
    cannot raise it.

    Attributes:
        discount: γ; the learner's own.
        gae_lambda: λ; the learner's own.
        bootstrap_truncation: whether a time limit bootstraps; as the learner does.
        completed_only: whether the episode that the rollout's end cuts off is left out, as in
            published code; a level without a completed episode then has no score.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    discount: float = 0.995
    gae_lambda: float = 0.98
    bootstrap_truncation: bool = True
    completed_only: bool = False

    @abc.abstractmethod
    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """The loss of each step, 0 or more."""

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score in units of reward, 0 or more; reads member 0 of the population."""
        del key
        rollout = protagonist(outcome)
        advantage = extrinsic_advantage(
            rollout, self.discount, self.gae_lambda, self.bootstrap_truncation
        )
        loss, num_levels = self.loss(advantage), slots.buffer_index.shape[1]
        return mean_per_level(loss, rollout, num_levels, self.completed_only), slots.score_state
