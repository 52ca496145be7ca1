"""Robust PLR: trains only on replayed levels; new levels are evaluated without training.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design".
"""

from rlgen.algos.recipes.presets.ued import ROBUST
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = ROBUST


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """Build robust PLR: new levels have weight 0, so the student does not train on them."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, PLR(env, Random(env), train_on_new=False), judge)
