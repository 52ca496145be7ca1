"""An environment of one number, for tests of runs that need no play."""

from dataclasses import dataclass

import jax

from .stubs import Unplayed


@dataclass(frozen=True)
class Arm(Unplayed):
    """A level is the place of a target.

    Attributes:
        spread: targets lie in 0 .. spread.
    """

    spread: float = 1.0

    def sample_level(self, key):
        return jax.random.uniform(key, maxval=self.spread)

    def presets(self):
        return {"fast": {"spread": 2.0}, "strong": {"spread": 3.0}}


def build(**fields):
    return Arm(**fields)
