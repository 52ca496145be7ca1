"""TA-LPO: evolves a drift function that depends on the elapsed fraction of the agent's lifetime.

The drift function penalises steps away from the old policy.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT_STEPS, TEMPORAL_DRIFT
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL_DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Build the evolution of a drift on random levels; all lifetimes have the same length.

    In the presets `parity` and `strong`, the search starts from PPO's drift. In `fast`, the search
    starts from a random drift.
    """
    return curriculum_of(env, learner, clock=True)
