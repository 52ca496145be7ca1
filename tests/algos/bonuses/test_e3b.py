"""E3B: its ellipses against dense inverses, the training data of its features, its products."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.algos.bonuses import e3b, ellipse, rnd
from rlgen.algos.bonuses.training import Training
from rlgen.bonuses import parse, product
from rlgen.envs import maze
from rlgen.protocols import Actor
from rlgen.rollout import Record, rollout
from rlgen.testing import Probe
from rlgen.types import Visit
from tests.standins.rollouts import check_what_counts, with_successors

T, N, D, RIDGE = 24, 6, 5, 0.1
KEY = jax.random.key(0)
FORMS = ("scan", "dual")
Steps: Any = ellipse.Steps  # holds NumPy arrays here


def dense(phi, begin, first, known, covariance):
    """Return one slot's bonuses and its final C, computed in double precision."""
    bonuses = []
    for t in range(len(phi)):
        if first[t]:
            covariance = RIDGE * np.eye(phi.shape[1])
            if begin is not None:
                covariance += np.outer(begin[t], begin[t])
        reach = phi[t] @ np.linalg.inv(covariance) @ phi[t]
        bonuses.append(reach if known[t] else 0.0)
        if known[t]:
            covariance = covariance + np.outer(phi[t], phi[t])
    return np.array(bonuses), covariance


@pytest.fixture(scope="module")
def steps():
    """Features of episodes, some of which continue from an earlier rollout."""
    data = with_successors(0, T, N)
    rng = np.random.default_rng(2)
    phi = rng.normal(size=(T + 1, N, D)).astype(np.float32)
    first = np.asarray(data.first).copy()
    first[0] = np.arange(N) % 2 == 0
    return Steps(phi[1:], phi[:-1], first, ~np.asarray(data.done))


@partial(jax.jit, static_argnums=2)
def follow(inverse, steps, form):
    return ellipse.follow(inverse, steps, RIDGE, form, chunk=10)  # 10 divides none of the lengths


@pytest.mark.thorough
@pytest.mark.parametrize("judged", ["successor", "current"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_dense_inverse_and_a_rollout_can_be_split(form, judged, steps):
    if judged == "current":
        steps = Steps(steps.begin, (), steps.first, np.ones_like(steps.known))
    past = np.random.default_rng(3).normal(size=(N, 7, D))
    start = RIDGE * np.eye(D) + np.einsum("nti,ntj->nij", past, past)
    inverse = np.linalg.inv(start).astype(np.float32)
    whole = follow(inverse, steps, form)
    halves = [jax.tree.map(lambda x, k=k: x[k : k + T // 2], steps) for k in (0, T // 2)]
    one = follow(inverse, halves[0], form)
    two = follow(one.inverse, halves[1], form)
    for n in range(N):
        begin = None if judged == "current" else steps.begin[:, n]
        of_slot = (steps.phi[:, n], begin, steps.first[:, n], steps.known[:, n])
        bonus, covariance = dense(*of_slot, start[n])
        np.testing.assert_allclose(whole.bonus[:, n], bonus, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(whole.inverse[n] @ covariance, np.eye(D), atol=2e-3)
    split = np.concatenate([one.bonus, two.bonus])
    np.testing.assert_allclose(split, whole.bonus, rtol=1e-3, atol=1e-4)
    assert not whole.resets.any()


def test_the_bonuses_of_an_episode_add_up_to_the_growth_of_the_ellipse(steps):
    first = np.arange(T)[:, None] == np.zeros((1, N))
    found = follow(
        ellipse.round_ellipse(N, D, RIDGE),
        Steps(steps.phi, (), first, np.ones_like(first)),
        "dual",
    )
    gram = np.einsum("tni,tnj->nij", steps.phi, steps.phi).astype(np.float64)
    volume = np.linalg.slogdet(RIDGE * np.eye(D) + gram)[1] - D * np.log(RIDGE)
    np.testing.assert_allclose(np.log1p(found.bonus).sum(0), volume, rtol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_rounding_does_not_add_up_over_ten_thousand_steps(form):
    size, length = 64, 10_000
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, size))
    phi = states[rng.integers(0, 200, length)] + 0.01 * rng.normal(size=(length, size))
    phi *= size**0.5 / np.linalg.norm(phi, axis=1, keepdims=True)
    phi = phi.astype(np.float32)[:, None]
    first = (np.arange(length) == 0)[:, None]
    steps = Steps(phi, (), first, np.ones_like(first))
    found = follow(ellipse.round_ellipse(1, size, RIDGE), steps, form)
    assert np.isfinite(found.bonus).all() and (np.asarray(found.bonus) >= 0).all()
    covariance = RIDGE * np.eye(size) + np.einsum(
        "ti,tj->ij", phi[:-1, 0], phi[:-1, 0], dtype=float
    )
    last = phi[-1, 0] @ np.linalg.inv(covariance) @ phi[-1, 0]
    np.testing.assert_allclose(found.bonus[-1, 0], last, rtol=1e-2)
    if form == "scan":
        np.testing.assert_array_equal(found.inverse, found.inverse.mT)


@pytest.mark.parametrize("form", FORMS)
def test_non_finite_features_have_no_bonus_and_reset_only_their_slot(form, steps):
    inverse = ellipse.round_ellipse(N, D, RIDGE)
    plain = follow(inverse, steps, form)
    t = int(np.flatnonzero(steps.known[:, 4])[3])
    wild = steps.phi.copy()
    wild[t, 4] = np.inf
    found = follow(inverse, steps._replace(phi=wild), form)
    others = np.arange(N) != 4
    np.testing.assert_array_equal(found.resets, 1 - others)
    assert np.isfinite(found.bonus).all() and found.bonus[t, 4] == 0
    assert np.isfinite(found.inverse).all()
    np.testing.assert_allclose(found.bonus[:, others], plain.bonus[:, others], rtol=1e-5)


@pytest.mark.parametrize("credit", ["successor", "current"])
def test_positions_are_counted_as_one_hot_features_would_be(credit):
    num = maze.tiny().num_positions()
    rng = np.random.default_rng(4)
    data = with_successors(4, T, N)
    cell = rng.integers(0, 4, (T + 1, N)).astype(np.int32)
    after = np.where(data.done, rng.integers(0, 4, (T, N)), cell[1:]).astype(np.int32)
    visit = Visit(jnp.asarray(cell[:-1]), jnp.asarray(after))
    data = data._replace(visits={"position": visit})
    bonus = e3b.build(maze.tiny(), embedding="position", credit=credit, ridge=0.5)
    state = bonus.init(KEY, N)
    found = jax.jit(bonus.apply)(KEY, state, data, jnp.ones(N))[1]
    for n in range(N):
        times = np.zeros(num)
        for t in range(T):
            if data.first[t, n]:
                times[:] = 0
                times[cell[t, n]] = credit == "successor"
            judged = (after if credit == "successor" else cell)[t, n]
            np.testing.assert_allclose(found[t, n], 1 / (times[judged] + 0.5), rtol=1e-5)
            times[judged] += 1


@pytest.mark.thorough
def test_credit_says_which_observation_a_step_is_paid_for():
    data = with_successors(0, T, N)
    current = replace(e3b.tiny(Probe()), embedding="random", credit="current")
    successor = replace(current, credit="successor")
    state: Any = current.init(KEY, N)
    phi = current.dynamics.look(state.networks.params, data).phi.reshape(T + 1, N, -1)
    power = (np.asarray(phi) ** 2).sum(-1)
    paid = {}
    bonuses = {"current": current, "successor": successor}
    bonuses["zeroed"] = replace(current, zero_first=True)
    for name, bonus in bonuses.items():
        paid[name] = np.asarray(jax.jit(bonus.apply)(KEY, state, data, jnp.ones(N))[1])
    first, done = np.asarray(data.first), np.asarray(data.done)
    np.testing.assert_allclose(power, phi.shape[-1], rtol=1e-3)  # keeps P in range
    np.testing.assert_allclose(paid["current"][first], power[:-1][first] / RIDGE, rtol=1e-5)
    np.testing.assert_array_equal(paid["zeroed"], np.where(first, 0, paid["current"]))
    later = np.where(done[:-1], 0, paid["current"][1:])
    np.testing.assert_allclose(paid["successor"][:-1], later, rtol=1e-3, atol=1e-4)
    assert (paid["successor"][-1] > 0).sum() == (~done[-1]).sum()


@pytest.mark.thorough
def test_nothing_is_learned_across_episodes_or_from_slots_without_weight():
    bonus = e3b.tiny(Probe())
    bonus = replace(bonus, dynamics=replace(bonus.dynamics, training=Training(share=1.0)))
    data = with_successors(0, T, N)
    data = data._replace(truncated=data.truncated.at[-1, 3].set(True))
    weight = jnp.ones(N).at[0].set(0.0)
    state = bonus.init(KEY, N)
    learn = jax.jit(lambda data: bonus.apply(KEY, state, data, weight)[0].networks)
    check_what_counts(learn, data)


class Aimless(Actor):
    """Actor that chooses random actions."""

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, 7)
        return carry, action, jnp.zeros(first.shape), jnp.zeros(first.shape)

    def value(self, state, carry, obs, first):
        return jnp.zeros(first.shape)


@pytest.mark.thorough
def test_inverse_dynamics_learn_which_action_was_taken_in_a_maze():
    env = maze.tiny()
    bonus = e3b.tiny(env)
    training = Training(share=1.0, num_epochs=1, num_minibatches=4, learning_rate=3e-3)
    bonus = replace(bonus, dynamics=replace(bonus.dynamics, num_features=16, training=training))

    @jax.jit
    def train(key):
        key_level, key_play, key_init, key_learn = jax.random.split(key, 4)
        level = jax.vmap(env.sample_level)(jax.random.split(key_level, 16))
        level = jax.tree.map(lambda x: x[:, None], level)
        record = Record(last_obs=True)
        data = rollout(key_play, env, Aimless(), (), level, 32, record)[0]

        def update(state, key):
            state, _, metrics = bonus.apply(key, state, data, jnp.ones(16))
            return state, metrics

        return jax.lax.scan(update, bonus.init(key_init, 16), jax.random.split(key_learn, 60))[1]

    metrics = train(KEY)
    chance = np.log(7)  # two actions turn, one moves, and four do nothing
    assert metrics["inverse_loss"][0] > 0.9 * chance
    assert metrics["inverse_loss"][-1] < 0.75 * chance
    assert metrics["inverse_accuracy"][-1] > 2 / 7


def test_without_learning_a_rollout_can_be_split_in_the_middle_of_episodes():
    bonus = replace(e3b.tiny(Probe()), embedding="random")
    data = with_successors(0, T, N)
    half = T // 2
    one = data._replace(last_obs=data.obs[half : half + 1])
    one, two = (
        jax.tree.map(lambda x, k=k: x[k : k + half], x._replace(last_obs=()))._replace(
            last_obs=x.last_obs
        )
        for k, x in ((0, one), (half, data))
    )
    apply = jax.jit(bonus.apply)
    state = bonus.init(KEY, N)
    whole = apply(KEY, state, data, jnp.ones(N))[1]
    state, before, _ = apply(KEY, state, one, jnp.ones(N))
    after = apply(KEY, state, two, jnp.ones(N))[1]
    assert not np.asarray(data.first)[half].all()
    np.testing.assert_allclose(np.concatenate([before, after]), whole, rtol=1e-3, atol=1e-4)


@pytest.mark.thorough
def test_products_are_of_one_and_the_same_state():
    env, data, weight = Probe(), with_successors(0, T, N), jnp.ones(N)
    both = product(e3b.tiny(env), rnd.tiny(env))
    state = both.init(KEY, N)
    key_left, key_right = jax.random.split(KEY)
    left = jax.jit(both.left.apply)(key_left, state.left, data, weight)[1]
    right = jax.jit(both.right.apply)(key_right, state.right, data, weight)[1]
    _, found, metrics = jax.jit(both.apply)(KEY, state, data, weight)
    np.testing.assert_allclose(found, left * right, rtol=1e-4)
    assert (np.asarray(found)[data.done] == 0).all()
    assert {"inverse_loss", "rnd_loss", "e3b_resets"} <= set(metrics)
    written: Any = parse("e3b*noveld/ungated", env)
    assert written.right.scale == 0.1 and written.right.gate == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ridge": 0.0}, "e3b: ridge must be above 0, got 0.0"),
        ({"chunk": 0}, "e3b: chunk must be at least 1, got 0"),
        ({"form": "fast"}, "form='fast' is not one of dual, scan"),
        ({"credit": "past"}, "credit='past' is not one of successor, current"),
        ({"embedding": "pixels"}, "embedding='pixels' is not one of inverse, random, position"),
        ({"zero_first": True}, "zero_first=True needs credit='current'"),
        ({"embedding": "position"}, "Probe has no position"),
    ],
)
def test_what_makes_no_sense_is_refused(fields, message, monkeypatch):
    monkeypatch.setattr(registry, "_able", lambda ability: ["maze"])  # else it builds all envs
    bonus = e3b.tiny(Probe())
    for field, value in fields.items():  # a call would be stopped by the type checker
        object.__setattr__(bonus, field, value)
    with pytest.raises(ValueError, match=message):
        bonus.__post_init__()
