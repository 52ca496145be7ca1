"""TA-LPG: evolves an update rule that receives the elapsed fraction of the agent's lifetime.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import EVOLUTION_STEPS, TEMPORAL
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL, EVOLUTION_STEPS


def build(env: LevelEnv, learner: str = "lpg") -> Curriculum:
    """Build the evolution of a rule on random levels.

    In the presets, lifetimes are 10 to 250 updates.
    """
    return curriculum_of(env, learner, clock=True)
