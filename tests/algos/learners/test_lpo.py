"""The learned drift, its closed form and PPO: members of one family (mirror learning)."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners import dpo, lpo, ppo
from rlgen.algos.learners.dpo import DiscoveredDrift
from rlgen.algos.rules.files import save_rule
from rlgen.algos.rules.networks import MARGIN, Drift, clipping_drift
from rlgen.rollout import rollout
from tests.standins.two_states import TwoStates

LOG_RATIO = np.linspace(-1.5, 1.5, 61, dtype=np.float32)
ADVANTAGE = np.array([-3.0, -0.4, 0.0, 0.7, 2.0], np.float32)
GRID = tuple(x.ravel() for x in np.meshgrid(LOG_RATIO, ADVANTAGE))

DRIFTS = {
    "plain": Drift(hidden_size=16, on_clipping=False),
    "on-clipping": Drift(hidden_size=16),
    "clock": Drift(hidden_size=16, clock=True),
}


def weights(net, seed=0, scale=3.0):
    random = replace(net, on_clipping=False)  # with on_clipping the last layer starts at 0
    return jax.tree.map(lambda x: scale * x, random.init(jax.random.key(seed)))


@pytest.mark.parametrize("net", DRIFTS.values(), ids=DRIFTS)
@pytest.mark.parametrize("seed", range(3))
def test_a_drift_vanishes_with_its_gradient_at_ratio_one(net, seed):
    params = weights(net, seed)
    advantage = jnp.linspace(-2.0, 2.0, 9)
    drift, slope = jax.vmap(
        jax.value_and_grad(lambda log_ratio, a: net(params, log_ratio, a, 0.4)), in_axes=(None, 0)
    )(jnp.zeros(()), advantage)
    np.testing.assert_array_equal(drift, 0.0)
    np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("net", DRIFTS.values(), ids=DRIFTS)
def test_a_drift_is_never_negative_and_not_always_zero(net):
    drift = net(weights(net), *map(jnp.asarray, GRID), 0.4)
    assert drift.min() == 0.0 and drift.max() > 0.1


@pytest.mark.parametrize("net", DRIFTS.values(), ids=DRIFTS)
def test_batches_keep_their_shape(net):
    """Regression: in a public port, a trailing axis of 1 turned drifts of B steps into [B, B]."""
    params, (log_ratio, a) = weights(net), (jnp.asarray(x) for x in GRID)
    whole = net(params, log_ratio, a, 0.4)
    assert whole.shape == log_ratio.shape
    one_by_one = jnp.stack(
        [net(params, x, y, 0.4) for x, y in zip(log_ratio[:20], a[:20], strict=True)]
    )
    np.testing.assert_allclose(whole[:20], one_by_one, rtol=1e-5, atol=1e-6)
    square = net(params, log_ratio.reshape(61, 5), a.reshape(61, 5), 0.4)
    np.testing.assert_allclose(square.ravel(), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("clock", "count"), [(False, 1_152), (True, 2_176)])
def test_sizes_are_the_papers(clock, count):
    params = Drift(clock=clock).init(jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(params)) == count


def test_the_clock_moves_a_drift_and_nothing_else_does():
    log_ratio, a = map(jnp.asarray, GRID)
    timely, timeless = DRIFTS["clock"], DRIFTS["on-clipping"]
    params = weights(timely)
    early, late = timely(params, log_ratio, a, 0.1), timely(params, log_ratio, a, 0.9)
    assert jnp.abs(early - late).max() > 0.1
    # At the start of a lifetime, n/N = 0, it equals a drift without a clock.
    first = {"hidden": params["hidden"][:8], "out": params["out"]}
    start = timely(params, log_ratio, a, 0.0)
    np.testing.assert_allclose(start, timeless(first, log_ratio, a), atol=1e-6)


def test_a_drift_without_weights_is_clipping_to_the_bit():
    net = DRIFTS["on-clipping"]
    zeros = jax.tree.map(jnp.zeros_like, weights(net))
    log_ratio, a = map(jnp.asarray, GRID)
    np.testing.assert_array_equal(
        net(zeros, log_ratio, a), clipping_drift(jnp.exp(log_ratio), a, 0.2)
    )


def test_the_search_begins_at_clipping_where_mirrored_drifts_differ():
    """Regression: with all parameters 0, a drift and its mirror image were identical."""
    net, key = DRIFTS["on-clipping"], jax.random.key(1)
    start = net.init(jax.random.key(0))
    log_ratio, a = map(jnp.asarray, GRID)
    np.testing.assert_array_equal(
        net(start, log_ratio, a), clipping_drift(jnp.exp(log_ratio), a, 0.2)
    )

    def gap(around):
        noise = jax.tree.map(lambda x: 0.1 * jax.random.normal(key, x.shape), around)
        pair = [jax.tree.map(lambda x, z, s=s: x + s * z, around, noise) for s in (1, -1)]
        one, other = (net(params, log_ratio, a) for params in pair)
        return jnp.abs(one - other).max()

    assert gap(start) > 0.1
    assert gap(jax.tree.map(jnp.zeros_like, start)) == 0.0


def test_clipping_as_a_drift_is_the_minimum_of_ppo():
    log_ratio, a = GRID
    ratio = np.exp(log_ratio)
    clipped = np.minimum(ratio * a, np.clip(ratio, 0.8, 1.2) * a)
    found = ratio * a - clipping_drift(jnp.asarray(ratio), jnp.asarray(a), 0.2)
    np.testing.assert_allclose(found, clipped, rtol=1e-5, atol=1e-6)


def test_the_network_by_hand():
    net = Drift(hidden_size=2, on_clipping=False)
    hidden = np.arange(16, dtype=np.float32).reshape(8, 2) / 20 - 0.3
    out = np.array([[-0.7], [0.2]], np.float32)
    log_ratio, a = 0.3, -1.5
    r = np.exp(log_ratio)
    x = np.array([log_ratio, log_ratio**2, 1 - r, (1 - r) ** 2])
    x = np.concatenate([x, a * x])
    raw = float((np.tanh(x @ hidden) @ out)[0])
    expected = max(np.sign(raw) * max(abs(raw) - MARGIN, 0), 0)
    assert expected > 0.01
    found = net(
        {"hidden": jnp.asarray(hidden), "out": jnp.asarray(out)},
        jnp.float32(log_ratio),
        jnp.float32(a),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_discovered_form_by_hand():
    drift = DiscoveredDrift().drift
    good = 0.9 * (np.exp(1.2) - 1)
    expected = good - 2 * np.tanh(good / 2)
    np.testing.assert_allclose(drift(jnp.float32(1.2), jnp.float32(0.9)), expected, rtol=1e-5)
    bad = 1.2 * -0.9  # no drift: likelier bad actions lower the objective already
    assert drift(jnp.float32(1.2), jnp.float32(-0.9)) == 0.0 > bad - 0.6 * np.tanh(bad / 0.6)
    rare = -1.2 * -0.9
    expected = rare - 0.6 * np.tanh(rare / 0.6)
    np.testing.assert_allclose(drift(jnp.float32(-1.2), jnp.float32(-0.9)), expected, rtol=1e-5)


@pytest.mark.parametrize("advantage", [-2.0, 0.0, 1.3])
def test_the_discovered_form_vanishes_with_its_gradient_at_ratio_one(advantage):
    value, slope = jax.value_and_grad(DiscoveredDrift().drift)(0.0, jnp.float32(advantage))
    assert value == 0.0 and slope == 0.0


# Learners.


ENV = TwoStates()


def played(learner, state):
    level = jax.vmap(ENV.sample_level)(jax.random.split(jax.random.key(5), 4))
    level = jax.tree.map(lambda x: x[:, None], level)
    return rollout(jax.random.key(6), ENV, learner, state, level, 8)[0]


def learned(learner, key=3):
    """Update a learner once on its own rollout."""
    state = learner.init(jax.random.key(key))
    batch = played(learner, state)
    return learner.update(jax.random.key(7), state, batch, jnp.ones(4))


def assert_close(found, expected):
    for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def by_ppo():
    return learned(ppo.tiny(ENV))


@pytest.mark.thorough
def test_a_drift_without_weights_learns_as_ppo_does(by_ppo, tmp_path):
    net = Drift(hidden_size=4)
    zeros = jax.tree.map(jnp.zeros_like, net.init(jax.random.key(0)))
    save_rule(tmp_path / "none.npz", net, zeros, {})
    learner = lpo.build(ENV, agent=ppo.tiny(ENV), rule=str(tmp_path / "none.npz"))
    found, _ = learned(learner)
    assert_close(found.params, by_ppo[0].params)


@pytest.mark.thorough
def test_other_surrogates_learn_otherwise(by_ppo):
    for learner in (dpo.tiny(ENV), replace(lpo.tiny(ENV), net=Drift(on_clipping=False))):
        learner = replace(learner, num_epochs=2) if isinstance(learner, ppo.PPO) else learner
        found, metrics = learned(learner)
        moved = [
            jnp.abs(x - y).max()
            for x, y in zip(*map(jax.tree.leaves, (found.params, by_ppo[0].params)), strict=True)
        ]
        assert max(moved) > 0 and np.isfinite(metrics["loss"])


def test_a_clock_needs_the_length_of_a_life():
    learner = replace(lpo.tiny(ENV), net=Drift(hidden_size=4, clock=True), num_updates=0)
    with pytest.raises(ValueError, match="set num_updates to the number of updates"):
        learner.init(jax.random.key(0))
    state = replace(learner, num_updates=9).init(jax.random.key(0))
    assert state.lifetime == 9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Drift(hidden_size=0), "a drift's hidden_size must be at least 1, got 0"),
        (lambda: Drift(clip=0.0), "a drift's clip must be above 0, got 0.0"),
        (lambda: DiscoveredDrift(alpha=0.0), "surrogate.alpha must be above 0, got 0.0"),
        (
            lambda: lpo.build(ENV, rule="grid-lpg"),
            "which the learner lpg uses; a rule of kind 'drift'",
        ),
        (lambda: lpo.build(ENV, rule="x.npz", net=Drift(clip=0.3)), "leave the fields of net"),
    ],
)
def test_bad_input_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
