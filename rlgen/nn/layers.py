"""Layers that networks share: encoders of observations, dense layers and their initial weights.

Orthogonal initial weights are made from matrix products alone. The usual way is a QR decomposition.
On the CPU, batched ones (an agent a seed, under `vmap`) can wait for one another for ever: in
jaxlib 0.10 each takes a thread of the pool and waits for work that it queued on the same pool, so
two at a time stop a machine of two cores.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree


def first_obs(key_level: Key, key_reset: Key, env: LevelEnv) -> PyTree:
    """An observation of one slot, [1, ...], to make parameters for."""
    obs, _ = env.reset_env(key_reset, env.sample_level(key_level))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], obs)


def dense(features: int, scale: float, name: str) -> nn.Dense:
    """A dense layer with orthogonal weights."""
    return nn.Dense(features, kernel_init=orthogonal(scale), name=name)


def encode(
    features: PyTree, num_axes: int, conv_features: int, vector_features: int
) -> Float[Array, "*B F"]:
    """All leaves as one vector, each image through a convolution; inside a compact module.

    Args:
        features: floats, with `num_axes` axes of time and slots in front.
        num_axes: 1 or 2.
        conv_features: filters over images.
        vector_features: units of the dense layers over what accompanies an image.
    """
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(features)]
    has_image = any(leaf.ndim - num_axes == 3 for leaf in leaves)
    encoded = []
    for i, leaf in enumerate(leaves):
        if leaf.ndim - num_axes == 3:
            encoded.append(nn.relu(Conv(conv_features, name=f"conv_{i}")(leaf)))
            continue
        flat = leaf.reshape(*leaf.shape[:num_axes], -1)
        small = dense(vector_features, 2**0.5, f"vector_{i}")
        encoded.append(small(flat) if has_image else flat)
    return jnp.concatenate(encoded, axis=-1)


def convolve(
    image: Float[Array, "B H W C"], kernel: Float[Array, "3 3 C F"]
) -> Float[Array, "B H-2 W-2 F"]:
    """A 3×3 convolution without padding, as one product with the shifted images side by side.

    XLA's own convolution is fast on the CPU outside of loops, and an order of magnitude slower in
    the body of one, where every epoch of a learner is.
    """
    height, width = image.shape[1] - 2, image.shape[2] - 2
    shifted = [image[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(-1, kernel.shape[-1])


class Conv(nn.Module):
    """A 3×3 convolution without padding, flattened."""

    features: int

    @nn.compact
    def __call__(self, image: Float[Array, "*B H W C"]) -> Float[Array, "*B F"]:
        """Features of each image."""
        shape = (3, 3, image.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        out = convolve(image.reshape(-1, *image.shape[-3:]), kernel) + bias[None, None, None]
        return out.reshape(*image.shape[:-3], -1)


Initializer = Callable[..., Array]

NUM_ITERATIONS = 50


def orthogonal(scale: float = 1.0) -> Initializer:
    """Matrices [I, O] with orthonormal rows or columns, whichever are fewer, times `scale`.

    The polar factor of a Gaussian matrix is uniformly (Haar) distributed over such matrices, as is
    the signed Q factor. Found by the Newton–Schulz iteration X ← 3/2 X − 1/2 X XᵀX, which drives
    all singular values to 1 from anywhere in (0, √3).

    Source: Saxe et al., 2014, "Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks"; Higham, 2008, "Functions of Matrices", section 8.3.
    """

    def init(key: Key, shape: tuple[int, int], dtype: object = jnp.float32) -> Float[Array, "I O"]:
        rows, columns = shape
        few, many = sorted(shape)
        x = jax.random.normal(key, (many, few), jnp.float32)
        x /= jnp.sqrt((x**2).sum())  # the Frobenius norm bounds the singular values by 1

        def step(_: Array, x: Array) -> Array:
            gram = jnp.matmul(x.T, x, precision="highest")
            return 1.5 * x - 0.5 * jnp.matmul(x, gram, precision="highest")

        x = jax.lax.fori_loop(0, NUM_ITERATIONS, step, x)
        return (scale * (x if rows >= columns else x.T)).astype(dtype)

    return init


def by_gate(init: Initializer, num_gates: int) -> Initializer:
    """Each gate's block drawn by itself, so that an orthogonal block is orthogonal."""

    def of_all(key: Key, shape: tuple[int, int]) -> Array:
        keys = jax.random.split(key, num_gates)
        return jnp.concatenate([init(k, shape, jnp.float32) for k in keys], -1)

    return of_all
