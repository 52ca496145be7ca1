"""Codec of physical systems for generative models, based on the ranges of the parameters.

The *place* of a parameter is its position in its logarithmic range: 0 at the low end and 1 at the
high end.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.codec import Numbers, Part
from rlgen.envs.classic_control.parameters import ParameterFamily
from rlgen.types import PyTree

NAME = "parameters"


@dataclass(frozen=True)
class PhysicsCodec:
    """Codec that represents a level by the place of each parameter, 0 .. 1 within its range.

    Attributes:
        env: Family that defines the parameters and their ranges, and builds the levels.
    """

    env: ParameterFamily

    @property
    def parts(self) -> tuple[Part, ...]:
        """One vector with a number per parameter, in the order of the level's fields."""
        return (Numbers(NAME, len(self.env.ranges().names)),)

    def encode(self, level: PyTree) -> dict[str, Array]:
        """Return the places of a level's parameters.

        A place is outside 0 .. 1 if the parameter is out of its range. If a range is a single
        number, the place is 0.
        """
        ranges = self.env.ranges()
        values = jnp.stack([jnp.asarray(getattr(level, name)) for name in ranges.names])
        span = np.log(ranges.high / ranges.low)
        # The inner `where` avoids a division by 0, which numpy would warn about.
        inverse = np.where(span > 0, 1.0 / np.where(span > 0, span, 1.0), 0.0)
        return {NAME: jnp.log(values / ranges.low) * inverse}

    def decode(self, values: dict[str, Array]) -> PyTree:
        """Build the level with parameters at the given places, clipped to the ranges.

        The time limit of the level is that of the family.
        """
        low, high = self.env.ranges().low, self.env.ranges().high
        parameters = low * jnp.exp(values[NAME] * np.log(high / low))
        return self.env.make_level(jnp.clip(parameters, low, high))
