"""Mountain car: reach the flag on a hill that is too steep for the motor, by swinging.

Every step costs 1 until the flag is reached, which ends the episode. Dynamics are gymnax's, step
for step. Where the motor is strong and gravity weak the car drives straight up, so that some levels
are far easier than gymnax's, where random actions hardly ever reach the flag.

Source: Moore, 1990, "Efficient Memory-based Learning for Robot Control". Differs from gymnax in
giving force and gravity as data.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import mountain_car as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import parameters, render
from rlgen.envs.classic_control.base import PhysicsFamily
from rlgen.types import Key

__all__ = ["Level", "MountainCar", "build", "tiny"]

NOMINAL = {"force": 0.001, "gravity": 0.0025}
"""gymnax's own values."""


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One car and its hill; the units are those of gymnax, a step of time and no mass."""

    force: Float[Array, "*batch"]  # of the motor: speed gained in a step
    gravity: Float[Array, "*batch"]  # speed gained in a step where the hill is steepest
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class MountainCar(PhysicsFamily):
    """Cars on hills; each field `(low, high)` is the range of a parameter in training levels.

    Episodes start at rest, anywhere in -0.6 .. -0.4.
    """

    force: tuple[float, float] = (0.0009, 0.003)  # of the motor: speed gained in a step
    gravity: tuple[float, float] = (0.001, 0.003)  # the same of gravity, at the steepest place
    max_steps: int = 200  # time limit of the levels made here

    family = "mountain-car"
    system = _gymnax.MountainCar
    level_type = Level
    nominal = NOMINAL
    typical = (1.0, 0.07)
    picture = staticmethod(render.mountain_car)

    @property
    def num_actions(self) -> int:
        """Back, nothing, forward."""
        return 3

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Position and speed."""
        usual = _gymnax.EnvParams()
        low: Any = np.array([usual.min_position, -usual.max_speed], np.float32)
        high: Any = np.array([usual.max_position, usual.max_speed], np.float32)
        return spaces.Box(low, high, (2,), jnp.float32)

    def sample_simple_level(self, key: Key) -> Level:
        """About the easiest level of the ranges: the strongest motor in the weakest gravity.

        Not gymnax's own system, on which random episodes hardly ever reach the flag; one in six
        does here.
        """
        easiest = np.array([self.force[1], self.gravity[0]], np.float32)
        return self.make_level(parameters.sample_near(key, self.ranges(), easiest))

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """The flag was reached."""
        return terminated

    @property
    def lowest_return(self) -> float:
        """The flag is never reached."""
        return -float(self.max_steps)

    def system_params(self, level: Level) -> _gymnax.EnvParams:
        """Gymnax's params of a level."""
        fields: dict[str, Any] = {
            "force": level.force,
            "gravity": level.gravity,
            "max_steps_in_episode": level.max_steps_in_episode,
        }
        return _gymnax.EnvParams(**fields)


def build(**fields) -> MountainCar:
    """The environment with the given fields."""
    return MountainCar(**fields)


def tiny() -> MountainCar:
    """With a short time limit, for tests of laws."""
    return MountainCar(max_steps=20)
