"""Cart-pole: push a cart left or right so that the pole on it stays upright.

Every step pays 1. The episode ends when the pole leans by more than 12 degrees or the cart leaves
the track; a level is solved by lasting until the time limit. Dynamics are gymnax's, step for step;
the time limit is that of CartPole-v0, 200 steps, so that an episode fits into a usual rollout.

Source: Barto, Sutton and Anderson, 1983, "Neuronlike Adaptive Elements That Can Solve Difficult
Learning Control Problems". Differs from gymnax in giving masses, length, gravity and force as data.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import cartpole as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import gymnax_dynamics, parameters, render, suites
from rlgen.envs.classic_control.codec import PhysicsCodec
from rlgen.envs.classic_control.editor import PhysicsEditor
from rlgen.envs.classic_control.parameters import Ranges
from rlgen.levels import DistributionShift, LevelSet
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

__all__ = ["CartPole", "Level", "build", "tiny"]

NOMINAL = {
    "gravity": 9.8,
    "masscart": 1.0,
    "masspole": 0.1,
    "length": 0.5,
    "force_mag": 10.0,
}
"""gymnax's own values."""


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One cart with its pole, by the names of gymnax; what its params hold besides is fixed."""

    gravity: Float[Array, "*batch"]  # m/s²
    masscart: Float[Array, "*batch"]  # kg
    masspole: Float[Array, "*batch"]  # kg
    length: Float[Array, "*batch"]  # half of the pole's, m
    force_mag: Float[Array, "*batch"]  # of a push, N
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class CartPole(LevelEnv):
    """Carts and poles; each field `(low, high)` is the range of a parameter in training levels."""

    gravity: tuple[float, float] = (7.0, 13.0)  # m/s²
    masscart: tuple[float, float] = (0.5, 2.0)  # kg
    masspole: tuple[float, float] = (0.05, 0.5)  # kg
    length: tuple[float, float] = (0.25, 1.0)  # half of the pole's, m
    force_mag: tuple[float, float] = (5.0, 15.0)  # of a push, N
    max_steps: int = 200  # time limit of the levels made here

    def __post_init__(self):
        """Refuse ranges that are none and impossible time limits."""
        parameters.check_fields(self, NOMINAL)

    # What gymnax asks for.

    @property
    def num_actions(self) -> int:
        """Left and right."""
        return 2

    @property
    def default_params(self) -> Level:
        """Gymnax's own system, whatever the ranges; its time limit is `max_steps`."""
        return self.make_level(np.array(list(NOMINAL.values()), np.float32))

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Position, angle and their speeds; speeds have no limit."""
        top = np.finfo(np.float32).max
        usual = _gymnax.EnvParams()
        high = np.array([usual.x_threshold * 2, top, usual.theta_threshold_radians * 2, top])
        bound: Any = high.astype(np.float32)  # gymnax's annotation asks for a jax array
        return spaces.Box(-bound, bound, (4,), jnp.float32)

    def reset_env(self, key: Key, params: Level) -> tuple[Float[Array, "4"], PyTree]:
        """Start of an episode; all four numbers of the state are uniform in -0.05 .. 0.05."""
        return gymnax_dynamics.reset(_gymnax.CartPole(), key, _params(params))

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[Float[Array, "4"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        return gymnax_dynamics.step(_gymnax.CartPole(), key, state, action, _params(params))

    def observe(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float | None, params: Level
    ) -> Float[Array, "4"]:
        """Position, speed, angle (clockwise, from upright) and its speed."""
        return _gymnax.CartPole().get_obs(state)

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

    def unpack(self, obs: Float[Array, "*B 4"]) -> Float[Array, "*B 4"]:
        """Observations such that all numbers are about as large as 1."""
        return gymnax_dynamics.scaled(obs, (2.4, 2.0, 0.21, 2.0))

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """The pole stood, and the cart was on the track, until the time limit."""
        return ~terminated

    @property
    def lowest_return(self) -> float:
        """No step pays less than nothing."""
        return 0.0

    def level_features(self, level: Level) -> dict[str, Array]:
        """The parameters."""
        return {name: getattr(level, name) for name in NOMINAL}

    def codec(self) -> PhysicsCodec:
        """The places of the parameters in their ranges, for generative models."""
        return PhysicsCodec(self)

    # Host side.

    def level_image(self, level: Level) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return render.cart_pole(level)

    def render(self, level: Level | PyTree, state: PyTree) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3]; also takes `(state, level)`."""
        if not isinstance(level, Level):
            level, state = state, level
        return render.cart_pole(level, state)

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
        return suites.suites(self, "cart-pole")

    def ladder(self) -> dict[str, DistributionShift]:
        """What lies beyond the usual ranges; see `rlgen.evaluation.ladder.ladder`."""
        return suites.LADDER


def build(**fields) -> CartPole:
    """The environment with the given fields."""
    return CartPole(**fields)


def tiny() -> CartPole:
    """With a short time limit, for tests of laws."""
    return CartPole(max_steps=20)


def _params(level: Level) -> _gymnax.EnvParams:
    """Gymnax's params of a level, with what it keeps of sums and products."""
    fields: dict[str, Any] = {
        "gravity": level.gravity,
        "masscart": level.masscart,
        "masspole": level.masspole,
        "total_mass": level.masscart + level.masspole,
        "length": level.length,
        "polemass_length": level.masspole * level.length,
        "force_mag": level.force_mag,
        "max_steps_in_episode": level.max_steps_in_episode,
    }
    return _gymnax.EnvParams(**fields)
