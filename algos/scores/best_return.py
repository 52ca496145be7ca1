"""Common base of scores that store the highest return so far on a level."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import Score


class BestReturnScore(Score, abstract=True):
    """Base of scores whose memory of a level is R_max, a scalar.

    R_max is the highest undiscounted extrinsic return of a completed episode on the level so far,
    including the rollout that is scored; see `rlgen.returns.best_return`.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"rollout"})

    # With a floor of 0, a negative return would never become R_max.
    floor: float
    """R_max of a level on which no episode was completed."""

    def initial_state(self) -> Float[Array, ""]:
        """Return R_max of an unseen level, which is the field `floor`."""
        return jnp.float32(self.floor)
