"""Mountain car: reach the flag on a hill that is too steep for the motor, by swinging.

Every step costs 1 until the flag is reached, which ends the episode. Dynamics are gymnax's, step
for step. Where the motor is strong and gravity weak the car drives straight up, so that some levels
are far easier than gymnax's, where random actions hardly ever reach the flag.

Source: Moore, 1990, "Efficient Memory-based Learning for Robot Control". Differs from gymnax in
giving force and gravity as data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import mountain_car as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import gymnax_dynamics, parameters, render, suites
from rlgen.envs.classic_control.codec import PhysicsCodec
from rlgen.envs.classic_control.editor import PhysicsEditor
from rlgen.envs.classic_control.parameters import Ranges
from rlgen.levels import DistributionShift, LevelSet
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

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
class MountainCar(LevelEnv):
    """Cars on hills; each field `(low, high)` is the range of a parameter in training levels."""

    force: tuple[float, float] = (0.0009, 0.003)  # of the motor: speed gained in a step
    gravity: tuple[float, float] = (0.001, 0.003)  # the same of gravity, at the steepest place
    max_steps: int = 200  # time limit of the levels made here

    def __post_init__(self):
        """Refuse ranges that are none and impossible time limits."""
        parameters.check_fields(self, NOMINAL)

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Back, nothing, forward."""
        return 3

    @property
    def default_params(self) -> Level:
        """Gymnax's own system, whatever the ranges."""
        return self.make_level(np.array(list(NOMINAL.values()), np.float32))

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Position and speed."""
        usual = _gymnax.EnvParams()
        low: Any = np.array([usual.min_position, -usual.max_speed], np.float32)
        high: Any = np.array([usual.max_position, usual.max_speed], np.float32)
        return spaces.Box(low, high, (2,), jnp.float32)

    def reset_env(self, key: Key, params: Level) -> tuple[Float[Array, "2"], PyTree]:
        """Start of an episode; at rest, anywhere in -0.6 .. -0.4."""
        return gymnax_dynamics.reset(_gymnax.MountainCar(), key, _params(params))

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, "2"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        return gymnax_dynamics.step(_gymnax.MountainCar(), key, state, action, _params(params))

    def observe(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Float[Array, "2"]:
        """Position and speed."""
        return _gymnax.MountainCar().get_obs(state)

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
        """About the easiest level of the ranges: the strongest motor in the weakest gravity.

        Not gymnax's own system, on which random episodes hardly ever reach the flag; one in six
        does here.
        """
        ranges = self.ranges()
        easiest = np.array([self.force[1], self.gravity[0]], np.float32)
        return self.make_level(parameters.sample_near(key, ranges, easiest))

    def mutate_levels(self, key: Key, levels: Level, num_edits: int) -> Level:
        """Levels [N], each with `num_edits` small changes of one parameter, inside the ranges."""
        return parameters.mutate(key, levels, self.ranges(), num_edits)

    def editor(self) -> PhysicsEditor:
        """The environment in which a teacher builds levels of this family."""
        return PhysicsEditor(self)

    def unpack(self, obs: Float[Array, "*B 2"]) -> Float[Array, "*B 2"]:
        """Observations such that all numbers are about as large as 1."""
        return gymnax_dynamics.scaled(obs, (1.0, 0.07))

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """The flag was reached."""
        return terminated

    @property
    def lowest_return(self) -> float:
        """The flag is never reached."""
        return -float(self.max_steps)

    def level_features(self, level: Level) -> dict[str, Array]:
        """The parameters."""
        return {name: getattr(level, name) for name in NOMINAL}

    def codec(self) -> PhysicsCodec:
        """The places of the parameters in their ranges, for generative models."""
        return PhysicsCodec(self)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return render.mountain_car(level)

    def render(self, level: Level | PyTree, state: PyTree) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3]; also takes `(state, level)`."""
        if not isinstance(level, Level):
            level, state = state, level
        return render.mountain_car(level, state)

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
        return suites.suites(self, "mountain-car")

    def ladder(self) -> dict[str, DistributionShift]:
        """What lies beyond the usual ranges; see `rlgen.evaluation.ladder.ladder`."""
        return suites.LADDER


def build(**fields) -> MountainCar:
    """The environment with the given fields."""
    return MountainCar(**fields)


def tiny() -> MountainCar:
    """With a short time limit, for tests of laws."""
    return MountainCar(max_steps=20)


def _params(level: Level) -> _gymnax.EnvParams:
    """Gymnax's params of a level."""
    fields: dict[str, Any] = {
        "force": level.force,
        "gravity": level.gravity,
        "max_steps_in_episode": level.max_steps_in_episode,
    }
    return _gymnax.EnvParams(**fields)
