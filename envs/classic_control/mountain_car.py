"""Mountain car: swing up to the flag on a hill that can be too steep for the motor.

Every step has reward -1, and the episode ends when the car reaches the flag. The dynamics are
exactly those of gymnax. If the motor is strong and gravity is weak, the car can drive straight up.
Some levels are therefore far easier than gymnax's system, in which random actions rarely reach the
flag.

Source: Moore, 1990, "Efficient Memory-based Learning for Robot Control". Differs from gymnax in
that force and gravity are parameters of the level.
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
"""Parameter values of gymnax."""


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One car and its hill, in gymnax's units: time is counted in steps, and there is no mass."""

    force: Float[Array, "*batch"]  # change of velocity per step by the motor
    gravity: Float[Array, "*batch"]  # change of velocity per step where the hill is steepest
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class MountainCar(PhysicsFamily):
    """Family of mountain cars; a field `(low, high)` is the training range of a parameter.

    At the start of an episode the car is at rest, and its position is uniform in -0.6 .. -0.4.
    """

    force: tuple[float, float] = (0.0009, 0.003)  # velocity change per step by the motor
    gravity: tuple[float, float] = (0.001, 0.003)  # velocity change per step on the steepest slope
    max_steps: int = 200  # time limit of generated levels, in env steps

    family = "mountain-car"
    system = _gymnax.MountainCar
    level_type = Level
    nominal = NOMINAL
    typical = (1.0, 0.07)
    picture = staticmethod(render.mountain_car)

    @property
    def num_actions(self) -> int:
        """Three: accelerate backwards, coast, accelerate forwards."""
        return 3

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Position and velocity."""
        usual = _gymnax.EnvParams()
        low: Any = np.array([usual.min_position, -usual.max_speed], np.float32)
        high: Any = np.array([usual.max_position, usual.max_speed], np.float32)
        return spaces.Box(low, high, (2,), jnp.float32)

    def sample_simple_level(self, key: Key) -> Level:
        """Sample near the easiest level, which has the strongest motor and the weakest gravity.

        In gymnax's own system random actions rarely reach the flag, so levels are not sampled near
        that system. In the sampled levels, one episode in six with random actions reaches the flag.
        """
        easiest = np.array([self.force[1], self.gravity[0]], np.float32)
        return self.make_level(parameters.sample_near(key, self.ranges(), easiest))

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """True if the flag was reached."""
        return terminated

    @property
    def lowest_return(self) -> float:
        """Return of an episode that never reaches the flag."""
        return -float(self.max_steps)

    def system_params(self, level: Level) -> _gymnax.EnvParams:
        """Convert a level to gymnax's params."""
        fields: dict[str, Any] = {
            "force": level.force,
            "gravity": level.gravity,
            "max_steps_in_episode": level.max_steps_in_episode,
        }
        return _gymnax.EnvParams(**fields)


def build(**fields) -> MountainCar:
    """Build the environment with the given fields."""
    return MountainCar(**fields)


def tiny() -> MountainCar:
    """Return an instance with a short time limit, for the tests in `tests/laws`."""
    return MountainCar(max_steps=20)
