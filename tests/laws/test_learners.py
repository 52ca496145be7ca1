"""Laws of learners for all registered learners, and violations of each law that must fail."""

import pytest

from rlgen import registry, testing
from tests.laws.lawful import EASY, Mean


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


@pytest.mark.parametrize("name", registry.names("learners"))
def test_learner(name):
    env = tiny_env()
    testing.check_learner(env, registry.load("learners", name).tiny(env), num_steps=32)


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("leaks", "the data of a slot of weight 0 affected the update"),
        ("still", "an update left .*other.* unchanged"),
    ],
)
def test_learner_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_learner(EASY, Mean(breach))


def test_a_learner_that_obeys_passes():
    testing.check_learner(EASY, Mean())
