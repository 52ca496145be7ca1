"""Base class of the physical systems: gymnax's dynamics, with parameters that the levels set.

Every float is float32, no array is weakly typed, and shapes never change during an episode.
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
    """Family of levels of one classic-control system, with the dynamics of gymnax."""

    suite_fields = ()

    family: ClassVar[str]
    """Name of the family in the registry."""
    system: ClassVar[type[Environment]]
    """Class of the environment in gymnax."""
    typical: ClassVar[tuple[float, ...]]
    """Typical magnitude of each entry of the observation."""
    picture: ClassVar[Callable[..., np.ndarray]]
    """Function that draws a level or, if a state is also given, this state; uint8[H, W, 3]."""

    @abc.abstractmethod
    def system_params(self, level: PyTree) -> Any:
        """Convert a level to gymnax's params."""

    def reset_env(self, key: Key, params: PyTree) -> tuple[Float[Array, " F"], PyTree]:
        """Start an episode, `(obs, state)`, with gymnax's distribution of initial states."""
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
        """One step of gymnax's dynamics, given an action in gymnax's format."""
        obs, state, reward, terminated, _ = self.system().step_env(
            key, state, force, self.system_params(params)
        )
        # Gymnax returns some weakly typed values; a scan requires fixed types and shapes.
        obs, reward = jnp.asarray(obs, jnp.float32), jnp.asarray(reward, jnp.float32).reshape(())
        return obs, _strict(state), reward, jnp.asarray(terminated, bool), {}

    def observe(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float | None, params: PyTree
    ) -> Float[Array, " F"]:
        """Compute the observation that `observation_space` describes."""
        return self.system().get_obs(state)

    def unpack(self, obs: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
        """Scale observations so that all entries are of order 1."""
        scale = np.array(self.typical, np.float32).reshape((1,) * (obs.ndim - 1) + (-1,))
        return obs / scale

    def editor(self) -> PhysicsEditor:
        """Editor environment in which a teacher builds levels of this family."""
        return PhysicsEditor(self)

    def codec(self) -> PhysicsCodec:
        """Codec for generative models, which encodes a parameter as its position in its range."""
        return PhysicsCodec(self)

    def presets(self) -> dict[str, dict[str, float]]:
        """Fields of each preset; the levels are the same in all presets."""
        return {"parity": {}, "strong": {}, "fast": {}}

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Held-out levels inside and outside the default ranges; see `suites`."""
        return suites.suites(self)

    def ladder(self) -> dict[str, DistributionShift]:
        """Suites outside the default ranges; see `rlgen.evaluation.ladder.ladder`."""
        return suites.LADDER

    # Host-side methods, not traceable.

    def level_image(self, level: PyTree) -> np.ndarray:
        """Picture of a level, uint8[H, W, 3]."""
        return self.picture(level)

    def render(self, level: PyTree, state: PyTree) -> np.ndarray:
        """Picture of a state of an episode, uint8[H, W, 3]; also accepts `(state, level)`."""
        if not isinstance(level, self.level_type):
            level, state = state, level
        return self.picture(level, state)


def _strict(state: PyTree) -> PyTree:
    """Convert the leaves to int32 or float32 arrays, so that a scan can carry the state."""

    def array(x: int | float | Array) -> Array:
        kind = jnp.int32 if jnp.issubdtype(jnp.result_type(x), jnp.integer) else jnp.float32
        return jnp.asarray(x, kind)

    return jax.tree.map(array, state)
