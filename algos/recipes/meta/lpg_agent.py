"""Train one agent by a learned update rule, on random levels; `--rule` says by which.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms". Unlike in a meta-test
(`rlgen eval RUN`, an agent a level), the agent is a policy for all levels of an environment.
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
    """64 workers, each on a level of its own for 25 short rollouts.

    Raises:
        ValueError: another learner.
    """
    if learner != "lpg":
        raise ValueError(
            f"the recipe lpg-agent has the learner lpg, not {learner!r}; for another learner on "
            "random levels use the recipe dr"
        )
    built = lpg.build(env)
    judge = registry.make("scores", score, env, built)
    student = OnPolicy(env, built, num_steps=20, updates_per_level=25)
    return Curriculum(student, Random(env), judge, num_slots=64)
