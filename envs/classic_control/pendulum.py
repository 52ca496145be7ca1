"""Pendulum: swing up a rod whose motor is too weak to lift it directly, and keep it upright.

The reward of a step is `-(angle² + 0.1 speed² + 0.001 torque²)`, with the angle measured from
upright. Only the time limit ends an episode. The dynamics are exactly those of gymnax.

Source: the pendulum of OpenAI Gym, as in gymnax. Differs from the pendulum of Gym in two points.
Mass, length, gravity and largest torque are parameters of the level. An action selects one torque
of a grid, whereas actions in Gym are continuous torques.
"""

import math
from dataclasses import dataclass
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import pendulum as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import render
from rlgen.envs.classic_control.base import PhysicsFamily
from rlgen.types import Key, PyTree

__all__ = ["Level", "Pendulum", "build", "tiny"]

NOMINAL = {"gravity": 10.0, "mass": 1.0, "length": 1.0, "max_torque": 2.0}
"""Parameter values of gymnax."""


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One rod with its motor."""

    gravity: Float[Array, "*batch"]  # m/s²
    mass: Float[Array, "*batch"]  # kg
    length: Float[Array, "*batch"]  # m
    max_torque: Float[Array, "*batch"]  # largest torque of the motor, N m
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class Pendulum(PhysicsFamily):
    """Family of pendulums; a field `(low, high)` is the training range of a parameter.

    Episodes start at a random angle. The angle is uniform over the circle, and the angular velocity
    is uniform in -1 .. 1.
    """

    gravity: tuple[float, float] = (8.0, 12.5)  # range of gravity, m/s²
    mass: tuple[float, float] = (0.7, 1.4)  # range of the rod's mass, kg
    length: tuple[float, float] = (0.7, 1.4)  # range of the rod's length, m
    max_torque: tuple[float, float] = (1.5, 3.0)  # range of the motor's largest torque, N m
    num_torques: int = 5  # number of actions: evenly spaced torques from -max_torque to max_torque
    success_reward: float = -2.5  # smallest mean reward per step with which a level is solved
    max_steps: int = 200  # time limit of generated levels, in env steps

    family = "pendulum"
    system = _gymnax.Pendulum
    level_type = Level
    nominal = NOMINAL
    typical = (1.0, 1.0, 8.0)
    picture = staticmethod(render.pendulum)

    def __post_init__(self):
        """Reject invalid ranges, time limits and numbers of torques."""
        super().__post_init__()
        if self.num_torques < 2:
            raise ValueError(
                f"Pendulum: num_torques={self.num_torques} must be at least 2, one per direction"
            )

    @property
    def num_actions(self) -> int:
        """One action per torque, in ascending order."""
        return self.num_torques

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Cosine and sine of the angle (counterclockwise from upright), and angular velocity."""
        high: Any = np.array([1.0, 1.0, _gymnax.EnvParams().max_speed], np.float32)
        return spaces.Box(-high, high, (3,), jnp.float32)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, "3"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        grid = jnp.linspace(-1.0, 1.0, self.num_torques, dtype=jnp.float32)
        torque = params.max_torque * grid[jnp.asarray(action, jnp.int32)]
        return self.step_system(key, state, torque, params)

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """True if the mean reward per step is at least `success_reward`.

        With the default value, a level is solved only if the rod swings up quickly and stays
        upright. A rod that hangs motionless has mean reward -9.9. Episodes are assumed to have
        `max_steps` steps.
        """
        return episode_return >= self.success_reward * self.max_steps

    @property
    def lowest_return(self) -> float:
        """Lower bound on returns.

        It is the return of an episode in which the rod hangs down in every step, at full speed and
        with full torque.
        """
        speed, torque = _gymnax.EnvParams().max_speed, self.max_torque[1]
        return -self.max_steps * (math.pi**2 + 0.1 * speed**2 + 0.001 * torque**2)

    def system_params(self, level: Level) -> _gymnax.EnvParams:
        """Convert a level to gymnax's params."""
        fields: dict[str, Any] = {
            "max_torque": level.max_torque,
            "g": level.gravity,
            "m": level.mass,
            "l": level.length,
            "max_steps_in_episode": level.max_steps_in_episode,
        }
        return _gymnax.EnvParams(**fields)


def build(**fields) -> Pendulum:
    """Build the environment with the given fields."""
    return Pendulum(**fields)


def tiny() -> Pendulum:
    """Return an instance with a short time limit, for the tests in `tests/laws`."""
    return Pendulum(max_steps=20)
