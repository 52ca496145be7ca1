"""PAIRED: a teacher is rewarded for levels that the antagonist solves and the protagonist does not.

Source: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design".
"""

from dataclasses import replace
from typing import Literal

from rlgen.algos.recipes.presets.paired import TAUGHT
from rlgen.algos.samplers import paired
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = TAUGHT


def build(
    env: LevelEnv,
    learner: str = "ppo-lstm",
    score: str = "regret",
    network: Literal["lean", "published"] = "lean",
) -> Curriculum:
    """Build PAIRED: the teacher's reward is the regret of two students on the same levels.

    The protagonist, member 0 of the population, is the agent that is evaluated.
    """
    student, judge = student_and_score(env, learner, score)
    # Member 0 is the protagonist, and member 1 is the antagonist.
    return Curriculum(replace(student, population=2), paired.build(env, network), judge)
