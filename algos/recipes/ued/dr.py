"""Domain randomisation (DR): trains on new random levels in every update.

Source: Tobin et al., 2017, "Domain Randomization for Transferring Deep Neural Networks from
Simulation to the Real World".
"""

from rlgen.algos.recipes.presets.ued import LEARNING
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = LEARNING


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "none") -> Curriculum:
    """Build DR. Scores do not affect training; a score other than `none` is only reported."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, Random(env), judge)
