"""Environment whose episodes have a known length and a known reward per step."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import spaces

from rlgen.protocols import LevelEnv

REWARD = 0.5


@struct.dataclass
class Level:
    length: jax.Array  # steps after which an episode terminates
    max_steps_in_episode: jax.Array


@struct.dataclass
class State:
    time: jax.Array


@dataclass(frozen=True)
class Ticking(LevelEnv):
    """Environment that pays `REWARD` at every step; an episode terminates after `length` steps.

    Attributes:
        length: Steps until an episode terminates.
        limit: Time limit of the levels.
    """

    length: int = 10
    limit: int = 10

    @property
    def num_actions(self):
        return 2

    def make_level(self, length):
        return Level(jnp.int32(length), jnp.int32(self.limit))

    def sample_level(self, key):
        return self.make_level(self.length)

    def reset_env(self, key, params):
        return jnp.zeros(1), State(jnp.int32(0))

    def step_env(self, key, state, action, params):
        state = State(state.time + 1)
        return jnp.zeros(1), state, jnp.float32(REWARD), state.time >= params.length, {}

    def observation_space(self, params=None):
        return spaces.Box(0.0, 1.0, (1,), jnp.float32)


def build(**fields):
    return Ticking(**fields)
