"""Oracle regret: optimal return of the level minus the agent's mean return.

This is the exact value of the regret that other scores estimate. It requires an environment with a
solver.

Source: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design" (regret), with an exact solver instead of the antagonist.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.parallel.seeds import any_over_seeds
from rlgen.protocols import Learner, LevelEnv, Score
from rlgen.registry import require
from rlgen.returns import completed
from rlgen.types import Key, Outcome, PyTree, Slots

# Infinities and not NaN, because an infinity equals itself. No level has an infinite optimum.
UNASKED, NO_WAY = jnp.inf, -jnp.inf
"""Optimal return of a level before the solver ran, and of a level that cannot be solved."""


@dataclass(frozen=True)
class OracleRegret(Score):
    """Optimal return minus the mean return of the completed episodes; 0 for unsolvable levels.

    The optimal return assumes full knowledge of the level. Under partial observability, the regret
    of even the best policy therefore stays positive. The optimal return is stored as the level's
    memory, so that the solver runs once per level. The solver does not run in an update in which
    all optimal returns are known, such as a replay update.

    Attributes:
        env: Environment with a solver, `solve(level) -> Solution`.

    Raises:
        ValueError: If the environment has no solver.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"episodes"})

    env: LevelEnv

    def __post_init__(self):
        require(self.env, LevelEnv.solve, "the score oracle-regret")

    def initial_state(self) -> Float[Array, ""]:
        """Return the value that stands for an unknown optimal return."""
        return jnp.float32(UNASKED)

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
        """Return the score in units of return, at least 0, and the optimal returns.

        The score is computed from member 0 of the population. A level without a completed episode
        has no score.
        """
        del key
        stats = completed(outcome, slots.buffer_index.shape[1])
        best = self._optimal(slots.level, slots.score_state)
        # Rounding can make an optimal agent's return slightly larger than the solver's optimum.
        regret = jnp.where(best == NO_WAY, 0.0, jnp.maximum(best - stats.mean_return, 0.0))
        return jnp.where(stats.num > 0, regret, -jnp.inf), best

    def _optimal(self, level: PyTree, known: Float[Array, "N R"]) -> Float[Array, "N R"]:
        unknown = known == UNASKED

        def solve() -> Float[Array, "N R"]:
            solution = jax.vmap(jax.vmap(self.env.solve))(level)  # over [N, R]
            best = jnp.where(solution.solvable, solution.optimal_return, NO_WAY)
            return jnp.where(unknown, best, known)

        # A branch and not `jnp.where`: the solver is slower than all other scores together.
        return jax.lax.cond(any_over_seeds(unknown.any()), solve, lambda: known)


def build(env: LevelEnv, learner: Learner, **fields: Any) -> OracleRegret:
    """Build the score with the environment's solver."""
    del learner
    return OracleRegret(env, **fields)


def tiny(env: LevelEnv) -> OracleRegret:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return OracleRegret(env)
