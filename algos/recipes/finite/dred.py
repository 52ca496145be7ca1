"""DRED: trains on a finite set and, increasingly, on levels interpolated between those of the set.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from rlgen.algos.recipes.presets.finite import GROUNDED
from rlgen.algos.samplers.dred import DRED
from rlgen.algos.samplers.fixed import own_set
from rlgen.algos.samplers.generated import Generated, model_for
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = GROUNDED


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "l1-value-loss") -> Curriculum:
    """Build DRED over the suite `train`; if the environment has none, over sampled levels.

    `sampler.data.path` selects another set.
    """
    model = model_for(env)
    student, judge = student_and_score(env, learner, score)
    # `DRED` and `Generated` get the same set, so that the model is fitted on the replayed levels.
    data = own_set(env)
    sampler = DRED(env, data, Generated(env, model, data))
    return Curriculum(student, sampler, judge, levels_per_slot=8)
