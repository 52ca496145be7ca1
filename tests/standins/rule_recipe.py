"""Recipe that meta-learns a tiny update rule on new levels."""

from rlgen.algos.learners.lpg import build_agent
from rlgen.algos.meta.meta_gradient import MetaGradient
from rlgen.algos.rules.networks import Rule
from rlgen.algos.samplers.lifetimes import build as build_lifetimes
from rlgen.algos.scores.none import NoScore
from rlgen.curriculum import Curriculum


def build(env, learner="", score=""):
    rule = Rule(hidden_size=4, num_predictions=3, embedding_size=2)
    agent = build_agent(env, num_predictions=0)
    student = MetaGradient(env, agent, rule, num_inner_updates=1, rollout_steps=4, num_workers=3)
    return Curriculum(student, build_lifetimes(env), NoScore(), num_slots=2)
