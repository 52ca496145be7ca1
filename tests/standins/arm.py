"""Environment whose levels are one number, for tests of runs that play no episodes."""

from dataclasses import dataclass

import jax

from .stubs import Unplayed


@dataclass(frozen=True)
class Arm(Unplayed):
    """Environment in which a level is the position of a target.

    Attributes:
        spread: Upper end of the range of targets, which starts at 0.
    """

    spread: float = 1.0

    def sample_level(self, key):
        return jax.random.uniform(key, maxval=self.spread)

    def presets(self):
        return {"fast": {"spread": 2.0}, "strong": {"spread": 3.0}}


def build(**fields):
    return Arm(**fields)
