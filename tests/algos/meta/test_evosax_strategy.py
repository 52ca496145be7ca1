"""Evolution strategies, against the gradient that they estimate, and shaping of fitness."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.meta.evosax_strategy import MIRRORED, Strategy, shaped, strategies

LIKE = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2))}
TARGET = jnp.array([0.5, -1.0, 0.3, 0.0, 0.7, -0.2, 0.9])


def flat(tree):
    return jnp.concatenate([tree["a"], tree["b"].ravel()])


def quality(tree):
    """Return the quality, which is maximised; its gradient at x is `TARGET - x`."""
    return -0.5 * jnp.sum((flat(tree) - TARGET) ** 2)


def step(strategy, key, population):
    """Return the mean after one generation that starts at 0."""
    key_init, key_ask, key_tell = jax.random.split(key, 3)
    state = strategy.init(key_init, LIKE, population)
    candidates, state = strategy.ask(key_ask, state, LIKE, population)
    state = strategy.tell(key_tell, state, candidates, jax.vmap(quality)(candidates))
    return flat(strategy.mean(state, LIKE))


def test_the_mean_moves_along_the_analytic_gradient_of_a_quadratic(monkeypatch):
    """It does in expectation, with raw fitness; plain gradient ascent exposes the estimate."""
    import optax

    monkeypatch.setattr(Strategy, "_optimizer", lambda self: optax.sgd(1.0))
    strategy = Strategy(sigma=0.3, shaping="none")
    keys = jax.random.split(jax.random.key(0), 4000)
    steps = jax.jit(jax.vmap(lambda key: step(strategy, key, 8)))(keys)
    error = np.asarray(steps.std(0) / np.sqrt(len(keys)))
    np.testing.assert_array_less(np.abs(steps.mean(0) - TARGET), 4 * error)
    assert error.max() < 0.05  # so that a wrong factor or sign is detected


@pytest.mark.thorough
def test_mirrored_candidates_stand_half_a_population_apart():
    for name in MIRRORED:
        strategy = Strategy(name)
        state = strategy.init(jax.random.key(0), LIKE, 6)
        candidates, _ = strategy.ask(jax.random.key(1), state, LIKE, 6)
        rows = jax.vmap(flat)(candidates)
        np.testing.assert_allclose(rows[:3], -rows[3:], atol=1e-6)
        assert jnp.abs(rows).max() > 0


def test_sigma_is_the_deviation_of_the_candidates():
    strategy = Strategy(sigma=0.2)
    state = strategy.init(jax.random.key(0), LIKE, 4000)
    candidates, _ = strategy.ask(jax.random.key(1), state, LIKE, 4000)
    np.testing.assert_allclose(jax.vmap(flat)(candidates).std(), 0.2, rtol=0.02)


def test_a_tie_moves_nothing():
    strategy = Strategy()
    state = strategy.init(jax.random.key(0), LIKE, 6)
    candidates, asked = strategy.ask(jax.random.key(1), state, LIKE, 6)
    # Exactly 0: Adam would turn the smallest rounding error into a full step.
    for fitness in (jnp.zeros(6), jnp.array([1.0, 2.0, jnp.nan, 1.0, 2.0, jnp.nan])):
        told = strategy.tell(jax.random.key(2), asked, candidates, fitness)
        np.testing.assert_allclose(flat(strategy.mean(told, LIKE)), 0.0, atol=0)


def test_swapping_the_members_of_all_pairs_changes_nothing():
    strategy = Strategy()
    state = strategy.init(jax.random.key(0), LIKE, 6)
    candidates, asked = strategy.ask(jax.random.key(1), state, LIKE, 6)
    fitness = jnp.array([3.0, 1.0, 2.0, 1.0, 5.0, 2.5])
    swapped = jax.tree.map(lambda x: jnp.roll(x, 3, axis=0), candidates)
    one = strategy.tell(jax.random.key(2), asked, candidates, fitness)
    other = strategy.tell(jax.random.key(2), asked, swapped, jnp.roll(fitness, 3))
    np.testing.assert_allclose(
        flat(strategy.mean(one, LIKE)), flat(strategy.mean(other, LIKE)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("shaping", "expected"),
    [
        ("pair-rank", [0.5, 0.0, 0.5, -0.5, 0.0, -0.5]),
        ("centred-rank", [0.5, -0.1, 0.3, 0.1, -0.1, -0.5]),
        ("none", [4.0, 1.0, 3.0, 2.0, 1.0, 1.0]),
    ],
)
def test_shaping_by_hand(shaping, expected):
    fitness = jnp.array([4.0, 1.0, 3.0, 2.0, 1.0, jnp.nan])
    expected = np.array(expected)
    if shaping == "centred-rank":  # ranks 5, 1.5, 4, 3, 1.5, 0 of 0..5
        expected = np.array([5, 1.5, 4, 3, 1.5, 0]) / 5 - 0.5
    np.testing.assert_allclose(shaped(fitness, shaping), expected, atol=1e-6)


def test_the_released_step_of_open_es_by_hand():
    """With pair ranks, Adam's first step moves every parameter by the learning rate."""
    strategy = Strategy(learning_rate=0.01, sigma=0.1)
    moved = step(strategy, jax.random.key(3), 8)
    np.testing.assert_allclose(jnp.abs(moved), 0.01, rtol=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["open-es", "pgpe", "snes", "sep-cma-es"])
def test_strategies_climb_the_quadratic(name):
    shaping = "pair-rank" if name in MIRRORED else "centred-rank"
    strategy = Strategy(name, learning_rate=0.05, sigma=0.2, shaping=shaping)

    def generation(state, key):
        key_ask, key_tell = jax.random.split(key)
        candidates, state = strategy.ask(key_ask, state, LIKE, 16)
        fitness = jax.vmap(quality)(candidates)
        return strategy.tell(key_tell, state, candidates, fitness), ()

    @jax.jit
    def climb():
        start = strategy.init(jax.random.key(0), LIKE, 16)
        end, _ = jax.lax.scan(generation, start, jax.random.split(jax.random.key(1), 60))
        return end

    end = climb()
    assert quality(strategy.mean(end, LIKE)) > 0.25 * quality(LIKE)
    leaves = [x for x in jax.tree.leaves(end) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert all(jnp.isfinite(x).all() for x in leaves)


@pytest.mark.thorough
def test_step_sizes_fall_to_their_ends():
    strategy = Strategy(sigma=0.2, sigma_decay=0.5, sigma_end=0.06)
    state = strategy.init(jax.random.key(0), LIKE, 4)
    sigmas = []
    for i in range(5):
        candidates, state = strategy.ask(jax.random.key(i), state, LIKE, 4)
        state = strategy.tell(jax.random.key(i), state, candidates, jnp.arange(4.0))
        sigmas.append(float(state.std))
    # evosax reads the schedule before it counts the generation, so the first value occurs twice.
    np.testing.assert_allclose(sigmas, [0.2, 0.1, 0.06, 0.06, 0.06], rtol=1e-5)


@pytest.mark.thorough
def test_every_strategy_that_is_offered_asks_and_tells():
    for name in strategies():
        strategy = Strategy(name, shaping="centred-rank")
        moved = jax.eval_shape(lambda key, s=strategy: step(s, key, 8), jax.random.key(0))
        assert moved.shape == (7,), name


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Strategy("open-se"), "unknown evolution strategy 'open-se'; did you mean"),
        (lambda: Strategy("snes"), "compares mirrored candidates, but snes has none"),
        (lambda: Strategy(sigma=0.0), "strategy.sigma must be above 0"),
        (lambda: Strategy(beta1=1.0), r"strategy.beta1 must lie in \[0, 1\)"),
        (lambda: Strategy(sigma_end=-1.0), "strategy.sigma_end must be 0 or more"),
        (lambda: Strategy().init(jax.random.key(0), LIKE, 7), "must be even, got 7"),
    ],
)
def test_bad_input_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
