"""Minimax adversary, a weak baseline: the teacher's reward is minus the student's return.

The teacher may build unsolvable levels, a failure mode that regret was proposed to avoid.

Source: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design", where the minimax adversary is a baseline.
"""

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
    score: str = "negative-return",
    network: Literal["lean", "published"] = "lean",
) -> Curriculum:
    """Build a zero-sum game between one student and the teacher."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, paired.build(env, network), judge)
