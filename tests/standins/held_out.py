"""Two states with suites of held-out levels, for meta-tests that take seconds."""

from dataclasses import dataclass
from functools import partial

import jax.numpy as jnp

from rlgen.levels import Suite, make_level_set
from tests.standins.two_states import Level, TwoStates

PAYOFFS = {
    "worth": ([0.2, 1.0], [1.0, 0.1], [0.5, 0.6]),
    "worthless": ([-1.0, -0.5], [-0.1, -0.2], [-1.0, -1.0]),
}


@dataclass(frozen=True)
class HeldOut(TwoStates, abstract=True):
    """Two states with a suite of three levels with positive rewards, and one with negative ones."""

    def suites(self):
        return {name: partial(self.make, name) for name in PAYOFFS}

    def make(self, name):
        payoff = jnp.array(PAYOFFS[name])
        levels = Level(payoff, jnp.full(len(payoff), self.max_steps))
        names = tuple(f"{name}-{i}" for i in range(len(payoff)))
        return Suite(f"{__name__}/{name}", self, make_level_set(self, levels, names))


def build(**fields):
    return HeldOut(**fields)
