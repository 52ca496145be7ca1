"""Regret: the antagonist's return minus the protagonist's return on the level.

Sources: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design", section 5 (PAIRED) and its appendix (population).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.scores.member_returns import member_returns
from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.types import Key, Outcome, PyTree, Rollout, Slots

KINDS = ("max-mean", "mean-mean", "population")


@dataclass(frozen=True)
class Regret(Score):
    """The antagonist's return minus the protagonist's return on the same level.

    Member 0 of the population is the protagonist, member 1 the antagonist. A level that was not
    played by all members has no score.

    Attributes:
        kind: Returns whose difference is the regret. `max-mean` takes the antagonist's best episode
            and the protagonist's mean return. `mean-mean` takes the mean returns of both.
            `population` takes the highest and the average of all members' mean returns.
        non_negative: Replace a negative regret by 0, as in the original code of PAIRED and in
            minimax, but not in JaxUED. The regret is negative if the protagonist did better.
        completed_only: Give no score to a level on which some member completed no episode, as in
            the scores of JaxUED. By default, the return that this member collected until the end of
            the rollout is used.

    Raises:
        ValueError: If `kind` is unknown, or if the score is called with a population of the wrong
            size.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    kind: Literal["max-mean", "mean-mean", "population"] = "max-mean"
    non_negative: bool = True
    completed_only: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {self.kind!r}")

    @property
    def may_be_negative(self) -> bool:
        """True if the score can be negative; priorities must then be by rank."""
        return self.kind != "population" and not self.non_negative

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return the score in units of return, and the unchanged memory."""
        del key
        rollouts = self._rollouts(outcome)
        # [P, N, R]; -inf where a member has no episode that counts.
        mean, best = member_returns(rollouts, slots.buffer_index.shape[1], self.completed_only)
        met = jnp.isfinite(mean).all(0)
        # Replace -inf before subtracting: -inf − (−inf) would be NaN.
        mean, best = jnp.where(met[None], mean, 0.0), jnp.where(met[None], best, 0.0)
        if self.kind == "population":
            # Never negative: the highest mean is at least the average.
            regret = mean.max(0) - mean.mean(0)
        else:
            # [N, R], from member 1, the antagonist, and member 0, the protagonist.
            regret = (best if self.kind == "max-mean" else mean)[1] - mean[0]
        if self.non_negative:
            regret = jnp.maximum(regret, 0.0)
        return jnp.where(met, regret, -jnp.inf), slots.score_state

    def _rollouts(self, outcome: Outcome) -> Rollout:
        """Check the size of the population and return its rollouts."""
        rollouts = outcome.rollout
        assert isinstance(rollouts, Rollout), "regret is measured on the rollouts of a population"
        # `student.population` is not known at construction, so the size is checked while tracing.
        size = rollouts.reward.shape[0]  # P, static
        if size < 2 or (size > 2 and self.kind != "population"):
            wanted = "two or more" if self.kind == "population" else "two"
            raise ValueError(
                f"regret of kind {self.kind!r} compares {wanted} learners on the same levels, but "
                f"the student has {size}; set student.population=2 (more with kind='population'), "
                "or choose another score"
            )
        return rollouts


def build(env: LevelEnv, learner: Learner, **fields: Any) -> Regret:
    """Build the score; it depends neither on the environment nor on the learner."""
    del env, learner
    return Regret(**fields)


def tiny(env: LevelEnv) -> Regret:
    """Return the smallest instance, for the tests in `tests/laws`."""
    del env
    return Regret()
