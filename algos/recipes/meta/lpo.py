"""Evolve the drift of a policy's updates (LPO).

Source: Lu et al., 2022, "Discovered Policy Optimisation".
"""

from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

from ._evolution import curriculum_of
from ._evolution_presets import DRIFT, DRIFT_STEPS

PRESETS, STEPS = DRIFT, DRIFT_STEPS


def build(env: LevelEnv, learner: str = "lpo") -> Curriculum:
    """Whole lives of one length, of agents that begin as PPO's."""
    return curriculum_of(env, learner, clock=False)
