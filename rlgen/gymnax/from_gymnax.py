"""Families of one level from gymnax environments with discrete actions; see `from_gymnax`."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import environment, spaces
from jaxtyping import Array, Bool, Float, Int

from rlgen import registry
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree


def from_gymnax(source: str | environment.Environment, **kwargs: object) -> "OneLevel":
    """Convert a gymnax environment with discrete actions to a family of one level.

    The level is the environment's default params.

        env = from_gymnax("CartPole-v1")
        level = env.sample_level(jax.random.key(0)).replace(gravity=jnp.float32(5.0))

    Args:
        source: a registered id, or a gymnax environment.
        **kwargs: arguments of the environment's constructor, if `source` is an id.

    Raises:
        ValueError: the id is unknown, the actions are continuous, or `kwargs` are given without an
            id. Also raised if the environment downloads data, reads its params as Python values, or
            returns states of different types from reset and step.
    """
    if not isinstance(source, str):
        if kwargs:
            raise ValueError(
                f"{sorted(kwargs)} belong to an id, but source is an environment; pass these "
                "arguments to the constructor of the environment"
            )
        return OneLevel(source, (), source)
    if source == "MNISTBandit-bsuite":
        raise ValueError(f"{source} downloads data at construction; pass an instance instead")
    if source not in gymnax.registered_envs:
        hint = registry.did_you_mean(source, gymnax.registered_envs)
        raise ValueError(f"unknown gymnax environment {source!r}; {hint}")
    env, _ = gymnax.make(source, **kwargs)
    # Sorted, so that the order of the keyword arguments does not affect equality.
    return OneLevel(source, tuple(sorted((k, _hashable(v)) for k, v in kwargs.items())), env)


@dataclass(frozen=True)
class OneLevel(LevelEnv):
    """Environment returned by `from_gymnax`; equal arguments give equal environments.

    Observations and rewards are float32. A discrete observation is converted to a one-hot vector.
    No array is weakly typed.
    """

    source: str | environment.Environment
    kwargs: tuple[tuple[str, Hashable], ...]
    # This field is not compared, because gymnax environments are compared by identity. `source` and
    # `kwargs` identify the environment instead.
    env: environment.Environment = field(compare=False, repr=False)

    def __post_init__(self):
        _check(self)

    @property
    def name(self) -> str:
        """Name of the environment in gymnax."""
        return self.env.name

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        return int(self.env.action_space(self.env.default_params).n)

    @property
    def default_params(self) -> PyTree:
        """The one level: gymnax's default params as arrays."""
        return jax.tree.map(_array, self.env.default_params)

    def sample_level(self, key: Key) -> PyTree:
        """Return the one level; the key is unused."""
        return self.default_params

    def reset_env(self, key: Key, params: PyTree) -> tuple[PyTree, PyTree]:
        """Return the first `(obs, state)` of an episode, which may be random."""
        obs, state = self.env.reset_env(key, params)
        return self._floats(obs), jax.tree.map(_array, state)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""], params: PyTree
    ) -> tuple[PyTree, PyTree, Float[Array, ""], Bool[Array, ""], dict]:
        """Take one step and return `(obs, state, reward, terminated, info)`."""
        obs, state, reward, terminated, info = self.env.step_env(key, state, action, params)
        # Scans need one shape and dtype, regardless of what the environment returns.
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        terminated = jnp.asarray(terminated, bool).reshape(())
        return self._floats(obs), jax.tree.map(_array, state), reward, terminated, info

    def is_truncated(self, state: PyTree, params: PyTree) -> Bool[Array, ""]:
        """Return whether the episode has reached the time limit."""
        return jnp.asarray(self.env.is_truncated(state, params), bool).reshape(())

    def action_space(self, params: PyTree = None) -> spaces.Space:
        """Action space of the gymnax environment."""
        return self.env.action_space(self.env.default_params if params is None else params)

    def observation_space(self, params: PyTree = None) -> spaces.Space:
        """Observation space of the gymnax environment; a discrete one becomes one-hot vectors."""
        space = self.env.observation_space(self.env.default_params if params is None else params)
        if isinstance(space, spaces.Discrete):
            return spaces.Box(0.0, 1.0, (space.n,), jnp.float32)
        if isinstance(space, spaces.Box):
            return spaces.Box(space.low, space.high, space.shape, jnp.float32)
        return space

    def _floats(self, obs: PyTree) -> PyTree:
        space = self.env.observation_space(self.env.default_params)
        if isinstance(space, spaces.Discrete):
            return jax.nn.one_hot(obs, space.n, dtype=jnp.float32)
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), obs)


def _check(env: OneLevel) -> None:
    """Reject environments that cannot be stepped inside a compiled loop; nothing is run."""
    level, key = env.default_params, jax.random.key(0)
    space = env.env.action_space(env.env.default_params)
    if not isinstance(space, spaces.Discrete):
        raise ValueError(
            f"{env.name} has {type(space).__name__} actions, but rlgen's learners need discrete "
            "actions; wrap the environment in one whose actions select from a list of values"
        )
    try:
        # The functions are traced with abstract arrays, so a Python branch on a field of the params
        # fails here.
        _, state = jax.eval_shape(env.reset_env, key, level)
        _, after, *_ = jax.eval_shape(env.step_env, key, state, jnp.int32(0), level)
    except TypeError as error:  # raised by JAX where Python needs a concrete value
        raise ValueError(
            f"{env.name} reads its params as Python values, or fails if they are arrays; turn "
            "params that determine shapes or branches into arguments of its constructor "
            f"({error})"
        ) from error
    if jax.tree.structure(state) != jax.tree.structure(after):
        raise ValueError(
            f"{env.name}: the state after a step has different fields from the state after a reset"
        )
    # A scan needs a carry of constant shapes and dtypes.
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    for (where, before), then in zip(leaves, jax.tree.leaves(after), strict=True):
        if (before.shape, before.dtype) != (then.shape, then.dtype):
            raise ValueError(
                f"{env.name}: state{jax.tree_util.keystr(where)} is {before.dtype}{before.shape} "
                f"after a reset and {then.dtype}{then.shape} after a step; make them equal"
            )


def _array(x: PyTree) -> Array:
    """Convert to an array that is not weakly typed, so that arithmetic and loops keep its type."""
    if not isinstance(x, jax.Array):
        x = np.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return jax.lax.convert_element_type(x, jax.dtypes.canonicalize_dtype(x.dtype))


def _hashable(value: object) -> Hashable:
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(v) for v in value)
    try:
        hash(value)
    except TypeError as error:
        raise ValueError(
            f"an argument of type {type(value).__name__} cannot be compared; create the "
            "environment yourself and pass it to from_gymnax"
        ) from error
    return value
