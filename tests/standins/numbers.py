"""A family of levels that are numbers, for tests of what happens to levels: nobody plays them."""

from dataclasses import dataclass

import jax

from tests.standins.stubs import Unplayed


@dataclass(frozen=True)
class Numbers(Unplayed, abstract=True):
    """`num_kinds` levels: the multiples of `step` from 0 on; an edit adds `child` to one."""

    num_kinds: int = 1_000_000
    step: int = 1
    child: int = 1_000_000

    def sample_level(self, key):
        """Any of them."""
        return {"number": self.step * jax.random.randint(key, (), 0, self.num_kinds)}

    def mutate_levels(self, key, levels, num_edits):
        """Says how often a level was edited."""
        return {"number": levels["number"] + num_edits * self.child}
