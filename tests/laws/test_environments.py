"""Laws of environments for all registered families, and violations of each law that must fail."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import pytest
from gymnax.environments import spaces

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


@dataclass(frozen=True)
class EndsAtLimit(testing.Probe):
    """Terminates at the time limit of the level."""

    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        terminated |= state.time >= params.max_steps_in_episode
        return obs, state, reward, terminated, info


@dataclass(frozen=True)
class EndsAtOwnLimit(testing.Probe):
    """Terminates at the time limit, which is a field of the environment."""

    question: str = "time-limit"
    max_steps: int = 3

    def step_env(self, key, state, action, params):
        obs, state, reward, terminated, info = super().step_env(key, state, action, params)
        return obs, state, reward, terminated | (state.time >= self.max_steps), info


@dataclass(frozen=True)
class Continuous(testing.Probe):
    def action_space(self, params):
        return spaces.Box(-1.0, 1.0, (1,))


@dataclass(frozen=True)
class Limitless(testing.Probe):
    def sample_level(self, key):
        return super().sample_level(key).time_seen


@dataclass(frozen=True)
class TaskAsLongAsLimit(testing.Probe):
    """Always terminates in step 3, which is also the time limit."""

    num_steps: int = 3

    def sample_level(self, key):
        level = super().sample_level(key)
        limit = jnp.int32(self.num_steps)
        return replace(level, num_steps=limit, max_steps_in_episode=limit)


@dataclass(frozen=True)
class GoalByChance(testing.Probe, abstract=True):
    """Terminates in each step with probability 1/2; the time limit is 2."""

    question: str = "time-limit"

    def sample_level(self, key):
        return replace(super().sample_level(key), max_steps_in_episode=jnp.int32(2))

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = super().step_env(key, state, action, params)
        return obs, state, reward, action == 1, info


@dataclass(frozen=True)
class TimeLeft(GoalByChance):
    """Shows the remaining time."""

    def observe(self, key, state, action, params):
        left = 1 - state.time / params.max_steps_in_episode
        return super().observe(key, state, action, params) * left


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
        # With a limit that no random episode reaches, and with one that all episodes reach.
        (EndsAtLimit("time-limit"), "terminated=True in step 1 .*`max_steps_in_episode` of the"),
        (EndsAtLimit("memory"), "not if `max_steps_in_episode` of the level is higher"),
        (EndsAtOwnLimit(), "in step 3 of level 0, but not if `max_steps` of the environment"),
        (Continuous(), "action_space is a Box, but rlgen's agents need discrete actions"),
        (Limitless(), "a level has no field `max_steps_in_episode`"),
        (Unequal(), "two equal environments do not compare equal"),
        (SameMutant(), "four edits changed no level"),
    ],
)
def test_environment_laws_bite(env, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_env(env, num_steps=6)


def test_a_termination_at_the_time_limit_says_how_to_mend_it():
    with pytest.raises(AssertionError, match=r"Let `terminated` depend on the task only; .*`is_tr"):
        testing.check_env(EndsAtLimit("time-limit"), num_steps=6)


@pytest.mark.parametrize("env", [TaskAsLongAsLimit(), GoalByChance(), TimeLeft()])
def test_a_task_may_end_in_the_last_step(env):
    testing.check_env(env, num_steps=6)
