"""LPG by evolution: evolves an update rule that ignores the agent's lifetime; baseline for TA-LPG.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms",
where LPG is also trained by evolution.
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import EVOLUTION_STEPS, TIMELESS
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TIMELESS, EVOLUTION_STEPS


def build(env: LevelEnv, learner: str = "lpg") -> Curriculum:
    """Build the evolution of a rule on random levels.

    In the presets, lifetimes are 10 to 250 updates.
    """
    return curriculum_of(env, learner, clock=False)
