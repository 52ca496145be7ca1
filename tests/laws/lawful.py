"""A learner and an environment that satisfy all laws; the learner can break one on request."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlgen import testing
from rlgen.protocols import Learner

EASY = testing.Probe("constant")


class TableState(NamedTuple):
    params: dict
    num_updates: jax.Array


@dataclass(frozen=True)
class Mean(Learner):
    """Learner of the mean reward that satisfies all laws, except the one named by `breach`."""

    breach: str = ""
    rate: float = 0.5

    def init(self, key):
        return TableState({"mean": jnp.float32(0), "other": jnp.float32(0)}, jnp.int32(0))

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, 2)
        return (), action, jnp.full(first.shape, -0.7), self.value(state, carry, obs, first)

    def value(self, state, carry, obs, first):
        return jnp.full(first.shape, state.params["mean"])

    def update(self, key, state, rollout, weight):
        weight = weight + (self.breach == "leaks")
        mean = (rollout.reward * weight[None]).sum() / weight.sum() - state.params["mean"]
        rate = 0.5 if self.breach == "fixed" else self.rate
        mean = state.params["mean"] + rate * mean
        other = mean * (self.breach != "still")
        params = {"mean": mean, "other": other}
        return TableState(params, state.num_updates + 1), {"mean": mean}
