"""Orthogonal weights without LAPACK."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.nn.layers import orthogonal


@pytest.mark.parametrize("shape", [(5, 5), (12, 4), (4, 12), (3, 1), (64, 64)])
def test_fewer_of_rows_and_columns_are_orthonormal(shape):
    x = 2.0 * np.eye(min(shape))
    for seed in range(3):
        found = np.asarray(orthogonal(2.0)(jax.random.key(seed), shape))
        gram = found.T @ found if shape[0] >= shape[1] else found @ found.T
        np.testing.assert_allclose(gram, 2.0 * x, atol=1e-5)


def test_matrices_are_uniform_over_rotations_and_reflections():
    """Haar measure: each entry of a 3 x 3 matrix is uniform on [-1, 1] (Archimedes)."""
    init = jax.jit(jax.vmap(lambda key: orthogonal()(key, (3, 3))))
    found = np.asarray(init(jax.random.split(jax.random.key(0), 4000)))
    for i, j in np.ndindex(3, 3):
        counts, _ = np.histogram(found[:, i, j], bins=10, range=(-1, 1))
        assert ((counts - 400) ** 2 / 400).sum() < 34  # chi-square, 9 degrees of freedom, p = 1e-4
    assert abs((np.linalg.det(found) > 0).mean() - 0.5) < 0.04


def test_no_lapack_call_that_could_deadlock_under_vmap():
    init = jax.vmap(lambda key: orthogonal()(key, (8, 8)))
    program = jax.jit(init).lower(jax.random.split(jax.random.key(0), 2)).as_text()
    assert "lapack" not in program
    assert "lapack" in jax.jit(jnp.linalg.qr).lower(jnp.eye(8)).as_text()  # the check can fail
