"""Laws of environments for all registered families, and violations of each law that must fail."""

from dataclasses import dataclass

import jax
import pytest

from rlgen import registry, testing

ONE_LEVEL = ("minatar", "vault")
"""Families with a single level."""


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


@pytest.mark.parametrize("name", registry.names("envs"))
def test_environment(name):
    if package := registry.missing_extra(name):
        pytest.skip(f"without {package}")
    testing.check_env(tiny_env(name), one_level=name in ONE_LEVEL)


# They end episodes in different ways.
@pytest.mark.parametrize("question", ["memory", "time-limit"])
def test_probe(question):
    testing.check_env(testing.Probe(question), num_steps=6)


def test_an_unknown_probe_is_refused():
    with pytest.raises(ValueError, match="unknown question 'sense of life'; choose from constant"):
        testing.Probe("sense of life")


@dataclass(frozen=True)
class SameLevel(testing.Probe):
    def sample_level(self, key):
        return super().sample_level(jax.random.key(0))


@dataclass(frozen=True)
class CountedReward(testing.Probe):
    def step_env(self, key, state, action, params):
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        return obs, state, state.time, terminated, info


@dataclass(frozen=True)
class LargeObs(testing.Probe):
    def observe(self, key, state, action, params):
        return 2 * super().observe(key, state, action, params)


@dataclass(frozen=True)
class Endless(testing.Probe):
    def is_truncated(self, state, params):
        return state.time > params.max_steps_in_episode


@dataclass(frozen=True, eq=False)
class Unequal(testing.Probe):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


@dataclass(frozen=True)
class SameMutant(testing.Probe):
    def mutate_levels(self, key, levels, num_edits):
        return levels


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (SameLevel(), "8 keys gave the same level"),
        (CountedReward(), "the reward is"),
        (LargeObs(), "obs leaves its space"),
        (Endless("time-limit"), "an episode continued after the time limit"),
        (Unequal(), "two equal environments do not compare equal"),
        (SameMutant(), "four edits changed no level"),
    ],
)
def test_environment_laws_bite(env, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_env(env, num_steps=6)
