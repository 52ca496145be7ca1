"""What recipes that learn an update rule have in common."""

from rlgen import registry
from rlgen.algos.learners import lpg
from rlgen.algos.meta._agent import build_agent
from rlgen.algos.meta.meta_gradient import MetaGradient
from rlgen.protocols import LevelEnv, Score
from rlgen.tasks import TaskEnv


def rule_student_and_score(env: LevelEnv, learner: str, score: str) -> tuple[MetaGradient, Score]:
    """Who learns a rule, and what judges its tasks, by name.

    Args:
        env: where the agents live.
        learner: the antagonist, trained by hand beside the agents; "" for none.
        score: built to agree with the agents' discounting.
    """
    agent = build_agent(env)
    antagonist = registry.load("learners", learner).build(env) if learner else ()
    judge = registry.load("scores", score).build(TaskEnv(env), lpg.build(env, agent=agent))
    return MetaGradient(env, agent, antagonist=antagonist), judge
