"""What scores have in common that remember the best return that was ever seen on a level."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Score


class BestReturnScore(Score, abstract=True):
    """Base of scores whose memory of a level is R_max, a number.

    That is the highest undiscounted extrinsic return of a completed episode on the level so far,
    the rollout that is scored included; see `rlgen.returns.best_return`.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    floor: float
    """R_max of a level on which no episode was completed."""

    def initial_state(self) -> Float[Array, ""]:
        """R_max of an unseen level."""
        return jnp.float32(self.floor)
