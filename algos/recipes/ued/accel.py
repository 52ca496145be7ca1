"""ACCEL: robust PLR whose replayed levels are edited, and the edits kept where they are worth it.

Source: Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design". Its
levels grow out of simple ones (`sampler.source.simple`, preset `strong`); JaxUED's out of random
ones (`parity`).
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
    """Robust PLR that follows every update of replay with one of mutants, of weight 0."""
    student, judge = student_and_score(env, learner, score)
    sampler = PLR(env, Random(env), train_on_new=False, mutator=Mutator(num_edits=5))
    return Curriculum(student, sampler, judge)
