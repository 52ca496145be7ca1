"""EL-DRED: DRED whose new levels are edits of replayed levels, without a generative model.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from rlgen.algos.recipes.presets.finite import EDITED
from rlgen.algos.samplers.dred import DRED
from rlgen.algos.samplers.fixed import own_set
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = EDITED


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "l1-value-loss") -> Curriculum:
    """Build EL-DRED over the environment's suite `train`, or else over sampled levels.

    `sampler.data.path` selects another set.
    """
    student, judge = student_and_score(env, learner, score)
    sampler = DRED(env, own_set(env), mutator=Mutator(parents="easiest"))
    return Curriculum(student, sampler, judge, levels_per_slot=8)
