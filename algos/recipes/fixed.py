"""A finite training set: train on the same M levels, and see what that does to new ones.

Source of the protocol: Cobbe et al., 2019, "Quantifying Generalization in Reinforcement Learning".
"""

from rlgen.algos.samplers.fixed import Fixed
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

from ._parts import student_and_score
from ._presets import LEARNING

PRESETS = LEARNING


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "none") -> Curriculum:
    """200 sampled levels; `sampler.num_levels`, `.seed` and `.path` say which others."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, Fixed(env), judge)
