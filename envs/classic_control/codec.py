"""Codec of physical systems for generative models: places of parameters in their ranges."""

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
    """Levels of one family as the places, 0 .. 1, of their parameters in logarithmic ranges.

    Attributes:
        env: Family that defines the parameters and their ranges, and builds the levels.
    """

    env: ParameterFamily

    @property
    def parts(self) -> tuple[Part, ...]:
        """One vector with a number per parameter, in the order of the level's fields."""
        return (Numbers(NAME, len(self.env.ranges().names)),)

    def encode(self, level: PyTree) -> dict[str, Array]:
        """Return the places of a level's parameters; outside 0 .. 1 if a value is out of range.

        The place of a parameter whose range is a single number is 0.
        """
        ranges = self.env.ranges()
        values = jnp.stack([jnp.asarray(getattr(level, name)) for name in ranges.names])
        span = np.log(ranges.high / ranges.low)
        # The inner `where` avoids a division by 0, which numpy would warn about.
        inverse = np.where(span > 0, 1.0 / np.where(span > 0, span, 1.0), 0.0)
        return {NAME: jnp.log(values / ranges.low) * inverse}

    def decode(self, values: dict[str, Array]) -> PyTree:
        """Return the level at given places, clipped to the ranges, with the family's time limit."""
        low, high = self.env.ranges().low, self.env.ranges().high
        parameters = low * jnp.exp(values[NAME] * np.log(high / low))
        return self.env.make_level(jnp.clip(parameters, low, high))
