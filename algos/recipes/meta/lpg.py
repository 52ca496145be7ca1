"""LPG: learns an update rule by meta-gradients, from agents that train on random levels.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms".
"""

from rlgen.algos.meta.meta_gradient import rule_student_and_score
from rlgen.algos.recipes.presets.meta_gradient import LEARNING, RULE_STEPS
from rlgen.algos.samplers.lifetimes import Lifetimes
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = LEARNING, RULE_STEPS


def build(env: LevelEnv, learner: str = "", score: str = "none") -> Curriculum:
    """Build LPG on random levels.

    If a `learner` is given, such as a2c, agents are also trained with this learner, for comparison
    with the rule.
    """
    student, judge = rule_student_and_score(env, learner, score)
    return Curriculum(student, Lifetimes(env, Random(env)), judge)
