"""Recipe that moves to the mean target: a complete run in milliseconds."""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlgen import protocols
from rlgen.curriculum import Curriculum
from rlgen.types import Outcome, Spent

from .stubs import Untaught

PRESETS = {"fast": {"student.learner.rate": 0.1}, "strong": {"student.learner.rate": 0.2}}


class Agent(NamedTuple):
    place: Any  # [W]
    drift: Any  # [W, W]; extra work, so that a chunk takes measurable time
    num_updates: Any
    key: Any  # a typed key, which a state may contain


@dataclass(frozen=True)
class Learner(Untaught):
    """Learner that steps towards targets.

    Attributes:
        rate: Step size.
        num_updates: Length of the schedule in updates.
        bad_update: Update whose loss is NaN; -1 for none.
        bad_param: Update after which a parameter is infinite; -1 for none.
        width: Size of the state.
    """

    rate: float = 0.05
    num_updates: int = 0
    bad_update: int = -1
    bad_param: int = -1
    width: int = 4

    def spanning(self, num_updates):
        return replace(self, num_updates=num_updates)


@dataclass(frozen=True)
class Student(protocols.Student):
    env: Any
    learner: Learner = field(default_factory=Learner)
    num_steps: int = 4
    gives: frozenset[str] = frozenset()

    def init(self, key, num_slots):
        width = self.learner.width
        place = jax.random.uniform(key, (width,))
        return Agent(place, jnp.eye(width), jnp.int32(0), jax.random.fold_in(key, 1))

    def run(self, key, state, slots, fresh):
        own = self.learner
        key_noise, key_next = jax.random.split(jax.random.fold_in(state.key, key_bits(key)))
        gap = slots.level.mean() - state.place
        noise = 0.01 * jax.random.uniform(key_noise, gap.shape)
        drift = state.drift @ (jnp.eye(own.width) * 0.999)
        place = state.place + own.rate * gap + noise + 0.001 * drift.mean()
        update = state.num_updates
        loss = jnp.where(update == own.bad_update, jnp.nan, (gap**2).mean())
        place = jnp.where(update == own.bad_param, jnp.inf, place)
        trains = slots.weight.sum() > 0
        metrics = {
            "loss": jnp.where(trains, loss, jnp.nan),
            "episode_return": place.mean(),
            "episode_length": jnp.float32(1.0),
        }
        steps = jnp.float32(slots.weight.size * self.num_steps)
        spent = Spent(jnp.float32(trains), {"train": steps, "score": jnp.float32(0.0)})
        agent = Agent(place, drift, update + 1, key_next)
        return agent, Outcome(done=jnp.ones_like(fresh), spent=spent), metrics

    def policy(self, states):
        return self.learner, states

    def spanning(self, num_updates):
        return replace(self, learner=self.learner.spanning(num_updates))


@dataclass(frozen=True)
class Sampler(protocols.Sampler):
    env: Any
    weight: float = 1.0

    def init(self, key, memory):
        return jnp.zeros((0,))  # an array of size 0, which orbax rejects

    def example_level(self):
        return jnp.float32(0.0)

    def propose(self, keys, state, slots, free):
        keys = jax.random.split(keys.own, slots.buffer_index.size)
        level = jax.vmap(self.env.sample_level)(keys).reshape(slots.buffer_index.shape)
        return state, slots._replace(level=level, weight=jnp.full_like(slots.weight, self.weight))


@dataclass(frozen=True)
class Score(protocols.Score):
    def __call__(self, key, slots, outcome):
        return jnp.zeros(slots.buffer_index.shape), slots.score_state


def key_bits(key):
    return jax.random.key_data(key)[..., 0]


def build(env, learner="arm-learner", score=""):
    return Curriculum(Student(env), Sampler(env), Score(), num_slots=4)
