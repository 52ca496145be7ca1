"""TA-LPG: evolves an update rule with a clock, the elapsed share of the agent's lifetime.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import EVOLUTION_STEPS, TEMPORAL
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL, EVOLUTION_STEPS


def build(env: LevelEnv, learner: str = "lpg") -> Curriculum:
    """Build evolution over whole lifetimes of 10 to 250 updates on random levels, with a clock."""
    return curriculum_of(env, learner, clock=True)
