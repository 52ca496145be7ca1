"""Orthogonal initial weights from matrix products alone.

The usual way is a QR decomposition. On the CPU, batched ones (an agent a seed, under `vmap`) can
wait for one another for ever: in jaxlib 0.10 each takes a thread of the pool and waits for work
that it queued on the same pool, so two at a time stop a machine of two cores.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.types import Key

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
