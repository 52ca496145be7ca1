"""gymnax's classic control with strict types: float32, no weak types, one shape throughout."""

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments.environment import Environment
from jaxtyping import Array, Bool, Float

from rlgen.types import Key, PyTree


def reset(gym: Environment, key: Key, params: PyTree) -> tuple[Float[Array, " F"], PyTree]:
    """Start of an episode, `(obs, state)`, as gymnax draws it."""
    obs, state = gym.reset_env(key, params)
    return jnp.asarray(obs, jnp.float32), _strict(state)


def step(
    gym: Environment, key: Key, state: PyTree, action: Array | int | float, params: PyTree
) -> tuple[Float[Array, " F"], PyTree, Float[Array, ""], Bool[Array, ""], dict]:
    """One step of gymnax's own dynamics: `(obs, state, reward, terminated, info)`."""
    obs, state, reward, terminated, _ = gym.step_env(key, state, action, params)
    reward = jnp.asarray(reward, jnp.float32).reshape(())
    return jnp.asarray(obs, jnp.float32), _strict(state), reward, jnp.asarray(terminated, bool), {}


def scaled(obs: Float[Array, "*B F"], typical: tuple[float, ...]) -> Float[Array, "*B F"]:
    """Observations over what is typical of each number, for networks."""
    scale = np.array(typical, np.float32).reshape((1,) * (obs.ndim - 1) + (-1,))
    return obs / scale


def _strict(state: PyTree) -> PyTree:
    def array(x: int | float | Array) -> Array:
        kind = jnp.int32 if jnp.issubdtype(jnp.result_type(x), jnp.integer) else jnp.float32
        return jnp.asarray(x, kind)

    return jax.tree.map(array, state)
