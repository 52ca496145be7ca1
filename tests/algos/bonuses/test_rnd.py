"""Random network distillation and NovelD: novelty, its decay, and the training data."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry, testing
from rlgen.algos.bonuses import encoders, episodic, noveld, rnd
from rlgen.algos.bonuses.training import Training
from rlgen.envs import chain
from rlgen.testing import Probe
from tests.standins.rollouts import with_successors

T, N = 16, 6
KEY = jax.random.key(0)
ONES = jnp.ones(N)
BONUS = rnd.tiny(Probe())


def with_obs(data, obs):
    """Return the rollout with the given observations, [T + 1, N, 4]."""
    obs = jnp.asarray(obs, jnp.float32)
    return data._replace(obs=obs[:-1], last_obs=obs[-1:])


@pytest.fixture(scope="module")
def judged():
    """A rollout, a state after one update, and the result of applying the bonus to the rollout."""
    data = with_successors(0, T, N)
    state = jax.jit(lambda: BONUS.init(KEY, N))()
    apply = jax.jit(BONUS.apply)
    state = apply(KEY, state, data, ONES)[0]
    return data, state, apply(KEY, state, data, ONES)


@pytest.mark.thorough
def test_what_is_paid_is_the_error_on_the_successor_before_learning(judged):
    data, state, (_, bonus, metrics) = judged
    obs = jnp.concatenate([data.obs, data.last_obs]).reshape(-1, 4)
    found, target = (
        np.asarray(BONUS.net.apply(Probe(), params, obs)).reshape(T + 1, N, -1)
        for params in (state.fit.params, state.target)
    )
    error = np.linalg.norm(found - target, axis=-1)[1:]
    np.testing.assert_allclose(bonus, np.where(data.done, 0, error), rtol=1e-4, atol=1e-6)
    squared = replace(BONUS, norm="sq")
    again = jax.jit(squared.apply)(KEY, state, data, ONES)[1]
    np.testing.assert_allclose(again, np.asarray(bonus) ** 2, rtol=1e-4, atol=1e-6)
    assert metrics["rnd_loss"] > 0


def test_novelty_wears_off_where_it_was_seen_and_nowhere_else():
    training = Training(share=1.0, num_minibatches=4, learning_rate=1e-2)
    bonus = rnd.build(Probe(), num_outputs=16, training=training)
    # Two observations in the slots with weight, two others in the slots without.
    seen = np.arange(N) < N // 2
    which = np.random.default_rng(0).integers(0, 2, (T + 1, N)) + np.where(seen, 0, 2)
    data = with_obs(with_successors(0, T, N), np.eye(4)[which])
    weight = jnp.asarray(seen, jnp.float32)

    @jax.jit
    def run():
        def update(state, key):
            state, paid, metrics = bonus.apply(key, state, data, weight)
            return state, (paid, metrics["rnd_loss"])

        return jax.lax.scan(update, bonus.init(KEY, N), jax.random.split(KEY, 50))[1]

    paid, loss = (np.asarray(x) for x in run())
    assert loss[-1] < 0.01 * loss[0]
    alive = ~np.asarray(data.done)
    before, after = ([paid[k][alive & own[None]].mean() for own in (seen, ~seen)] for k in (0, -1))
    assert after[0] < 0.1 * before[0]
    assert after[1] > 0.5 * before[1]


def test_nothing_is_learned_from_slots_without_weight_or_beyond_the_rollout(judged):
    data, state, _ = judged
    bonus = replace(BONUS, training=Training(share=1.0, num_minibatches=2))
    weight = ONES.at[0].set(0.0)
    learn = jax.jit(lambda data, weight: bonus.apply(KEY, state, data, weight)[0])
    plain = learn(data, weight)
    wild = data._replace(obs=data.obs.at[:, 0].set(1e6), last_obs=data.last_obs - 1e6)
    testing.assert_same(learn(wild, weight), plain, "trained on data that must not count")
    testing.assert_same(plain.target, state.target, "the target network changed")
    testing.assert_same(learn(data, 0 * weight), state, "a batch without weight changed the state")
    with pytest.raises(AssertionError, match="it did"):
        testing.assert_same(plain, state, "it did")


@pytest.mark.thorough
@pytest.mark.parametrize("gate", ["first", "isqrt", "none"])
def test_noveld_pays_the_gain_in_novelty_once_an_episode(gate, judged):
    _, state, _ = judged
    bonus = noveld.build(Probe(), gate=gate, key="observation" * (gate != "none"), scale=0.5)
    bonus = replace(bonus, novelty=BONUS)
    cells = np.random.default_rng(5).integers(0, 5, (T + 1, N))  # few, so that they recur
    values = np.random.default_rng(6).normal(size=(5, 4))
    data = with_obs(with_successors(0, T, N), values[cells])
    start = bonus.init(KEY, N)._replace(networks=state)
    found = np.asarray(jax.jit(bonus.apply)(KEY, start, data, ONES)[1])
    n = np.asarray(BONUS.judge(state, data).novelty)
    for slot in range(N):
        times = np.zeros(5)
        for t in range(T):
            if data.first[t, slot]:
                times[:] = 0
                times[cells[t, slot]] += 1
            if data.done[t, slot]:
                assert found[t, slot] == 0
                continue
            times[cells[t + 1, slot]] += 1
            seen = times[cells[t + 1, slot]]
            share = {"first": float(seen == 1), "isqrt": seen**-0.5, "none": 1.0}[gate]
            gain = max(n[t + 1, slot] - 0.5 * n[t, slot], 0) * share
            np.testing.assert_allclose(found[t, slot], gain, rtol=1e-4, atol=1e-6)


@pytest.mark.thorough
def test_where_everything_is_as_new_noveld_pays_no_return():
    same = with_obs(with_successors(0, T, N), np.ones((T + 1, N, 4)))
    gated, ungated = (noveld.build(Probe(), gate=gate, num_outputs=4) for gate in ("first", "none"))
    for bonus in (gated, replace(ungated, scale=1.0)):
        state = bonus.init(KEY, N)
        found = jax.jit(bonus.apply)(KEY, state, same, ONES)[1]
        np.testing.assert_allclose(found, 0.0, atol=1e-5)
    assert (jax.jit(ungated.apply)(KEY, ungated.init(KEY, N), same, ONES)[1] > 0).any()


@pytest.mark.parametrize(("share", "num"), [(1.0, 48), (0.25, 12), (0.01, 4)])
def test_a_share_of_the_rows_is_drawn_without_repetition(share, num):
    rows = Training(share=share, num_minibatches=4)._draw(KEY, 48)
    assert rows.shape == (4, num // 4)
    assert len(np.unique(rows)) == num and np.min(rows) >= 0 and np.max(rows) < 48
    other = Training(share=share, num_minibatches=4)._draw(jax.random.key(1), 48)
    assert share == 1 or not np.array_equal(rows, other)
    # Each minibatch spans the rollout.
    assert (np.ptp(rows, axis=1) > 48 / 2).all() or share == 0.01


def test_the_loss_is_the_mean_over_the_rows_that_count():
    worth = jnp.arange(8.0)
    valid = jnp.arange(8) % 3 == 0

    def loss(params, rows):
        each = params * worth[rows]
        return each, {"loss": each}

    training = Training(share=1.0, num_minibatches=1, num_epochs=1)
    fit, metrics = training.run(KEY, training.begin(jnp.float32(2.0)), loss, valid)
    np.testing.assert_allclose(metrics["loss"], 2 * (0 + 3 + 6) / 3, rtol=1e-6)
    # Adam's first step has the length of the learning rate.
    np.testing.assert_allclose(fit.params, 2 - training.learning_rate, rtol=1e-6)
    idle = Training(share=0.0)
    assert idle.run(KEY, fit, loss, valid) == (fit, {})


@pytest.mark.thorough
def test_integer_states_are_distinguished():
    env = chain.Chain()
    assert isinstance(encoders.encoder_for(env), encoders.Embedding)
    rows = encoders.Embedding().init(KEY, env, 8)
    found = encoders.Embedding().apply(env, rows, jnp.array([3, 5, 3]))
    np.testing.assert_array_equal(found[0], found[2])
    assert np.linalg.norm(found[0] - found[1]) > 1
    testing.check_bonus(env, rnd.RND(env, encoders.Embedding(), num_outputs=4), learns=True)


@pytest.mark.parametrize(
    ("component", "field", "value", "message"),
    [
        (BONUS, "norm", "l1", "rnd: norm='l1' is not one of l2, sq"),
        (BONUS, "num_outputs", 0, "rnd: num_outputs must be at least 1, got 0"),
        (BONUS, "net", encoders.Embedding(), "an embedding needs an environment with num_states"),
        (noveld.NovelD(BONUS), "scale", -1.0, "noveld: scale must be 0 or more, got -1.0"),
        (Training(), "share", 1.5, "training.share must lie in"),
        (Training(), "num_epochs", 0, "training.num_epochs must be at least 1, got 0"),
        (Training(), "learning_rate", 0.0, "training.learning_rate must be above 0"),
        (Training(), "max_grad_norm", -1.0, "training.max_grad_norm must be 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(component, field, value, message, monkeypatch):
    monkeypatch.setattr(registry, "_able", lambda ability: ["chain"])  # else it builds all envs
    component = replace(component)
    object.__setattr__(component, field, value)  # a call would be stopped by the type checker
    with pytest.raises(ValueError, match=message):
        component.__post_init__()


def test_names_of_gates_and_what_they_need():
    with pytest.raises(ValueError, match="noveld: gate='once' is not one of first, isqrt, none"):
        noveld.build(Probe(), gate="once")
    bonus = noveld.build(Probe())
    assert isinstance(bonus.gate, episodic.Episodic) and bonus.pairs and bonus.features == ()
