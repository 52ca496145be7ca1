"""Family whose levels are numbers, for tests of level management without play."""

from dataclasses import dataclass

import jax

from tests.standins.stubs import Unplayed


@dataclass(frozen=True)
class Numbers(Unplayed, abstract=True):
    """Family of `num_kinds` levels, the multiples of `step` from 0 on; an edit adds `child`."""

    num_kinds: int = 1_000_000
    step: int = 1
    child: int = 1_000_000

    def sample_level(self, key):
        """Sample a level uniformly."""
        return {"number": self.step * jax.random.randint(key, (), 0, self.num_kinds)}

    def mutate_levels(self, key, levels, num_edits):
        """Add `child` per edit, so that a level shows how often it was edited."""
        return {"number": levels["number"] + num_edits * self.child}
