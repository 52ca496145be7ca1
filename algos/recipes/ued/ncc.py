"""NCC: trains on a distribution over levels that is optimised for learnability by gradient ascent.

Source: Monette et al., 2025, "An Optimisation Framework for Unsupervised Environment Design"
(NCC-Learn). NCC-Reg uses `score="oracle-regret"`, an environment with a solver, and the settings
`--sampler.entropy-coef 0.032 --sampler.step-size 0.005`.
"""

from rlgen.algos.recipes.presets.ued import on_learning
from rlgen.algos.samplers.ncc import NCC
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score
from rlgen.types import Preset

# One epoch and one minibatch: few gradient steps at a high learning rate. The released learner uses
# TiAda, for which the learning rate was tuned; here Adam uses that rate.
_LEARNER: Preset = {
    "num_slots": 256,
    "student.learner.learning_rate": 1.466e-3,
    "student.learner.anneal": True,
    "student.learner.entropy_coef": 1e-3,
    "student.learner.num_epochs": 1,
    "student.learner.num_minibatches": 1,
    # NCC's value; the other published settings for mazes use 0.5.
    "student.learner.max_grad_norm": 0.25,
    "student.learner.discount": 0.995,
    "student.learner.gae_lambda": 0.98,
    "score.discount": 0.995,
    "score.gae_lambda": 0.98,
}

# The released settings, except that a level is scored by one play instead of five. 17 updates score
# levels for each update that trains.
_PARITY: Preset = {
    **_LEARNER,
    "sampler.capacity": 4000,
    "sampler.entropy_coef": 0.05,
    "sampler.step_size": 0.1,
    "sampler.floor": 1e-5,
    "sampler.per_level": True,
    "sampler.num_fresh_updates": 1,
    "sampler.train_updates": 1,
}

# Equally many updates train and score levels, while the published settings would train in 1 of 18.
# With one shared step size the distribution converges to the optimum stated in the paper.
_STRONG: Preset = {**_PARITY, "sampler.per_level": False, "sampler.train_updates": 17}

# 9 updates score levels for every 27 that train: scoring takes a quarter of the env steps, and
# training begins after 73,728 env steps. A level is played 3 times per cycle on average, and 32 new
# levels are evaluated per cycle.
_FAST: Preset = {
    "sampler.capacity": 256,
    "sampler.entropy_coef": 0.05,
    "sampler.step_size": 0.1,
    "sampler.floor": 1e-4,
    "sampler.per_level": False,
    "sampler.num_fresh_updates": 1,
    "sampler.train_updates": 27,
}

PRESETS = on_learning(_PARITY, _STRONG, _FAST)


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "learnability") -> Curriculum:
    """Build NCC; `sampler.entropy_coef` is in units of the score."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, NCC(env, Random(env)), judge)
