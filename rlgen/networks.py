"""Actor-critic networks for any observation, feed-forward or recurrent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen import lstm
from rlgen.initializers import Initializer, orthogonal
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh}


@dataclass(frozen=True)
class ActorCritic:
    """Encoder, optional LSTM, and two heads; the defaults are JaxUED's maze network.

    Observations are pytrees: images (rank 3) pass a convolution, flags and vectors a small dense
    layer if there is an image beside them; all is concatenated.

    Attributes:
        core: `lstm`, or `none` for a feed-forward policy with a dense layer in its place.
        hidden_size: units of the core.
        head_size: units of the hidden layer of the actor's and of the critic's head.
        conv_features: filters of the 3×3 convolution over images.
        vector_features: units of the dense layer over what accompanies an image.
        activation: nonlinearity of the actor's head and of the feed-forward core.

    Raises:
        ValueError: an unknown core or activation, or a size below 1.
    Source: network sizes as in Coward et al., 2024, "JaxUED: A simple and useable UED library in
    Jax"; they go back to Dennis et al., 2020.
    """

    core: Literal["lstm", "none"] = "lstm"
    hidden_size: int = 256
    head_size: int = 32
    conv_features: int = 16
    vector_features: int = 5
    activation: Literal["relu", "tanh"] = "relu"

    def __post_init__(self):
        if self.core not in ("lstm", "none"):
            raise ValueError(f"core must be 'lstm' or 'none', got {self.core!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'tanh', got {self.activation!r}")
        for name in ("hidden_size", "head_size", "conv_features", "vector_features"):
            if getattr(self, name) < 1:
                raise ValueError(f"network.{name} must be at least 1, got {getattr(self, name)}")

    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Parameters for an environment's observations and actions."""
        key_level, key_reset, key_params = jax.random.split(key, 3)
        obs, _ = env.reset_env(key_reset, env.sample_level(key_level))
        obs = jax.tree.map(lambda x: jnp.asarray(x)[None], obs)
        first = jnp.ones(1, bool)
        return self._module(env).init(key_params, self.initial_carry(1), obs, first)["params"]

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]; `()` without a core."""
        return lstm.zeros(num_slots, self.hidden_size) if self.core == "lstm" else ()

    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """New carry, logits and value of one step."""
        return self._apply(env, params, carry, obs, first)

    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """New carry, logits and values of a sequence; equal to T steps."""
        return self._apply(env, params, carry, obs, first)

    def _apply(self, env: LevelEnv, *arguments: PyTree) -> PyTree:
        params, *inputs = arguments
        return self._module(env).apply({"params": params}, *inputs)

    def _module(self, env: LevelEnv) -> "_Network":
        return _Network(self, getattr(env, "unpack", _as_floats), env.num_actions)


class _Network(nn.Module):
    sizes: ActorCritic
    unpack: Callable[[PyTree], PyTree]
    num_actions: int

    @nn.compact
    def __call__(self, carry: PyTree, obs: PyTree, first: Array) -> tuple:
        """One step if `first` is [N], a sequence if it is [T, N]."""
        act = ACTIVATIONS[self.sizes.activation]
        x = self._encode(obs, first.ndim)
        if self.sizes.core == "lstm":
            carry, x = _LSTM(self.sizes.hidden_size, name="lstm")(carry, x, first)
        else:
            x = act(_dense(self.sizes.hidden_size, 2**0.5, "trunk")(x))
        actor = act(_dense(self.sizes.head_size, 2.0, "actor_hidden")(x))
        logits = _dense(self.num_actions, 0.01, "actor")(actor)
        critic = nn.relu(_dense(self.sizes.head_size, 2.0, "critic_hidden")(x))
        return carry, logits, _dense(1, 1.0, "critic")(critic)[..., 0]

    def _encode(self, obs: PyTree, num_axes: int) -> Float[Array, "*B F"]:
        features = self.unpack(obs)
        leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(features)]
        has_image = any(leaf.ndim - num_axes == 3 for leaf in leaves)
        encoded = []
        for i, leaf in enumerate(leaves):
            if leaf.ndim - num_axes == 3:
                encoded.append(nn.relu(_Conv(self.sizes.conv_features, name=f"conv_{i}")(leaf)))
                continue
            flat = leaf.reshape(*leaf.shape[:num_axes], -1)
            small = _dense(self.sizes.vector_features, 2**0.5, f"vector_{i}")
            encoded.append(small(flat) if has_image else flat)
        return jnp.concatenate(encoded, axis=-1)


class _Conv(nn.Module):
    """A 3×3 convolution without padding, flattened, as one matrix product.

    On images as small as a 5×5 view the product with the unrolled kernel beats a convolution,
    forwards and backwards.
    """

    features: int

    @nn.compact
    def __call__(self, image: Float[Array, "*B H W C"]) -> Float[Array, "*B F"]:
        height, width, channels = image.shape[-3:]
        shape = (3, 3, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if height * width > 100:  # the unrolled kernel grows with the square of the image
            flat = image.reshape(-1, height, width, channels)
            dims = ("NHWC", "HWIO", "NHWC")
            out = jax.lax.conv_general_dilated(
                flat, kernel, (1, 1), "VALID", dimension_numbers=dims
            )
            return (out + bias[None, None, None]).reshape(*image.shape[:-3], -1)
        rows, cols = height - 2, width - 2
        unrolled = jnp.zeros((height, width, channels, rows, cols, self.features))
        for r in range(rows):
            for c in range(cols):
                unrolled = unrolled.at[r : r + 3, c : c + 3, :, r, c].set(kernel)
        flat = image.reshape(*image.shape[:-3], height * width * channels)
        out = flat @ unrolled.reshape(height * width * channels, rows * cols * self.features)
        return out + jnp.tile(bias, rows * cols).reshape((1,) * (out.ndim - 1) + (-1,))


class _LSTM(nn.Module):
    hidden_size: int

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array]:
        inputs = self.param(
            "inputs", _by_gate(nn.initializers.lecun_normal()), (x.shape[-1], self.hidden_size)
        )
        square = (self.hidden_size, self.hidden_size)
        recurrent = self.param("recurrent", _by_gate(orthogonal()), square)
        bias = self.param("bias", nn.initializers.zeros, (4 * self.hidden_size,))
        weights = lstm.Weights(inputs, recurrent, bias)
        if first.ndim == 2:
            return lstm.lstm(weights, lstm.Carry(*carry), x, first)
        carry = lstm.lstm_step(weights, lstm.Carry(*carry), x, first)
        return carry, carry.hidden


def _dense(features: int, scale: float, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=orthogonal(scale), name=name)


def _by_gate(init: Initializer) -> Initializer:
    """Each gate's block drawn by itself, so that an orthogonal block is orthogonal."""

    def of_all(key: Key, shape: tuple[int, int]) -> Array:
        return jnp.concatenate([init(k, shape, jnp.float32) for k in jax.random.split(key, 4)], -1)

    return of_all


def _as_floats(obs: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), obs)
