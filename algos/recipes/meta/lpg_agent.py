"""Trains one agent with a learned update rule, given by `--rule`, on random levels.

The agent is one policy for all levels of an environment. A meta-test of a run that learned a rule
(`rlgen eval RUN`) trains a separate agent on each level instead.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms".
"""

from rlgen import registry
from rlgen.algos.learners import lpg
from rlgen.algos.recipes.presets.meta_gradient import AGENT
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import OnPolicy

PRESETS = AGENT


def build(env: LevelEnv, learner: str = "lpg", score: str = "none") -> Curriculum:
    """Build training with 64 slots, each of which plays one level for 25 rollouts of 20 steps.

    Raises:
        ValueError: If the learner is not lpg.
    """
    if learner != "lpg":
        raise ValueError(
            f"the recipe lpg-agent requires the learner lpg, got {learner!r}; for another learner "
            "on random levels use the recipe dr"
        )
    built = lpg.build(env)
    judge = registry.make("scores", score, env, built)
    student = OnPolicy(env, built, num_steps=20, updates_per_level=25)
    return Curriculum(student, Random(env), judge, num_slots=64)
