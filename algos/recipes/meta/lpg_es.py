"""Evolve an update rule that sees rollouts alone: what `ta-lpg` is compared with.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms", in
which LPG is trained by evolution as well.
"""

from rlgen.algos.recipes.meta.evolve import curriculum_of
from rlgen.algos.recipes.presets.evolution import EVOLUTION_STEPS, TIMELESS
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = TIMELESS, EVOLUTION_STEPS


def build(env: LevelEnv, learner: str = "lpg") -> Curriculum:
    """Whole lives on random levels, of 10 to 250 updates."""
    return curriculum_of(env, learner, clock=False)
