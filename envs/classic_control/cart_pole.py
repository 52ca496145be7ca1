"""Cart-pole: push a cart left or right so that the pole on it stays upright.

Every step gives reward 1. The episode ends when the pole leans by more than 12 degrees or the cart
leaves the track. A level is solved if the episode lasts until the time limit. The dynamics are
exactly those of gymnax. The time limit is that of CartPole-v0, 200 steps, so that an episode fits
into a typical rollout.

Source: Barto, Sutton and Anderson, 1983, "Neuronlike Adaptive Elements That Can Solve Difficult
Learning Control Problems". Differs from gymnax in that masses, length, gravity and force are
parameters of the level.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from gymnax.environments.classic_control import cartpole as _gymnax
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import render
from rlgen.envs.classic_control.base import PhysicsFamily

__all__ = ["CartPole", "Level", "build", "tiny"]

NOMINAL = {
    "gravity": 9.8,
    "masscart": 1.0,
    "masspole": 0.1,
    "length": 0.5,
    "force_mag": 10.0,
}
"""Parameter values of gymnax."""


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One cart with its pole.

    The fields have the names of gymnax's params. All other params of gymnax are fixed.
    """

    gravity: Float[Array, "*batch"]  # m/s²
    masscart: Float[Array, "*batch"]  # kg
    masspole: Float[Array, "*batch"]  # kg
    length: Float[Array, "*batch"]  # half the length of the pole, m
    force_mag: Float[Array, "*batch"]  # force of a push, N
    max_steps_in_episode: Int[Array, "*batch"]


@dataclass(frozen=True)
class CartPole(PhysicsFamily):
    """Family of cart-poles; a field `(low, high)` is the training range of a parameter.

    Each of the four entries of the initial state is drawn uniformly from -0.05 .. 0.05.
    """

    gravity: tuple[float, float] = (7.0, 13.0)  # range of gravity, m/s²
    masscart: tuple[float, float] = (0.5, 2.0)  # range of the cart's mass, kg
    masspole: tuple[float, float] = (0.05, 0.5)  # range of the pole's mass, kg
    length: tuple[float, float] = (0.25, 1.0)  # range of half the pole's length, m
    force_mag: tuple[float, float] = (5.0, 15.0)  # range of the force of a push, N
    max_steps: int = 200  # time limit of generated levels, in env steps

    family = "cart-pole"
    system = _gymnax.CartPole
    level_type = Level
    nominal = NOMINAL
    typical = (2.4, 2.0, 0.21, 2.0)
    picture = staticmethod(render.cart_pole)

    @property
    def num_actions(self) -> int:
        """Two: push left, push right."""
        return 2

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Position, velocity, angle (clockwise from upright) and angular velocity.

        The two velocities are unbounded.
        """
        top = np.finfo(np.float32).max
        usual = _gymnax.EnvParams()
        high = np.array([usual.x_threshold * 2, top, usual.theta_threshold_radians * 2, top])
        bound: Any = high.astype(np.float32)  # gymnax's annotation requires a JAX array
        return spaces.Box(-bound, bound, (4,), jnp.float32)

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """True if the pole stayed upright and the cart stayed on the track until the time limit."""
        return ~terminated

    def system_params(self, level: Level) -> _gymnax.EnvParams:
        """Convert a level to gymnax's params, two of which are derived from others."""
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


def build(**fields) -> CartPole:
    """Build the environment with the given fields."""
    return CartPole(**fields)


def tiny() -> CartPole:
    """Return an instance with a short time limit, for the tests in `tests/laws`."""
    return CartPole(max_steps=20)
