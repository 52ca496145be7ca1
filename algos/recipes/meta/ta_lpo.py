"""Evolve the drift of a policy's updates, as a function of how much of its life is over (TA-LPO).

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT_STEPS, TEMPORAL_DRIFT
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL_DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Whole lives of one length, of agents that begin as PPO's; the drift has a clock."""
    return curriculum_of(env, learner, clock=True)
