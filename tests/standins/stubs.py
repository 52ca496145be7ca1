"""Base classes of stand-ins, one for each kind of component that a test needs but does not run."""

import jax.numpy as jnp

from rlgen.protocols import Learner, LevelEnv, Sampler, Student


class Unplayed(LevelEnv, abstract=True):
    """Environment with two actions; subclasses add the methods that a test needs."""

    @property
    def num_actions(self):
        return 2

    def sample_level(self, key):
        raise NotImplementedError

    def reset_env(self, key, params):
        raise NotImplementedError

    def step_env(self, key, state, action, params):
        raise NotImplementedError

    def is_truncated(self, state, params):
        raise NotImplementedError

    def observation_space(self, params=None):
        raise NotImplementedError


class Untaught(Learner, abstract=True):
    """Learner without parameters whose value is 0; subclasses define `act`."""

    def init(self, key):
        return ()

    def act(self, key, state, carry, obs, first):
        raise NotImplementedError

    def value(self, state, carry, obs, first):
        return jnp.zeros(first.shape)

    def update(self, key, state, rollout, weight):
        return state, {}


class Unasked(Sampler, abstract=True):
    """Sampler that is never asked for levels."""

    def init(self, key, memory):
        raise NotImplementedError

    def example_level(self):
        raise NotImplementedError

    def propose(self, keys, state, slots, free):
        raise NotImplementedError


class Unrun(Student, abstract=True):
    """Student that is never run."""

    def init(self, key, num_slots):
        raise NotImplementedError

    def run(self, key, state, slots, fresh):
        raise NotImplementedError

    def policy(self, states):
        raise NotImplementedError
