"""Evolve the drift of a policy's updates (LPO).

Source: Lu et al., 2022, "Discovered Policy Optimisation".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import DRIFT, DRIFT_STEPS
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Whole lives of one length, of agents that begin as PPO's."""
    return curriculum_of(env, learner, clock=False)
