"""NCC: trains on a distribution over levels that is optimised for learnability by gradient ascent.

Source: Monette et al., 2025, "An Optimisation Framework for Unsupervised Environment Design"
(NCC-Learn). For the variant NCC-Reg, use the options `--score oracle-regret
--sampler.entropy-coef 0.032 --sampler.step-size 0.005` in an environment with a solver.
"""

from rlgen.algos.recipes.presets.ued import on_learning
from rlgen.algos.samplers.ncc import NCC
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score
from rlgen.types import Preset

# One epoch and one minibatch: few gradient steps at a high learning rate. Monette et al. tuned the
# learning rate for TiAda, the optimiser of their learner; here Adam uses this learning rate.
_LEARNER: Preset = {
    "num_slots": 256,
    "student.learner.learning_rate": 1.466e-3,
    "student.learner.anneal": True,
    "student.learner.entropy_coef": 1e-3,
    "student.learner.num_epochs": 1,
    "student.learner.num_minibatches": 1,
    # Value of Monette et al.; the other presets for mazes use 0.5.
    "student.learner.max_grad_norm": 0.25,
    "student.learner.discount": 0.995,
    "student.learner.gae_lambda": 0.98,
    "score.discount": 0.995,
    "score.gae_lambda": 0.98,
}

# The settings of the code of Monette et al., except that a level is played once for its score, not
# five times. For each update that trains, 17 updates score levels.
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

# Half of the updates train and the other half score levels. In `parity`, 1 update in 18 trains.
# With one step size for all levels, the distribution converges to the optimum stated in the paper.
_STRONG: Preset = {**_PARITY, "sampler.per_level": False, "sampler.train_updates": 17}

# For every 27 updates that train, 9 updates score levels, which takes a quarter of the env steps.
# Training begins after 73,728 env steps. In each cycle, a level is played 3 times on average, and
# 32 new levels are evaluated.
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
    """Build NCC. The option `sampler.entropy_coef` is in units of the score."""
    student, judge = student_and_score(env, learner, score)
    return Curriculum(student, NCC(env, Random(env)), judge)
