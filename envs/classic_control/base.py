"""Base of the physical systems: gymnax's dynamics with strict types, on levels of parameters.

All is float32, no type is weak, and shapes are the same throughout.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.classic_control import suites
from rlgen.envs.classic_control.codec import PhysicsCodec
from rlgen.envs.classic_control.editor import PhysicsEditor
from rlgen.envs.classic_control.parameters import ParameterFamily
from rlgen.levels import DistributionShift, Suite
from rlgen.types import Key, PyTree


class PhysicsFamily(ParameterFamily, abstract=True):
    """A system of gymnax's classic control, stepped as gymnax steps it."""

    family: ClassVar[str]
    """Its name in the registry."""
    system: ClassVar[type[Environment]]
    """The environment in gymnax."""
    typical: ClassVar[tuple[float, ...]]
    """About how large each number of the observation is."""
    picture: ClassVar[Callable[..., np.ndarray]]
    """Draws a level, or a moment of an episode if a state follows, uint8[H, W, 3]."""

    @abc.abstractmethod
    def system_params(self, level: PyTree) -> Any:
        """Gymnax's params of a level."""

    def reset_env(self, key: Key, params: PyTree) -> tuple[Float[Array, " F"], PyTree]:
        """Start of an episode, `(obs, state)`, as gymnax draws it."""
        obs, state = self.system().reset_env(key, self.system_params(params))
        return jnp.asarray(obs, jnp.float32), _strict(state)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: PyTree
    ) -> tuple[Float[Array, " F"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        return self.step_system(key, state, action, params)

    def step_system(
        self, key: Key, state: PyTree, force: Array | int | float, params: PyTree
    ) -> tuple[Float[Array, " F"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """One step of gymnax's own dynamics, given what gymnax takes for an action."""
        obs, state, reward, terminated, _ = self.system().step_env(
            key, state, force, self.system_params(params)
        )
        obs, reward = jnp.asarray(obs, jnp.float32), jnp.asarray(reward, jnp.float32).reshape(())
        return obs, _strict(state), reward, jnp.asarray(terminated, bool), {}

    def observe(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float | None, params: PyTree
    ) -> Float[Array, " F"]:
        """The numbers that `observation_space` names."""
        return self.system().get_obs(state)

    def unpack(self, obs: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
        """Observations such that all numbers are about as large as 1."""
        scale = np.array(self.typical, np.float32).reshape((1,) * (obs.ndim - 1) + (-1,))
        return obs / scale

    def editor(self) -> PhysicsEditor:
        """The environment in which a teacher builds levels of this family."""
        return PhysicsEditor(self)

    def codec(self) -> PhysicsCodec:
        """The places of the parameters in their ranges, for generative models."""
        return PhysicsCodec(self)

    def presets(self) -> dict[str, dict[str, float]]:
        """The same levels in all presets."""
        return {"parity": {}, "strong": {}, "fast": {}}

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Held-out levels inside and outside the usual ranges; see `suites`."""
        return suites.suites(self)

    def ladder(self) -> dict[str, DistributionShift]:
        """What lies beyond the usual ranges; see `rlgen.evaluation.ladder.ladder`."""
        return suites.LADDER

    # Host side.

    def level_image(self, level: PyTree) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return self.picture(level)

    def render(self, level: PyTree, state: PyTree) -> np.ndarray:
        """Picture of a moment of an episode, uint8[H, W, 3]; also takes `(state, level)`."""
        if not isinstance(level, self.level_type):
            level, state = state, level
        return self.picture(level, state)


def _strict(state: PyTree) -> PyTree:
    def array(x: int | float | Array) -> Array:
        kind = jnp.int32 if jnp.issubdtype(jnp.result_type(x), jnp.integer) else jnp.float32
        return jnp.asarray(x, kind)

    return jax.tree.map(array, state)
