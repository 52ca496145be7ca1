"""Pendulum: swing a rod up, with too little torque to lift it at once, and keep it there.

A step costs `angle² + 0.1 speed² + 0.001 torque²`, with the angle from upright; nothing but the
time limit ends an episode. Dynamics are gymnax's, step for step.

Source: the pendulum of OpenAI Gym, as in gymnax. Differs in giving mass, length, gravity and the
largest torque as data, and in a grid of torques for a continuous one.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import pendulum as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import gymnax_dynamics, parameters, render, suites
from rlgen.envs.classic_control.codec import PhysicsCodec
from rlgen.envs.classic_control.editor import PhysicsEditor
from rlgen.envs.classic_control.parameters import Ranges
from rlgen.levels import DistributionShift, LevelSet
from rlgen.protocols import LevelEnv
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
class Pendulum(LevelEnv):
    """Rods; each field `(low, high)` is the range of a parameter in training levels."""

    gravity: tuple[float, float] = (8.0, 12.5)  # m/s²
    mass: tuple[float, float] = (0.7, 1.4)  # kg
    length: tuple[float, float] = (0.7, 1.4)  # m
    max_torque: tuple[float, float] = (1.5, 3.0)  # of the motor, N m
    num_torques: int = 5  # actions: a grid from the largest torque one way to that the other way
    success_reward: float = -2.5  # a level is solved by a mean reward a step of at least this
    max_steps: int = 200  # time limit of the levels made here

    def __post_init__(self):
        """Refuse ranges that are none and impossible time limits."""
        parameters.check_fields(self, NOMINAL)
        if self.num_torques < 2:
            raise ValueError(
                f"Pendulum: num_torques={self.num_torques} must be at least 2, one to either side"
            )

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """The torques, from the lowest to the highest."""
        return self.num_torques

    @property
    def default_params(self) -> Level:
        """Gymnax's own system, whatever the ranges."""
        return self.make_level(np.array(list(NOMINAL.values()), np.float32))

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Cosine and sine of the angle, and its speed."""
        high: Any = np.array([1.0, 1.0, _gymnax.EnvParams().max_speed], np.float32)
        return spaces.Box(-high, high, (3,), jnp.float32)

    def reset_env(self, key: Key, params: Level) -> tuple[Float[Array, "3"], PyTree]:
        """Start of an episode; any angle, and a speed in -1 .. 1."""
        return gymnax_dynamics.reset(_gymnax.Pendulum(), key, _params(params))

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, "3"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        grid = jnp.linspace(-1.0, 1.0, self.num_torques, dtype=jnp.float32)
        torque = params.max_torque * grid[jnp.asarray(action, jnp.int32)]
        return gymnax_dynamics.step(_gymnax.Pendulum(), key, state, torque, _params(params))

    def observe(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Float[Array, "3"]:
        """Cosine and sine of the angle (counterclockwise, from upright), and its speed."""
        return _gymnax.Pendulum().get_obs(state)

    # What makes it a family of levels.

    def ranges(self) -> Ranges:
        """The parameters, in the order of the level's fields, and their ranges."""
        return parameters.ranges_of(self, NOMINAL)

    def make_level(self, values: Float[Array, "*M D"] | Float[np.ndarray, "*M D"]) -> Level:
        """The level, or levels [M], of parameters in that order; its time limit is `max_steps`."""
        return parameters.make_level(Level, values, self.max_steps)

    def sample_level(self, key: Key) -> Level:
        """Parameters log-uniformly from their ranges, independently."""
        return self.make_level(parameters.sample(key, self.ranges()))

    def sample_simple_level(self, key: Key) -> Level:
        """Gymnax's own system, but for differences too small to matter."""
        return self.make_level(parameters.sample_near(key, self.ranges()))

    def mutate_levels(self, key: Key, levels: Level, num_edits: int) -> Level:
        """Levels [N], each with `num_edits` small changes of one parameter, inside the ranges."""
        return parameters.mutate(key, levels, self.ranges(), num_edits)

    def editor(self) -> PhysicsEditor:
        """The environment in which a teacher builds levels of this family."""
        return PhysicsEditor(self)

    def unpack(self, obs: Float[Array, "*B 3"]) -> Float[Array, "*B 3"]:
        """Observations such that all numbers are about as large as 1."""
        return gymnax_dynamics.scaled(obs, (1.0, 1.0, 8.0))

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

    def level_features(self, level: Level) -> dict[str, Array]:
        """The parameters."""
        return {name: getattr(level, name) for name in NOMINAL}

    def codec(self) -> PhysicsCodec:
        """The places of the parameters in their ranges, for generative models."""
        return PhysicsCodec(self)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return render.pendulum(level)

    def render(self, level: Level | PyTree, state: PyTree) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3]; also takes `(state, level)`."""
        if not isinstance(level, Level):
            level, state = state, level
        return render.pendulum(level, state)

    def load_levels(self, path: Path | str) -> LevelSet:
        """Levels of an `.npz` of rlgen.

        Raises:
            ValueError: unreadable, of another family, or with a parameter that is not positive.
        """
        return parameters.load_levels(path, self.default_params)

    def presets(self) -> dict[str, dict[str, float]]:
        """The same levels in all presets."""
        return {"parity": {}, "strong": {}, "fast": {}}

    def suites(self) -> dict:
        """Held-out levels inside and outside the usual ranges; see `suites`."""
        return suites.suites(self, "pendulum")

    def ladder(self) -> dict[str, DistributionShift]:
        """What lies beyond the usual ranges; see `rlgen.evaluation.ladder.ladder`."""
        return suites.LADDER


def build(**fields) -> Pendulum:
    """The environment with the given fields."""
    return Pendulum(**fields)


def tiny() -> Pendulum:
    """With a short time limit, for tests of laws."""
    return Pendulum(max_steps=20)


def _params(level: Level) -> _gymnax.EnvParams:
    """Gymnax's params of a level."""
    fields: dict[str, Any] = {
        "max_torque": level.max_torque,
        "g": level.gravity,
        "m": level.mass,
        "l": level.length,
        "max_steps_in_episode": level.max_steps_in_episode,
    }
    return _gymnax.EnvParams(**fields)
