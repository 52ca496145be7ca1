"""GROOVE: meta-learns an update rule on a curriculum of levels with high algorithmic regret.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design".
"""

from rlgen.algos.meta.meta_gradient import rule_student_and_score
from rlgen.algos.recipes.presets.meta_gradient import REPLAY, RULE_STEPS
from rlgen.algos.samplers.lifetimes import Lifetimes, TaskEnv
from rlgen.algos.samplers.plr import PLR, EachSlot
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv

PRESETS, STEPS = REPLAY, RULE_STEPS
NEEDS_ANTAGONIST = "algorithmic-regret"


def build(env: LevelEnv, learner: str = "a2c", score: str = "algorithmic-regret") -> Curriculum:
    """Build GROOVE; `learner` is the antagonist.

    Algorithmic regret compares the agents of the antagonist with the agents of the rule.
    """
    # Other scores need no antagonist, so no antagonist is trained.
    antagonist = learner if score == NEEDS_ANTAGONIST else ""
    student, judge = rule_student_and_score(env, antagonist, score)
    source = Lifetimes(env, Random(env))
    # Lifetimes end at different times, so each slot decides separately whether it replays.
    sampler = PLR(TaskEnv(env), source, EachSlot(replay_prob=0.5))
    return Curriculum(student, sampler, judge)
