"""ACCEL: robust PLR that also edits replayed levels and keeps the mutants with high scores.

Source: Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design". This
paper starts from simple levels, as the preset `strong` does (`sampler.source.simple`). JaxUED
starts from random levels, as the preset `parity` does.
"""

from rlgen.algos.recipes.presets.ued import EDITING
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = EDITING


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """Build ACCEL: each replay update is followed by an update with mutants of weight 0."""
    student, judge = student_and_score(env, learner, score)
    sampler = PLR(env, Random(env), train_on_new=False, mutator=Mutator(num_edits=5))
    return Curriculum(student, sampler, judge)
