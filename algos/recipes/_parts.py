"""What recipes of one on-policy student have in common."""

from rlgen import registry
from rlgen.protocols import LevelEnv, Score
from rlgen.students import OnPolicy


def student_and_score(env: LevelEnv, learner: str, score: str) -> tuple[OnPolicy, Score]:
    """A student and a score by name; the score is built to agree with the learner's discounting."""
    built = registry.load("learners", learner).build(env)
    return OnPolicy(env, built), registry.load("scores", score).build(env, built)
