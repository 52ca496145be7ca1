"""Prioritised level replay of a finite training set, without new levels.

Sources: Jiang et al., 2021, "Prioritized Level Replay", where the levels are a finite set of seeds;
Garcin et al., 2024, "DRED", for the settings.
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
    # η = 0 in every update, so that only P_S and the staleness term remain; see `Mixture`.
    sampler = DRED(env, own_set(env), mixture=Mixture(share_end=0.0))
    return Curriculum(student, sampler, judge, levels_per_slot=8)
