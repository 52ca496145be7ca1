"""Recipe of an on-policy student that does nothing and learns nothing, to play episodes quickly."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from rlgen import protocols
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.students import OnPolicy

from .stubs import Untaught


@dataclass(frozen=True)
class Idle(Untaught):
    """Learner whose action is always 0."""

    def init(self, key):
        return jnp.zeros(())

    def initial_carry(self, num_slots):
        return jnp.zeros((num_slots, 0))

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, zero.astype(jnp.int32), zero, zero


@dataclass(frozen=True)
class Unscored(protocols.Score):
    """Score that is 0 for every level."""

    def __call__(self, key, slots, outcome):
        return jnp.zeros(slots.buffer_index.shape), slots.score_state


def build(env: Any, learner: str = "idle", score: str = ""):
    del learner, score
    return Curriculum(OnPolicy(env, Idle(), num_steps=6), Random(env), Unscored(), num_slots=2)
