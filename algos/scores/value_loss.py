"""Common base of value losses, which score a level by the advantages of the steps on the level."""

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

    The loss is a function of A_t, the GAE advantage of the extrinsic reward alone. Exploration
    bonuses therefore cannot raise the score.

    Attributes:
        discount: Discount γ; `build` uses the learner's γ.
        gae_lambda: GAE parameter λ; `build` uses the learner's λ.
        bootstrap_truncation: Bootstrap the value at a time limit; `build` uses the learner's field.
        completed_only: Ignore the episode that is unfinished at the end of the rollout, as in the
            scores of JaxUED. A level without a completed episode then has no score.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    discount: float = 0.995
    gae_lambda: float = 0.98
    bootstrap_truncation: bool = True
    completed_only: bool = False

    @abc.abstractmethod
    def loss(self, advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
        """Return the loss of each step, at least 0."""

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return the score in units of reward, at least 0, and the unchanged memory.

        The score is computed from member 0 of the population.
        """
        del key
        rollout = protagonist(outcome)  # [P, T, N] -> [T, N]
        # The values are those stored in the rollout; the critic computed them before this update.
        advantage = extrinsic_advantage(
            rollout, self.discount, self.gae_lambda, self.bootstrap_truncation
        )
        loss, num_levels = self.loss(advantage), slots.buffer_index.shape[1]
        return mean_per_level(loss, rollout, num_levels, self.completed_only), slots.score_state
