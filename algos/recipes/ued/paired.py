"""PAIRED: a teacher builds levels that the antagonist solves and the protagonist does not yet.

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
    """Two students on the same levels, of which the first is evaluated; their regret is the pay."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(replace(student, population=2), paired.build(env, network), judge)
