"""Functions of the observation with K outputs: a table, an MLP and a small convolutional network.

Parameters are plain pytrees and `apply` consists of a few matrix products, so that a `vmap` over
agents inside a scan is inexpensive.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float

from rlgen import registry
from rlgen.nn.layers import convolve, first_obs
from rlgen.protocols import Approximator, LevelEnv, Network
from rlgen.types import Key, PyTree

Activation = Literal["relu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {"relu": jax.nn.relu, "tanh": jnp.tanh}


@dataclass(frozen=True)
class Table(Approximator):
    """Table with a row of outputs for every state; the observation is the index of the row.

    The table is equivalent to a bias-free dense layer on the one-hot state, but it is computed as a
    gather, whose gradient is a scatter-add. All outputs are initially zero.
    """

    def check(self, env: LevelEnv) -> None:
        """Reject an environment that does not enumerate its observations.

        Raises:
            ValueError: the environment has no `num_states`.
        """
        registry.require(env, LevelEnv.num_states, "a table")

    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> Float[Array, "S K"]:
        """Initial table of zeros; the key is unused."""
        del key
        self.check(env)
        # Zeros suffice, because the rows are independent, so there is no symmetry to break. Zero
        # logits are a uniform policy.
        return jnp.zeros((env.num_states(), num_outputs))

    def apply(self, env: LevelEnv, params: Float[Array, "S K"], obs: Array) -> Float[Array, "B K"]:
        """Rows of the states `obs` [B]."""
        del env
        return params[obs]


@dataclass(frozen=True)
class MLP(Approximator):
    """Dense layers on the observation, whose leaves are flattened and concatenated.

    Attributes:
        hidden: number of units of each hidden layer; empty for a linear function.
        activation: activation function of the hidden layers.

    Raises:
        ValueError: a size below 1, or unknown activation.
    """

    hidden: tuple[int, ...] = (32,)
    activation: Activation = "relu"

    def __post_init__(self):
        _check_sizes("hidden", self.hidden)
        _check_activation(self.activation)

    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> PyTree:
        """Initial weights, distributed as in flax's dense layers."""
        num_inputs = sum(leaf.size for leaf in _leaves(env))
        return _dense_layers(key, (num_inputs, *self.hidden, num_outputs))

    def apply(self, env: LevelEnv, params: PyTree, obs: PyTree) -> Float[Array, "B K"]:
        """K outputs of each of B observations."""
        leaves = jax.tree.leaves(env.unpack(obs))
        return _dense(params, _side_by_side(leaves), ACTIVATIONS[self.activation])


@dataclass(frozen=True)
class Conv(Approximator):
    """A 3×3 convolution without padding over images, followed by dense layers.

    Leaves of the observation that are not images go directly into the dense layers.

    Attributes:
        features: number of filters.
        hidden: number of units of each hidden dense layer.
        activation: activation function of all layers except the last.

    Raises:
        ValueError: a size below 1, or unknown activation.
    """

    features: int = 16
    hidden: tuple[int, ...] = (128,)
    activation: Activation = "relu"

    def __post_init__(self):
        _check_sizes("features", (self.features,))
        _check_sizes("hidden", self.hidden)
        _check_activation(self.activation)

    def check(self, env: LevelEnv) -> None:
        """Reject an environment without images.

        Raises:
            ValueError: no part of the observation is an image of at least 3×3 cells.
        """
        if not any(map(_is_image, _leaves(env))):
            shapes = ", ".join(str(leaf.shape) for leaf in _leaves(env))
            raise ValueError(
                "a convolution needs an image [height, width, channels] of at least 3 by 3 cells "
                f"in the observation, but {type(env).__name__} has leaves of shapes {shapes}. "
                "Choose MLP() instead."
            )

    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> PyTree:
        """Initial weights, distributed as in flax's layers."""
        self.check(env)
        leaves = _leaves(env)
        # One key per leaf; only images use their keys.
        key_dense, *keys = jax.random.split(key, 1 + len(leaves))
        params, num_inputs = {}, 0
        for i, (key_leaf, leaf) in enumerate(zip(keys, leaves, strict=True)):
            if not _is_image(leaf):
                num_inputs += leaf.size
                continue
            height, width, channels = leaf.shape
            params[f"conv_{i}"] = _weights(key_leaf, (3, 3, channels, self.features))
            num_inputs += (height - 2) * (width - 2) * self.features  # no padding
        return params | _dense_layers(key_dense, (num_inputs, *self.hidden, num_outputs))

    def apply(self, env: LevelEnv, params: PyTree, obs: PyTree) -> Float[Array, "B K"]:
        """K outputs of each of B observations."""
        act, leaves = ACTIVATIONS[self.activation], jax.tree.leaves(env.unpack(obs))
        for i, leaf in enumerate(leaves):
            if f"conv_{i}" in params:
                layer = params[f"conv_{i}"]
                image = convolve(leaf.astype(jnp.float32), layer["kernel"])
                leaves[i] = act(image + layer["bias"][None, None, None])
        return _dense(params, _side_by_side(leaves), act)


@dataclass(frozen=True)
class Separate(Network):
    """Policy and value network without shared parameters.

    A learner can use a separate optimiser for each of the parameter `groups`.

    Attributes:
        approximator: architecture of the policy's network and of the value's network.
    """

    groups: ClassVar[tuple[str, str]] = ("actor", "critic")

    approximator: Approximator = field(default_factory=MLP)

    def check(self, env: LevelEnv) -> None:
        """Reject an environment whose observations or actions are not supported.

        Raises:
            ValueError: the observations or actions do not fit; the message names an alternative.
        """
        check_actions(env)
        self.approximator.check(env)

    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Initial parameters of the policy's and the value's network, by group."""
        self.check(env)
        key_actor, key_critic = jax.random.split(key)
        return {
            "actor": self.approximator.init(key_actor, env, env.num_actions),
            "critic": self.approximator.init(key_critic, env, 1),
        }

    def initial_carry(self, num_slots: int) -> tuple[()]:
        """`()`, because the network is feed-forward."""
        del num_slots
        return ()

    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """Return the carry, logits and value of one step."""
        del first
        logits = self.approximator.apply(env, params["actor"], obs)
        # [N, 1] -> [N]: a trailing axis of 1 would later broadcast with [N] to [N, N].
        return carry, logits, self.approximator.apply(env, params["critic"], obs)[:, 0]

    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """Return the carry, logits and values of a sequence."""
        # Without memory, time and slots are one batch axis, [T · N].
        flat = jax.tree.map(lambda x: x.reshape(first.size, *x.shape[2:]), obs)
        _, logits, value = self.step(env, params, carry, flat, first.reshape(-1))
        return carry, logits.reshape(*first.shape, -1), value.reshape(first.shape)


def approximator_for(env: LevelEnv) -> Approximator:
    """Return the default approximator for the observations of an environment.

    The default is `Table` if the environment enumerates its observations. If the observation
    contains an image, the default is `Conv`. In all other cases, the default is `MLP`.
    """
    if registry.has(env, LevelEnv.num_states):
        return Table()
    return Conv() if any(map(_is_image, _leaves(env))) else MLP()


def check_actions(env: LevelEnv) -> None:
    """Reject an environment without discrete actions.

    Raises:
        ValueError: the environment has no `num_actions`, or its action space is a `Box`, as in
            gymnax's environments with continuous actions.
    """
    if _said(lambda: env.num_actions) is None:
        said = "has no num_actions"
    elif isinstance(_said(lambda: _action_space(env)), spaces.Box):
        said = "has a Box as its action space"
    else:
        return
    raise ValueError(
        f"{type(env).__name__} {said}: its actions are continuous, but agents need a finite number "
        "of actions. Choose an environment with discrete actions, or wrap this one in an "
        "environment that numbers its actions."
    )


def _action_space(env: Any) -> Any:
    return env.action_space(env.default_params)


def _said(what: Callable[[], Any]) -> Any:
    """Return `what()`, or None if it raises because the environment does not define the value."""
    try:
        return what()
    except (AttributeError, NotImplementedError):
        return None


def _leaves(env: LevelEnv) -> list[jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the leaves of an unpacked observation, which is not computed."""
    key = jax.random.key(0)
    obs = jax.eval_shape(lambda: env.unpack(first_obs(key, key, env)))
    # `first_obs` has a leading axis of one slot.
    return [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in jax.tree.leaves(obs)]


def _is_image(leaf: jax.ShapeDtypeStruct) -> bool:
    # A 3×3 kernel without padding has no output on a smaller image.
    return len(leaf.shape) == 3 and min(leaf.shape[:2]) >= 3


def _side_by_side(leaves: list[Array]) -> Float[Array, "B F"]:
    flat = [leaf.reshape(leaf.shape[0], -1).astype(jnp.float32) for leaf in leaves]
    return jnp.concatenate(flat, axis=1)


def _weights(key: Key, shape: tuple[int, ...]) -> dict[str, Array]:
    kernel = jax.nn.initializers.lecun_normal()(key, shape, jnp.float32)
    return {"kernel": kernel, "bias": jnp.zeros(shape[-1])}


def _dense_layers(key: Key, sizes: tuple[int, ...]) -> dict[str, dict[str, Array]]:
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return {f"dense_{i}": _weights(k, (rows, cols)) for i, (k, rows, cols) in enumerate(shapes)}


def _dense(
    params: PyTree, x: Float[Array, "B F"], act: Callable[[Array], Array]
) -> Float[Array, "B K"]:
    # Only dense layers are counted, since `params` may also hold convolutions. The last dense layer
    # has no activation.
    last = sum(name.startswith("dense_") for name in params) - 1
    for i in range(last + 1):
        layer = params[f"dense_{i}"]
        x = x @ layer["kernel"] + layer["bias"][None]
        x = x if i == last else act(x)
    return x


def _check_sizes(name: str, sizes: tuple[int, ...]) -> None:
    if any(size < 1 for size in sizes):
        raise ValueError(f"{name} must be at least 1, got {', '.join(map(str, sizes))}")


def _check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be 'relu' or 'tanh', got {activation!r}")
