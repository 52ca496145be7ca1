"""A finite training set: train on the same M levels, and see what that does to new ones.

Source of the protocol: Cobbe et al., 2019, "Quantifying Generalization in Reinforcement Learning".
"""

from rlgen.algos.recipes.presets.finite import UNIFORM
from rlgen.algos.samplers.fixed import own_set
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = UNIFORM


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "none") -> Curriculum:
    """The training set that ships with the environment, or 200 sampled levels.

    `sampler.path`, `.num_levels` and `.seed` say which others.
    """
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, own_set(env), judge)
