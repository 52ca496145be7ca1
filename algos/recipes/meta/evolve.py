"""What recipes that evolve a rule have in common."""

from dataclasses import replace
from typing import Any

from rlgen import registry
from rlgen.algos.meta.evolution_strategy import MetaES
from rlgen.algos.samplers.lifetimes import Lifetimes
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv, RuleLearner


def curriculum_of(env: LevelEnv, learner: str, clock: bool) -> Curriculum:
    """Evolution of what a learner lives by, on random levels.

    Args:
        env: where the agents live.
        learner: by name; one that follows a rule.
        clock: whether the rule sees how much of a life is over.

    Raises:
        ValueError: a learner that follows no rule.
    """
    built: Any = registry.make("learners", learner, env)
    if not isinstance(built, RuleLearner):
        raise ValueError(
            f"the learner {learner!r} follows no learned rule, so there is none to evolve; use lpg "
            "or lpo"
        )
    built = replace(built, net=replace(built.net, clock=clock))  # pyright: ignore
    score = registry.make("scores", "none", env, built)
    student = MetaES(env, built)
    return Curriculum(student, Lifetimes(env, Random(env), common=True), score)
