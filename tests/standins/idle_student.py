"""A student that plays nothing, for tests of curricula that look only at the levels."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.protocols import Score
from rlgen.returns import episodes
from rlgen.testing import random_rollout
from rlgen.types import LifetimeResults, Outcome
from tests.standins.stubs import Unrun


@dataclass(frozen=True)
class Idle(Unrun):
    """Student with an invented outcome; each slot keeps its levels for `tenancy` updates."""

    env: Any
    levels_per_slot: int = 1
    tenancy: int = 1

    gives = frozenset({"rollout", "lifetimes", "episodes"})

    def init(self, key, num_slots):
        return jnp.int32(0)

    def run(self, key, state, slots, fresh):
        num_slots = slots.weight.size
        played = random_rollout(0, 24, num_slots, self.levels_per_slot)
        stats = episodes(played, self.levels_per_slot, played.terminated)
        rollout = jax.tree.map(lambda x: jnp.stack([x, x]), played)
        # Slots end their tenancies in turn.
        done = (jnp.arange(num_slots) + state + 1) % self.tenancy == 0
        value = jnp.zeros(num_slots)
        lifetimes = LifetimeResults(value, value, jnp.ones(num_slots, bool))
        return state + 1, Outcome(done, rollout, lifetimes, stats), {}


@dataclass(frozen=True)
class AnyScore(Score):
    """Uniformly random positive score."""

    def __call__(self, key, slots, outcome):
        shape = slots.buffer_index.shape
        return jax.random.uniform(key, shape, minval=0.1), slots.score_state
