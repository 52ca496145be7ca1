"""LPO: evolves the drift function, which penalises steps away from the old policy.

Source: Lu et al., 2022, "Discovered Policy Optimisation".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT, DRIFT_STEPS
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Build the evolution of a drift on random levels; all lifetimes have the same length.

    In the presets `parity` and `strong`, the search starts from PPO's drift. In `fast`, the search
    starts from a random drift.
    """
    return curriculum_of(env, learner, clock=False)
