"""Prioritised level replay of a finite training set, without new levels.

Source: Jiang et al., 2021, "Prioritized Level Replay", whose levels are a finite set of seeds; the
settings are from Garcin et al., 2024, "DRED".
"""

from rlgen.algos.recipes.presets.finite import DATA_ONLY
from rlgen.algos.samplers.dred import DRED, Mixture
from rlgen.algos.samplers.fixed import own_set
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = DATA_ONLY


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "l1-value-loss") -> Curriculum:
    """Build PLR over the environment's suite `train`, or else over sampled levels.

    `sampler.data.path` selects another set.
    """
    student, judge = student_and_score(env, learner, score)
    # η = 0 in every update: only the set's own distribution P_S and staleness remain.
    sampler = DRED(env, own_set(env), mixture=Mixture(share_end=0.0))
    return Curriculum(student, sampler, judge, levels_per_slot=8)
