"""Prioritised level replay (PLR): trains on new levels and on replayed levels with high scores.

Source: Jiang et al., 2021, "Prioritized Level Replay". The score and the settings are those of
robust PLR, the successor of this method, on mazes; see `robust_plr`.
"""

from rlgen.algos.recipes.presets.ued import REPLAY
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = REPLAY


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """Build PLR: after 2,000 new levels have been played, 80 % of the updates replay."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, PLR(env, Random(env), train_on_new=True), judge)
