"""A finite training set: trains on the same M levels, drawn uniformly.

Source of the protocol: Cobbe et al., 2019, "Quantifying Generalization in Reinforcement Learning".
"""

from rlgen.algos.recipes.presets.finite import UNIFORM
from rlgen.algos.samplers.fixed import own_set
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = UNIFORM


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "none") -> Curriculum:
    """Build training on the environment's suite `train`, or else on 200 sampled levels.

    `sampler.path`, `sampler.num_levels` and `sampler.seed` select another set.
    """
    # The sampler ignores scores; a score other than `none` is only reported.
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, own_set(env), judge)
