"""Laws of samplers and scores, for all registered ones, and violations that must fail."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import pytest

from rlgen import registry, testing
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.protocols import Sampler, Score
from rlgen.types import REPLAY
from tests.laws.lawful import EASY


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


@pytest.mark.parametrize("env", ["maze", pytest.param("cart-pole", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("name", registry.names("samplers"))
def test_sampler(name, env):
    testing.check_sampler(registry.load("samplers", name).tiny(tiny_env(env)))


@pytest.mark.parametrize("name", registry.names("scores"))
def test_score(name):
    testing.check_score(registry.load("scores", name).tiny(tiny_env()))


@dataclass(frozen=True)
class Breaker(Sampler):
    """Sampler of random levels that breaks one law."""

    breach: str

    def init(self, key, memory):
        return jnp.int32(0)

    def example_level(self):
        return Random(EASY).example_level()

    def propose(self, keys, state, slots, free):
        everywhere = free | (self.breach == "busy")
        _, new = Random(EASY).propose(keys, (), slots, everywhere)
        if self.breach == "unseen":
            new = new._replace(
                buffer_index=jnp.zeros_like(new.buffer_index), origin=new.origin * 0 + REPLAY
            )
        return state + (0.5 if self.breach == "dtype" else 1), new


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("busy", "propose changed a busy slot"),
        ("unseen", "whose level was never observed"),
        ("dtype", "Breaker's state and slots"),
    ],
)
def test_sampler_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_sampler(Breaker(breach))


@dataclass(frozen=True)
class Wrong(Score):
    """Score that breaks one law."""

    breach: str

    def __call__(self, key, slots, outcome):
        rollout: Any = outcome.rollout
        if self.breach == "bonus":
            rollout = rollout._replace(reward=rollout.reward + rollout.bonus)
        score, memory = L1ValueLoss()(key, slots, outcome._replace(rollout=rollout))
        if self.breach == "order":
            score = score.at[0].add(1.0)
        return score, memory


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [("bonus", "a bonus changed a score"), ("order", "scores depend on the order of the slots")],
)
def test_score_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_score(Wrong(breach))
