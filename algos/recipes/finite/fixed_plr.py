"""Prioritised level replay of a finite training set; nothing is ever added to it.

Source: Jiang et al., 2021, "Prioritized Level Replay", whose levels are a finite set of seeds; the
settings are those of Garcin et al., 2024, "DRED".
"""

from rlgen.algos.recipes.presets.finite import DATA_ONLY
from rlgen.algos.samplers.dred import DRED, Mixture
from rlgen.algos.samplers.fixed import own_set
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = DATA_ONLY


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "l1-value-loss") -> Curriculum:
    """Over the training set that ships with the environment, or `sampler.data.path`, or samples."""
    student, judge = student_and_score(env, learner, score)
    sampler = DRED(env, own_set(env), mixture=Mixture(share_end=0.0))
    return Curriculum(student, sampler, judge, levels_per_slot=8)
