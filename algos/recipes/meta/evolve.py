"""Common part of the recipes that meta-learn a rule by evolution."""

from dataclasses import replace
from typing import Any

from rlgen import registry
from rlgen.algos.meta.evolution_strategy import MetaES
from rlgen.algos.samplers.lifetimes import Lifetimes
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv, RuleLearner


def curriculum_of(env: LevelEnv, learner: str, clock: bool) -> Curriculum:
    """Build a curriculum that evolves the rule of a learner on random levels.

    Args:
        env: Environment of the agents.
        learner: Name of a learner with a learned rule.
        clock: Whether the rule receives the elapsed fraction of the agent's lifetime as input.

    Raises:
        ValueError: If the learner has no learned rule.
    """
    built: Any = registry.make("learners", learner, env)
    if not isinstance(built, RuleLearner):
        raise ValueError(
            f"the learner {learner!r} has no learned rule that could be evolved; use lpg or lpo"
        )
    built = replace(built, net=replace(built.net, clock=clock))  # pyright: ignore
    score = registry.make("scores", "none", env, built)
    student = MetaES(env, built)
    # An update trains agents for their whole lifetime. With `common`, all seeds have the same
    # lifetimes, so that their training loops have the same length.
    return Curriculum(student, Lifetimes(env, Random(env), common=True), score)
