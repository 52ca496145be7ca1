"""Prioritised level replay, trained on new and on replayed levels.

Source: Jiang et al., 2021, "Prioritized Level Replay"; with the score and the settings of its
successor on mazes, see `robust_plr`.
"""

from rlgen.algos.recipes.presets.ued import REPLAY
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = REPLAY


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """PLR: replay four updates in five, once 2,000 levels have been seen."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, PLR(env, Random(env), train_on_new=True), judge)
