"""REPAIRED: robust PLR, with new levels that a PAIRED teacher builds.

The students train only on replayed levels. The teacher trains only on new levels.

Source: Jiang et al., 2021, "Replay-Guided Adversarial Environment Design", section 5.
"""

from dataclasses import replace
from typing import Literal

from rlgen.algos.recipes.presets.paired import TAUGHT_REPLAY
from rlgen.algos.samplers import paired
from rlgen.algos.samplers.plr import PLR, Alternate
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = TAUGHT_REPLAY


def build(
    env: LevelEnv,
    learner: str = "ppo-lstm",
    score: str = "regret",
    network: Literal["lean", "published"] = "lean",
) -> Curriculum:
    """Build REPAIRED: the students' regret is the teacher's reward and sets the replay priority."""
    student, judge = student_and_score(env, learner, score)
    source = paired.build(env, network)
    sampler = PLR(env, source, Alternate(replay_prob=0.95), train_on_new=False)
    # Member 0 is the protagonist, and member 1 is the antagonist.
    return Curriculum(replace(student, population=2), sampler, judge)
