"""The linear recurrence: parallel, as a loop and step by step, with equal results."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.nn import linear_recurrence as lr

T, N, I, H = 12, 3, 4, 5  # noqa: E741, N is the number of slots, I of inputs


@pytest.fixture(scope="module")
def inputs():
    """Weights, a non-zero initial state, a sequence, and the steps at which episodes start."""
    keys = jax.random.split(jax.random.key(0), 5)
    weights = lr.MinGRUWeights(jax.random.normal(keys[0], (I, 2 * H)), jnp.linspace(-2, 2, 2 * H))
    start, x = jax.random.normal(keys[1], (N, H)), jax.random.normal(keys[2], (T, N, I))
    first = jax.random.bernoulli(keys[3], 0.2, (T, N))
    assert first[1:].any() and not first[0].all()
    return weights, start, x, first


@pytest.fixture(scope="module")
def linear_map():
    """Initial state, decays (some are 0, as at episode starts) and inputs of the recurrence."""
    rng = np.random.default_rng(0)
    decay = rng.uniform(0, 1, (T, N, H)) * (rng.uniform(size=(T, N, 1)) > 0.2)
    arrays = rng.normal(size=(N, H)), decay, rng.normal(size=(T, N, H))
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def by_steps(weights, start, x, first):
    """Run the recurrence step by step, differentiated by JAX."""
    states, hidden = [], start
    for t in range(x.shape[0]):
        hidden = lr.min_gru_step(weights, hidden, x[t], first[t])
        states.append(hidden)
    return hidden, jnp.stack(states)


def assert_equal(found, expected):
    for got, want in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def loss_of(run, first):
    coef = jax.random.normal(jax.random.key(1), (T + 1, N, H))

    def loss(weights, start, x):
        end, states = run(weights, start, x, first)
        return (states * coef[:-1]).sum() + (end * coef[-1]).sum()

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))


def test_a_sequence_is_many_steps(inputs):
    assert_equal(jax.jit(lr.min_gru)(*inputs), jax.jit(by_steps)(*inputs))


def test_gradients_of_a_sequence_are_those_of_its_steps(inputs):
    *args, first = inputs
    assert_equal(loss_of(lr.min_gru, first)(*args), loss_of(by_steps, first)(*args))


def test_a_step_is_the_formula_of_the_paper(inputs):
    weights, start, x, _ = inputs
    first = jnp.array([True, False, False])
    update_in, candidate = np.split(np.asarray(x[0] @ weights.inputs + weights.bias[None]), 2, -1)
    update = 1 / (1 + np.exp(-update_in))
    old = np.asarray(start) * np.array([[0.0], [1.0], [1.0]])
    expected = (1 - update) * old + update * candidate
    np.testing.assert_allclose(lr.min_gru_step(weights, start, x[0], first), expected, rtol=1e-5)


def test_parts_from_stored_states_are_the_whole(inputs):
    weights, start, x, first = inputs
    whole = lr.min_gru(*inputs)[1]
    hidden, found = start, []
    for t in range(0, T, 4):
        hidden, states = lr.min_gru(weights, hidden, x[t : t + 4], first[t : t + 4])
        found.append(states)
    assert_equal(jnp.concatenate(found), whole)


@pytest.mark.parametrize("solve", [lr.parallel, lr.sequential, lr.recurrence])
def test_every_way_to_solve_it_is_the_textbook_sum(linear_map, solve):
    start, decay, push = map(np.asarray, linear_map)
    hidden, expected = start.astype(np.float64), []
    for a, b in zip(decay, push, strict=True):
        hidden = a * hidden + b
        expected.append(hidden)
    np.testing.assert_allclose(jax.jit(solve)(*linear_map), expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_our_own_is_that_of_both_ways(linear_map):
    coef = jax.random.normal(jax.random.key(1), (T, N, H))

    def gradient(solve):
        loss = lambda *args: (jnp.sin(solve(*args)) * coef).sum()  # noqa: E731
        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*linear_map)

    ours = gradient(lr.recurrence)
    assert_equal(ours, gradient(lr.sequential))
    assert_equal(ours, gradient(lr.parallel))


def test_seeds_can_be_an_axis_and_no_branch_is_doubled(inputs):
    weights, start, x, first = inputs
    many = jax.tree.map(lambda w: jnp.stack([w, -w]), weights)
    run = jax.jit(jax.vmap(partial(lr.min_gru, hidden=start, x=x, first=first)))
    assert_equal(jax.tree.map(lambda y: y[0], run(many)), lr.min_gru(*inputs))
    assert "select_n" not in str(jax.make_jaxpr(jax.vmap(lr.recurrence))(*_two(start, x)))


def _two(start, x):
    decay = jnp.ones((2, T, *start.shape))
    return jnp.stack([start, start]), decay, decay


def test_what_was_before_an_episode_is_dropped(inputs):
    weights, start, x, _ = inputs
    first = jnp.zeros((T, N), bool).at[5].set(True)
    end, states = lr.min_gru(weights, start * jnp.nan, x, first)
    assert np.isnan(states[:5]).all()
    del end
    wild, tame = (lr.min_gru(weights, s, x, first)[1][5:] for s in (1e3 * start, start))
    np.testing.assert_array_equal(wild, tame)
