"""SFL: scores many random levels at intervals and trains on those with the highest learnability.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery".
"""

from dataclasses import replace

from rlgen.algos.recipes.presets.ued import on_learning
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.sfl import SFL
from rlgen.algos.scores.learnability import Learnability
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score
from rlgen.types import Preset

_LEARNER: Preset = {
    "num_slots": 256,
    "student.learner.learning_rate": 2.5e-4,
    # The clip ranges of Rutherford et al. are much smaller than PPO's usual 0.2.
    "student.learner.clip": 0.04,
    "student.learner.value_clip": 0.04,
    "student.learner.entropy_coef": 0.0,
    "student.learner.num_epochs": 4,
    "student.learner.num_minibatches": 4,
    "student.learner.discount": 0.99,
    "student.learner.gae_lambda": 0.95,
    "score.discount": 0.99,
    "score.gae_lambda": 0.95,
    "sampler.sampled_share": 0.5,
}

# The settings of the code of Rutherford et al. For every 100 updates that train, 784 updates
# evaluate candidates. Mazes have 60 walls in that code; here they have 25, as in JaxUED and in
# every preset `parity`.
_PARITY: Preset = {
    **_LEARNER,
    "sampler.num_candidates": 25_000,
    "sampler.scout_updates": 8,
    "sampler.capacity": 1000,
    "sampler.train_updates": 100,
}

# The values stated in the paper: a fifth of the candidates of `parity`, collected twice as often.
# For every 50 updates that train, 160 updates still evaluate candidates, so this preset needs many
# env steps.
_STRONG: Preset = {**_PARITY, "sampler.num_candidates": 5000, "sampler.train_updates": 50}

# For every 96 updates that train, 32 updates evaluate candidates, which takes a quarter of the env
# steps. Training begins after 262,144 env steps. A candidate is played twice, because one play of
# 256 steps may contain a single failed episode, with learnability 0. A level of the pool is played
# 12 times (in `parity` 13 times), and 1 candidate in 4 is kept (in `parity` 1 in 25, in `strong`
# 1 in 5).
_FAST: Preset = {
    "sampler.num_candidates": 512,
    "sampler.scout_updates": 2,
    "sampler.capacity": 128,
    "sampler.train_updates": 96,
    "sampler.sampled_share": 0.5,
}

PRESETS = on_learning(_PARITY, _STRONG, _FAST)


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "learnability") -> Curriculum:
    """Build SFL; learnability counts the episodes of all plays of a candidate."""
    student, judge = student_and_score(env, learner, score)
    # A candidate is played in several updates, so its score must accumulate over these plays.
    if isinstance(judge, Learnability):
        judge = replace(judge, accumulate=True)
    return Curriculum(student, SFL(env, Random(env)), judge)
