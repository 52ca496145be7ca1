"""Evolve an update rule that sees how much of an agent's life is over (TA-LPG).

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms".
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import EVOLUTION_STEPS, TEMPORAL
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TEMPORAL, EVOLUTION_STEPS


def build(env: LevelEnv, learner: str = "lpg") -> Curriculum:
    """Whole lives on random levels, of 10 to 250 updates; the rule has a clock."""
    return curriculum_of(env, learner, clock=True)
