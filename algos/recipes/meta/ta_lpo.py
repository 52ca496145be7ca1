"""TA-LPO: evolves a drift function that depends on the elapsed share of the agent's lifetime.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT_STEPS, TEMPORAL_DRIFT
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL_DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Build evolution over whole lifetimes of a fixed length; the drift function has a clock.

    The search starts at PPO's drift, except in the preset `fast`, where it starts at random.
    """
    return curriculum_of(env, learner, clock=True)
