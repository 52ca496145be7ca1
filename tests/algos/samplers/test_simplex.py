"""Projection onto the simplex, against scipy's solution and the optimality conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlgen.algos.samplers.ncc import project

SIZE = 5  # one shape, one compilation
numbers = st.floats(-4, 4, width=32)
vectors = st.lists(numbers, min_size=SIZE, max_size=SIZE).map(np.asarray)
floors = st.sampled_from([0.0, 1e-5, 0.05, 0.19, 0.2])
projected = jax.jit(project, static_argnums=1)


def quadratic_program(x, floor):
    """Return the nearest point of the truncated simplex, by a general-purpose solver."""
    found = minimize(
        lambda y: ((y - x) ** 2).sum() / 2,
        np.full(x.size, 1 / x.size),
        jac=lambda y: y - x,
        method="SLSQP",
        bounds=[(floor, 1)] * x.size,
        constraints={"type": "eq", "fun": lambda y: y.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success, found.message
    return found.x


@settings(max_examples=150, deadline=None)
@given(vectors, floors)
def test_it_solves_the_quadratic_program(x, floor):
    y = projected(jnp.asarray(x, jnp.float32), floor)
    np.testing.assert_allclose(y, quadratic_program(x, floor), atol=2e-5)


@settings(max_examples=100, deadline=None)
@given(vectors, floors, st.sampled_from([1.0, 1e-3]))
def test_it_is_a_distribution_above_the_floor_and_meets_the_conditions_of_optimality(
    x, floor, scale
):
    x = np.float32(scale * x)
    y = np.asarray(projected(jnp.asarray(x), floor), np.float64)
    assert abs(y.sum() - 1) < 1e-5 and (y >= np.float32(floor)).all()
    # Stationarity: x − y is one number where y is above the floor and at most that elsewhere.
    price, above = x - y, y > floor + 1e-5
    if above.any():
        assert np.ptp(price[above]) < 1e-5
        assert (price[~above] <= price[above].max() + 2e-5).all()


@settings(max_examples=50, deadline=None)
@given(vectors, floors, st.floats(-100, 100))
def test_a_constant_on_top_changes_nothing_and_neither_does_a_second_projection(x, floor, top):
    once = projected(jnp.asarray(x, jnp.float32), floor)
    np.testing.assert_allclose(projected(jnp.asarray(x + top, jnp.float32), floor), once, atol=3e-5)
    np.testing.assert_allclose(projected(once, floor), once, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_four_thousand_entries_still_sum_to_one(scale):
    x = scale * np.random.default_rng(0).standard_normal(4000)
    y = np.asarray(projected(jnp.asarray(x, jnp.float32), 1e-5), np.float64)
    assert abs(y.sum() - 1) < 1e-4 and y.min() >= np.float32(1e-5)
    order = np.argsort(x)
    assert (np.diff(y[order]) >= 0).all()
