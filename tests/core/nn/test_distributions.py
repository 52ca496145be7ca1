"""The categorical distribution against scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from rlgen.nn import distributions

LOGITS = np.random.default_rng(0).normal(scale=3.0, size=(2, 5, 4)).astype(np.float32)
MASKED = np.where(np.arange(4) == 2, -np.inf, LOGITS).astype(np.float32)


def test_log_prob_is_that_of_scipy():
    action = np.random.default_rng(1).integers(0, 4, (2, 5))
    expected = np.take_along_axis(scipy.special.log_softmax(LOGITS, -1), action[..., None], -1)
    found = distributions.log_prob(jnp.asarray(LOGITS), jnp.asarray(action))
    np.testing.assert_allclose(found, expected[..., 0], rtol=1e-5, atol=1e-6)


def test_entropy_is_that_of_scipy_masked_or_not():
    for logits in (LOGITS, MASKED):
        expected = scipy.stats.entropy(scipy.special.softmax(logits, -1), axis=-1)
        found = distributions.entropy(jnp.asarray(logits))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_masked_action_has_probability_zero_and_is_never_drawn():
    masked = distributions.log_prob(jnp.asarray(MASKED), jnp.full((2, 5), 2))
    assert (masked == -jnp.inf).all()
    drawn = distributions.sample(jax.random.key(0), jnp.broadcast_to(MASKED, (200, 2, 5, 4)))
    assert not (drawn == 2).any()


def test_a_masked_action_leaves_the_gradients_finite():
    action = jnp.zeros((2, 5), jnp.int32)

    def loss(logits):
        return (distributions.entropy(logits) + distributions.log_prob(logits, action)).sum()

    grad = jax.grad(loss)(jnp.asarray(MASKED))
    assert np.isfinite(grad).all()
    np.testing.assert_allclose(grad[..., 2], 0.0, atol=1e-7)


def test_samples_come_at_their_rates():
    logits = jnp.asarray(LOGITS[0, 0])
    drawn = distributions.sample(jax.random.key(0), jnp.broadcast_to(logits, (20_000, 4)))
    counts = np.bincount(drawn, minlength=4)
    expected = scipy.special.softmax(LOGITS[0, 0].astype(float)) * 20_000
    assert scipy.stats.chisquare(counts, expected).pvalue > 0.01
    assert drawn.dtype == jnp.int32
