"""Two states and two actions: the smallest environment on which a rule can be meta-learned.

Action 1 switches between states 0 and 1 with reward 0. Action 0 stays, with the reward that the
level assigns to the state. An episode terminates with a fixed probability after every step.
"""

from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from rlgen.protocols import LevelEnv


@no_type_check
@struct.dataclass
class Level:
    """Level with one reward per state."""

    payoff: jax.Array  # [2], reward of action 0 in each state
    max_steps_in_episode: jax.Array


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    place: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class TwoStates(LevelEnv, abstract=True):
    """Family whose levels differ in the rewards of the two states."""

    end_prob: float = 0.2
    max_steps: int = 8

    @property
    def num_actions(self):
        return 2

    @property
    def default_params(self):
        return Level(jnp.array([0.0, 1.0]), jnp.int32(self.max_steps))

    def num_states(self):
        return 2

    def lifetime(self):
        return 10

    def sample_level(self, key):
        return Level(jax.random.uniform(key, (2,), minval=-1.0), jnp.int32(self.max_steps))

    def reset_env(self, key, params):
        return jnp.int32(0), State(jnp.int32(0), jnp.int32(0))

    def step_env(self, key, state, action, params):
        place = jnp.where(action == 1, 1 - state.place, state.place)
        reward = jnp.where(action == 0, params.payoff[state.place], 0.0)
        terminated = jax.random.bernoulli(key, self.end_prob)
        return place, State(place, state.time + 1), reward, terminated, {}

    def is_truncated(self, state, params):
        return state.time >= params.max_steps_in_episode

    def expected_return(self, level, log_policy):
        policy = jnp.exp(log_policy)

        def step(value, _):
            after = (1 - self.end_prob) * value
            stay = level.payoff + after
            return policy[:, 0] * stay + policy[:, 1] * after[::-1], None

        return jax.lax.scan(step, jnp.zeros(2), length=self.max_steps)[0][0]

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params=None):
        return spaces.Discrete(2)
