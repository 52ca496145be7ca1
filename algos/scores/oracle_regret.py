"""Oracle regret: how far the agent falls short of the best return there is on the level.

What the other regret scores estimate, exactly, where the environment has a solver.

Source: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design" (regret), with an exact solver in the place of the antagonist.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.parallel.seeds import any_over_seeds
from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.registry import require
from rlgen.returns import completed
from rlgen.types import Key, Outcome, PyTree, Slots

UNASKED, NO_WAY = jnp.inf, -jnp.inf
"""Optimal return of a level before it is solved (no bound is known), and where none succeeds."""


@dataclass(frozen=True)
class OracleRegret(Score):
    """The optimal return less the mean return of the completed episodes; 0 if none can succeed.

    The optimum is of an agent that knows the whole level, so a partially observing one keeps some
    regret however well it plays. It is the level's memory: each level is solved once, and where
    all levels in play are known (replay), the solver does not run at all.

    Attributes:
        env: has the solver, `solve(level) -> Solution`.

    Raises:
        ValueError: the environment has no solver.
    """

    env: LevelEnv

    reads = frozenset({"episodes"})

    def __post_init__(self):
        require(self.env, LevelEnv.solve, "the score oracle-regret")

    def initial_state(self) -> Float[Array, ""]:
        """Optimal return of an unseen level."""
        return jnp.float32(UNASKED)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Score in units of return, 0 or more, and the optimal returns; reads member 0.

        A level without a completed episode has no score.
        """
        del key
        stats = completed(outcome, slots.buffer_index.shape[1])
        best = self._optimal(slots.level, slots.score_state)
        # An agent as good as the solver may be a rounding error better.
        regret = jnp.where(best == NO_WAY, 0.0, jnp.maximum(best - stats.mean_return, 0.0))
        return jnp.where(stats.num > 0, regret, -jnp.inf), best

    def _optimal(self, level: PyTree, known: Float[Array, "N R"]) -> Float[Array, "N R"]:
        unknown = known == UNASKED

        def solve() -> Float[Array, "N R"]:
            solution = jax.vmap(jax.vmap(self.env.solve))(level)
            best = jnp.where(solution.solvable, solution.optimal_return, NO_WAY)
            return jnp.where(unknown, best, known)

        # A branch, not a choice: solving costs more than all other scores together.
        return jax.lax.cond(any_over_seeds(unknown.any()), solve, lambda: known)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> OracleRegret:
    """The regret by the environment's own solver."""
    del learner
    return OracleRegret(env, **fields)


def tiny(env: LevelEnv) -> OracleRegret:
    """The smallest instance, for tests of laws."""
    return OracleRegret(env)
