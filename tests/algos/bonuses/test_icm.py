"""Curiosity and RIDE: their formulas, and the training data of their models."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.bonuses import icm, ride
from rlgen.algos.bonuses.training import Training
from rlgen.testing import Probe
from tests.standins.rollouts import check_what_counts, with_successors

T, N = 16, 6
KEY = jax.random.key(0)
ONES = jnp.ones(N)
BONUS = icm.tiny(Probe())


def by_hand(head, x):
    """Apply a ReLU hidden layer and a linear output layer, in NumPy."""
    hidden = np.maximum(x @ np.asarray(head["hidden"]) + np.asarray(head["hidden_bias"]), 0)
    return hidden @ np.asarray(head["out"]) + np.asarray(head["out_bias"])


@pytest.fixture(scope="module")
def judged():
    """A rollout, a state after one update, its features, [T + 1, N, d], and its bonus."""
    data = with_successors(0, T, N)
    apply = jax.jit(BONUS.apply)
    state = apply(KEY, BONUS.init(KEY, N), data, ONES)[0]
    phi = np.asarray(BONUS.dynamics.look(state.params, data).phi).reshape(T + 1, N, -1)
    return data, state, phi, apply(KEY, state, data, ONES)


@pytest.mark.thorough
def test_curiosity_is_how_far_the_forward_model_is_off(judged):
    data, state, phi, (_, bonus, metrics) = judged
    taken = np.eye(2)[np.asarray(data.action)]
    guess = by_hand(state.params["forward"], np.concatenate([phi[:-1], taken], -1))
    error = np.linalg.norm(guess - phi[1:], axis=-1)
    np.testing.assert_allclose(bonus, np.where(data.done, 0, error), rtol=1e-4, atol=1e-5)
    assert set(metrics) == {"inverse_loss", "inverse_accuracy", "forward_loss"}


def test_the_losses_are_means_over_the_pairs_that_are_of_one_episode(judged):
    data, state, phi, _ = judged
    every = replace(BONUS.dynamics, training=Training(share=1.0, num_minibatches=1))
    weight = ONES.at[2].set(0.0)
    told = jax.jit(replace(BONUS, dynamics=every).apply)(KEY, state, data, weight)[2]
    counts = ~np.asarray(data.done) & (np.arange(N) != 2)
    logits = by_hand(state.params["inverse"], np.concatenate([phi[:-1], phi[1:]], -1))
    log_prob = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(log_prob, np.asarray(data.action)[..., None], -1)[..., 0]
    np.testing.assert_allclose(told["inverse_loss"], -chosen[counts].mean(), rtol=1e-4)
    right = logits.argmax(-1) == data.action
    np.testing.assert_allclose(told["inverse_accuracy"], right[counts].mean(), rtol=1e-4)
    taken = np.eye(2)[np.asarray(data.action)]
    guess = by_hand(state.params["forward"], np.concatenate([phi[:-1], taken], -1))
    error = np.linalg.norm(guess - phi[1:], axis=-1)
    np.testing.assert_allclose(told["forward_loss"], error[counts].mean(), rtol=1e-4)


@pytest.mark.thorough
@pytest.mark.parametrize("module", [icm, ride])
def test_nothing_is_learned_across_episodes_or_from_slots_without_weight(module):
    bonus = module.tiny(Probe())
    bonus = replace(bonus, dynamics=replace(bonus.dynamics, training=Training(share=1.0)))
    state = bonus.init(KEY, N)
    weight = ONES.at[0].set(0.0)
    data = with_successors(0, T, N)
    data = data._replace(truncated=data.truncated.at[-1, 3].set(True))

    @jax.jit
    def learn(data):
        new = bonus.apply(KEY, state, data, weight)[0]
        return new.networks if module is ride else new  # each slot has its own counts

    check_what_counts(learn, data)


@pytest.mark.thorough
@pytest.mark.parametrize("through", [True, False])
def test_whether_the_encoder_learns_from_the_forward_model(through):
    changes = {"inverse_coef": 0.0, "train_through": through}
    bonus = replace(BONUS, dynamics=replace(BONUS.dynamics, **changes))
    state = bonus.init(KEY, N)
    new = jax.jit(bonus.apply)(KEY, state, with_successors(0, T, N), ONES)[0]
    moved = {
        name: any((a != b).any() for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for name, pair in {k: (state.params[k], new.params[k]) for k in state.params}.items()
    }
    assert moved == {"encoder": through, "forward": True, "inverse": False}


def test_what_can_be_foreseen_is_soon_not_paid_and_what_cannot_is():
    """The action determines the next observation in half of the slots; it is random in the rest."""
    rng = np.random.default_rng(0)
    data = with_successors(0, T, N)
    foreseen = np.arange(N) < N // 2
    obs = np.zeros((T + 1, N, 4))
    obs[..., 3] = ~foreseen
    which = np.where(foreseen[None], np.asarray(data.action), rng.integers(0, 2, (T, N)))
    obs[1:, :, :2] = np.eye(2)[which]
    obs = jnp.asarray(obs, jnp.float32)
    data = data._replace(obs=obs[:-1], last_obs=obs[-1:], terminated=jnp.zeros((T, N), bool))
    data = data._replace(truncated=data.terminated)
    training = Training(share=1.0, num_minibatches=4, learning_rate=3e-3)
    # Without a loss the encoder stays fixed, so the bonus can only fall by better predictions.
    changes = {"train_through": False, "inverse_coef": 0.0, "hidden": 32, "training": training}
    bonus = replace(BONUS, dynamics=replace(BONUS.dynamics, **changes))

    @jax.jit
    def run():
        def update(state, key):
            state, paid, _ = bonus.apply(key, state, data, ONES)
            return state, paid

        return jax.lax.scan(update, bonus.init(KEY, N), jax.random.split(KEY, 80))[1]

    paid = np.asarray(run())
    assert paid[-1][:, foreseen].mean() < 0.2 * paid[0][:, foreseen].mean()
    assert paid[-1][:, ~foreseen].mean() > 3 * paid[-1][:, foreseen].mean()


@pytest.mark.thorough
@pytest.mark.parametrize("counted", [True, False])
def test_ride_pays_how_far_a_step_moved_and_less_for_each_return(counted, judged):
    _, networks, _, _ = judged
    bonus = ride.build(Probe(), counted=counted)
    bonus = replace(bonus, dynamics=BONUS.dynamics)
    cells = np.random.default_rng(5).integers(0, 5, (T + 1, N))  # few, so that they recur
    obs = jnp.asarray(np.random.default_rng(6).normal(size=(5, 4))[cells], jnp.float32)
    data = with_successors(0, T, N)._replace(obs=obs[:-1], last_obs=obs[-1:])
    state = bonus.init(KEY, N)._replace(networks=networks)
    found = np.asarray(jax.jit(bonus.apply)(KEY, state, data, ONES)[1])
    phi = np.asarray(BONUS.dynamics.look(networks.params, data).phi).reshape(T + 1, N, -1)
    impact = np.linalg.norm(phi[1:] - phi[:-1], axis=-1)
    for n in range(N):
        times = np.zeros(5)
        for t in range(T):
            if data.first[t, n]:
                times[:] = 0
                times[cells[t, n]] += 1
            if not data.done[t, n]:
                times[cells[t + 1, n]] += 1
            share = times[cells[t + 1, n]] ** -0.5 if counted and not data.done[t, n] else 1.0
            paid = 0.0 if data.done[t, n] else impact[t, n] * share
            np.testing.assert_allclose(found[t, n], paid, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("component", "field", "value", "message"),
    [
        (BONUS.dynamics, "num_features", 0, "dynamics.num_features must be at least 1, got 0"),
        (BONUS.dynamics, "hidden", 0, "dynamics.hidden must be at least 1, got 0"),
        (BONUS.dynamics, "inverse_coef", -1.0, "dynamics.inverse_coef must be 0 or more, got -1.0"),
        (BONUS, "dynamics", replace(BONUS.dynamics, forward_coef=0.0), "forward_coef must be abo"),
    ],
)
def test_what_makes_no_sense_is_refused(component, field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(component, **{field: value})
