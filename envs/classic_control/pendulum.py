"""Pendulum: swing a rod up, with too little torque to lift it at once, and keep it there.

A step costs `angle² + 0.1 speed² + 0.001 torque²`, with the angle from upright; nothing but the
time limit ends an episode. Dynamics are gymnax's, step for step.

Source: the pendulum of OpenAI Gym, as in gymnax. Differs in giving mass, length, gravity and the
largest torque as data, and in a grid of torques for a continuous one.
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
"""gymnax's own values."""


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One rod and its motor."""

    gravity: Float[Array, "*batch"]  # m/s²
    mass: Float[Array, "*batch"]  # kg
    length: Float[Array, "*batch"]  # m
    max_torque: Float[Array, "*batch"]  # of the motor, N m
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class Pendulum(PhysicsFamily):
    """Rods; each field `(low, high)` is the range of a parameter in training levels.

    Episodes start at any angle, with a speed in -1 .. 1.
    """

    gravity: tuple[float, float] = (8.0, 12.5)  # m/s²
    mass: tuple[float, float] = (0.7, 1.4)  # kg
    length: tuple[float, float] = (0.7, 1.4)  # m
    max_torque: tuple[float, float] = (1.5, 3.0)  # of the motor, N m
    num_torques: int = 5  # actions: a grid from the largest torque one way to that the other way
    success_reward: float = -2.5  # a level is solved by a mean reward a step of at least this
    max_steps: int = 200  # time limit of the levels made here

    family = "pendulum"
    system = _gymnax.Pendulum
    level_type = Level
    nominal = NOMINAL
    typical = (1.0, 1.0, 8.0)
    picture = staticmethod(render.pendulum)

    def __post_init__(self):
        """Refuse ranges that are none, impossible time limits and too few torques."""
        super().__post_init__()
        if self.num_torques < 2:
            raise ValueError(
                f"Pendulum: num_torques={self.num_torques} must be at least 2, one to either side"
            )

    @property
    def num_actions(self) -> int:
        """The torques, from the lowest to the highest."""
        return self.num_torques

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Cosine and sine of the angle (counterclockwise, from upright), and its speed."""
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
        """The mean reward of a step is at least `success_reward`.

        By default that takes a quick swing up and a rod that stays there: one that hangs still gets
        -9.9. The length of episodes is taken to be `max_steps`.
        """
        return episode_return >= self.success_reward * self.max_steps

    @property
    def lowest_return(self) -> float:
        """Hanging at full speed and full torque throughout."""
        speed, torque = _gymnax.EnvParams().max_speed, self.max_torque[1]
        return -self.max_steps * (math.pi**2 + 0.1 * speed**2 + 0.001 * torque**2)

    def system_params(self, level: Level) -> _gymnax.EnvParams:
        """Gymnax's params of a level."""
        fields: dict[str, Any] = {
            "max_torque": level.max_torque,
            "g": level.gravity,
            "m": level.mass,
            "l": level.length,
            "max_steps_in_episode": level.max_steps_in_episode,
        }
        return _gymnax.EnvParams(**fields)


def build(**fields) -> Pendulum:
    """The environment with the given fields."""
    return Pendulum(**fields)


def tiny() -> Pendulum:
    """With a short time limit, for tests of laws."""
    return Pendulum(max_steps=20)
