"""The parts of a physical system, for generative models: places in its ranges."""

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
        env: names the parameters and their ranges, and makes levels of them.
    """

    env: ParameterFamily

    @property
    def parts(self) -> tuple[Part, ...]:
        """One vector, a number for each parameter in the order of the level's fields."""
        return (Numbers(NAME, len(self.env.ranges().names)),)

    def encode(self, level: PyTree) -> dict[str, Array]:
        """The places of one level's parameters; outside of 0 .. 1 where it is out of range.

        The place of a parameter whose range is a single number is 0.
        """
        ranges = self.env.ranges()
        values = jnp.stack([jnp.asarray(getattr(level, name)) for name in ranges.names])
        span = np.log(ranges.high / ranges.low)
        inverse = np.where(span > 0, 1.0 / np.where(span > 0, span, 1.0), 0.0)
        return {NAME: jnp.log(values / ranges.low) * inverse}

    def decode(self, values: dict[str, Array]) -> PyTree:
        """The level at some places, clipped into the ranges; its time limit is the family's."""
        low, high = self.env.ranges().low, self.env.ranges().high
        parameters = low * jnp.exp(values[NAME] * np.log(high / low))
        return self.env.make_level(jnp.clip(parameters, low, high))
