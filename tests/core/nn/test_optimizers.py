"""Optimisers: equal to optax's, and with finite derivatives where optax's have none."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlgen.nn.optimizers import AdamState, Optimizer, global_norm
from rlgen.testing import assert_close

PARAMS = {"table": jnp.asarray([[0.5, -1.0], [2.0, 0.25]]), "bias": jnp.asarray([0.1])}
NUM_STEPS, RATE = 6, 0.3


def gradients(scale=1.0):
    """Return gradients, [steps, ...], some above and some below the norm 0.5."""
    key = jax.random.key(0)
    sizes = scale * jnp.asarray([0.05, 3.0, 0.2, 1.0, 0.01, 5.0])

    def make(x):
        each = jax.random.normal(jax.random.fold_in(key, x.size), (NUM_STEPS, *x.shape))
        return each * sizes.reshape(NUM_STEPS, *[1] * x.ndim)

    return jax.tree.map(make, PARAMS)


def descend(optimizer, grads, rate=RATE):
    def step(carry, grads):
        carry = optimizer.step(*carry, grads, rate)
        return carry, carry[0]

    return jax.lax.scan(step, (PARAMS, optimizer.init(PARAMS)), grads)[1]


OPTAX = {
    "sgd": optax.sgd(RATE),
    "adam": optax.adam(RATE, b1=0.8, b2=0.95, eps=1e-3),
}


@pytest.mark.parametrize("max_norm", [0.5, 0.0])
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_steps_are_those_of_optax(kind, max_norm):
    theirs = OPTAX[kind]
    if max_norm:
        theirs = optax.chain(optax.clip_by_global_norm(max_norm), theirs)
    ours = Optimizer(kind, max_norm, beta1=0.8, beta2=0.95, eps=1e-3)
    grads, params, state = gradients(), PARAMS, theirs.init(PARAMS)
    found = jax.jit(lambda grads: descend(ours, grads))(grads)
    for t in range(NUM_STEPS):
        now = jax.tree.map(lambda x, t=t: x[t], grads)
        updates, state = theirs.update(now, state, params)
        params = optax.apply_updates(params, updates)
        here = jax.tree.map(lambda x, t=t: x[t], found)
        assert_close(here, params, f"step {t} differs from optax's", 1e-5)


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_every_kind_clips(kind):
    """If all gradients exceed the norm, their length must not matter."""
    long, longer = (
        jax.jit(lambda grads: descend(Optimizer(kind), grads))(gradients(scale))
        for scale in (1e3, 1e6)
    )
    assert_close(long, longer, "the length of a clipped gradient changed the step", 1e-4)
    free = Optimizer(kind, max_grad_norm=0.0)
    step = free.step(PARAMS, free.init(PARAMS), jax.tree.map(lambda x: 50 * x, PARAMS), RATE)[0]
    clipped = Optimizer(kind).step(PARAMS, free.init(PARAMS), PARAMS, RATE)[0]
    if kind == "sgd":  # Adam's first step does not depend on the gradient's length
        assert np.abs(step["table"] - clipped["table"]).max() > 10


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_the_derivative_at_a_zero_gradient_is_finite(kind):
    optimizer = Optimizer(kind)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)

    def moved(grads):
        carry = (PARAMS, optimizer.init(PARAMS))
        for _ in range(2):
            carry = optimizer.step(*carry, grads, RATE)
        return carry[0]["table"].sum()

    derivative = jax.jit(jax.grad(moved))(zeros)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(derivative))
    assert (np.asarray(derivative["table"]) != 0).all()


def test_the_derivative_of_sgd_without_clipping_is_minus_the_rate():
    optimizer = Optimizer("sgd", max_grad_norm=0.0)
    derivative = jax.grad(lambda g: optimizer.step(PARAMS, (), g, RATE)[0]["bias"][0])(PARAMS)
    np.testing.assert_allclose(derivative["bias"], [-RATE])
    np.testing.assert_allclose(derivative["table"], np.zeros((2, 2)))


def test_the_derivative_of_a_clipped_step_is_that_of_the_direction():
    """d (c g / |g|) = c (I - n n') / |g|, with n the direction."""
    g, c = np.array([3.0, -4.0, 12.0]), 0.5
    optimizer = Optimizer("sgd", max_grad_norm=c)
    found = jax.jacobian(lambda g: optimizer.step(jnp.zeros(3), (), g, 1.0)[0])(jnp.asarray(g))
    length, n = 13.0, g / 13.0
    np.testing.assert_allclose(found, -c * (np.eye(3) - np.outer(n, n)) / length, atol=1e-7)


def test_adam_takes_its_denominator_for_a_constant():
    """Over two steps, by hand, with each second moment as a constant."""
    g1, g2, b1, b2, eps = 0.7, -0.4, 0.9, 0.99, 1e-8
    optimizer = Optimizer("adam", 0.0, b1, b2, eps)

    def second(g1, g2):
        state = optimizer.step(jnp.zeros(1), optimizer.init(jnp.zeros(1)), g1[None], RATE)
        return optimizer.step(*state, g2[None], RATE)[0][0]

    found = jax.jacobian(second, argnums=(0, 1))(jnp.asarray(g1), jnp.asarray(g2))
    root1 = np.sqrt((1 - b2) * g1**2 / (1 - b2)) + eps
    root2 = np.sqrt((b2 * (1 - b2) * g1**2 + (1 - b2) * g2**2) / (1 - b2**2)) + eps
    by_g1 = -RATE * (1 / root1 + b1 * (1 - b1) / (1 - b1**2) / root2)
    by_g2 = -RATE * (1 - b1) / (1 - b1**2) / root2
    np.testing.assert_allclose(found, [by_g1, by_g2], rtol=1e-5)


def test_the_state_of_adam_counts_its_steps():
    optimizer = Optimizer("adam")
    state = optimizer.step(PARAMS, optimizer.init(PARAMS), PARAMS, RATE)[1]
    assert isinstance(state, AdamState) and state.num_steps == 1
    assert Optimizer("sgd").init(PARAMS) == ()


def test_the_norm_is_over_all_leaves():
    np.testing.assert_allclose(global_norm({"a": jnp.array([3.0]), "b": jnp.array([[4.0]])}), 5.0)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"kind": "rmsprop"}, "kind must be 'sgd' or 'adam', got 'rmsprop'"),
        (
            {"max_grad_norm": -1.0},
            "max_grad_norm must be above 0, or 0 to disable clipping, got -1.0",
        ),
        ({"beta2": 1.0}, r"beta2 must lie in \[0, 1\), got 1.0"),
        ({"eps": 0.0}, "eps must be above 0, got 0.0"),
    ],
)
def test_fields_out_of_range_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        unchecked = object.__new__(Optimizer)  # else the tests' type checks would reject it first
        for name, value in fields.items():
            object.__setattr__(unchecked, name, value)
        unchecked.__post_init__()
