"""LPG on a finite set of levels, to measure how many levels a rule needs to generalise.

Source of the protocol: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms
with Adversarial Environment Design", where rules were trained on 1 to 1024 levels.
"""

from rlgen.algos.meta.meta_gradient import rule_student_and_score
from rlgen.algos.recipes.presets.meta_gradient import LEARNING, RULE_STEPS
from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.lifetimes import Lifetimes
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = LEARNING, RULE_STEPS


def build(env: LevelEnv, learner: str = "", score: str = "none") -> Curriculum:
    """Build LPG on 200 sampled levels.

    `sampler.source.num_levels`, `sampler.source.seed` and `sampler.source.path` select another set.
    """
    student, judge = rule_student_and_score(env, learner, score)
    return Curriculum(student, Lifetimes(env, Fixed(env)), judge)
