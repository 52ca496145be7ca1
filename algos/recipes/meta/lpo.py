"""LPO: evolves the drift function of the policy update.

Source: Lu et al., 2022, "Discovered Policy Optimisation".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT, DRIFT_STEPS
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Build evolution over whole lifetimes of a fixed length.

    The search starts at PPO's drift, except in the preset `fast`, where it starts at random.
    """
    return curriculum_of(env, learner, clock=False)
