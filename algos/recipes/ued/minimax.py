"""Minimax adversary: a teacher paid for the student's failure; a baseline that goes astray.

Nothing keeps it from levels that cannot be solved, which is what regret was proposed against.

Source: as a baseline of environment design, Dennis et al., 2020, "Emergent Complexity and Zero-shot
Transfer via Unsupervised Environment Design".
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
    """One student; what it loses, the teacher gains."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, paired.build(env, network), judge)
