"""NCC as a sampler: sweeps, steps of its distribution, and draws from the distribution."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from rlgen import testing
from rlgen.algos.samplers.ncc import NCC, Adversary, known_scores
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.types import NEW, REPLAY, Keys, Outcome
from tests.standins.numbers import Numbers
from tests.standins.programs import over_seeds

N, R, K, TRAIN = 4, 2, 20, 4
SWEEP = 3  # 20 rows at 8 levels per update
CYCLE = SWEEP + 1 + TRAIN


ENV = Numbers()
MEMORY = MaxMC().initial_state()
PER_SEED: Any = (0, None)
AXES = Keys(*PER_SEED)


def make(**fields):
    defaults = {"capacity": K, "floor": 1e-3, "train_updates": TRAIN}
    return NCC(ENV, Random(ENV), **(defaults | fields))


def first_slots(sampler):
    blank = jax.tree.map(lambda x: jnp.broadcast_to(x, (N, R)), sampler.example_level())
    return testing.new_slots(blank, jnp.float32(0), sampler.level_info())


def score_of(number):
    """Return a fixed score per level; a fifth of the levels give no evidence."""
    return jnp.where(number % 5 == 0, -jnp.inf, (number % 1000).astype(jnp.float32) / 1000)


def cycle(sampler, state, slots, keys, free, done):
    """Run one update of the loop; the memory of a level counts how often it was played."""
    state, slots = sampler.propose(keys, state, slots, free)
    unseen = free[:, None] & (slots.buffer_index < 0)
    slots = slots._replace(score_state=jnp.where(unseen, 0.0, slots.score_state) + 1)
    state = sampler.observe(keys, state, slots, score_of(slots.level["number"]), Outcome(done))
    return state, slots


def history(sampler, num_updates=4 * CYCLE, own=0, shared=0):
    """Return slots and states of a run, stacked over its updates."""

    def body(carry, t):
        keys = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, shared)))
        everyone = jnp.ones(N, bool)
        state, slots = carry
        carry = cycle(sampler, state, slots, keys, everyone, everyone)
        return carry, carry

    start = sampler.init(jax.random.key(own), MEMORY), first_slots(sampler)
    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 1))


@pytest.fixture(scope="module")
def ran():
    """States and slots of four cycles, as NumPy arrays."""
    return jax.tree.map(np.asarray, run(make()))


def test_the_turns_come_in_order_and_only_training_has_weight(ran):
    _, slots = ran
    position = np.arange(4 * CYCLE) % CYCLE
    training = position >= SWEEP + 1
    np.testing.assert_array_equal(slots.weight, np.repeat(training, N).reshape(-1, N))
    assert (slots.origin[:SWEEP] == NEW).all()  # the first sweep fills the buffer
    assert (slots.origin[position == SWEEP] == NEW).all()  # candidates
    assert (slots.origin[training] == REPLAY).all()


def test_every_row_is_scored_once_a_sweep_in_order(ran):
    states, slots = ran
    full = 0
    for begun in range(CYCLE, 4 * CYCLE, CYCLE):
        size = int(states.buffer.size[begun - 1])
        full += size == K
        swept = slots.buffer_index[begun : begun + SWEEP].ravel()
        np.testing.assert_array_equal(swept[:size], np.arange(size))
        # The rest of the last update repeats the last row, or holds new levels without a row.
        assert (np.isin(swept[size:], [-1, size - 1])).all()
        for t in range(begun, begun + SWEEP):
            row, number = slots.buffer_index[t], slots.level["number"][t]
            replayed = row >= 0
            held = states.buffer.level["number"][t - 1]
            np.testing.assert_array_equal(held[row[replayed]], number[replayed])
    assert full > 0


def test_the_best_levels_stay_and_bring_their_memory(ran):
    states, slots = ran
    final = jax.tree.map(lambda x: x[-1], states.buffer)
    met = np.unique(slots.level["number"][slots.origin == NEW])
    scores = np.asarray(score_of(met))
    best = met[np.argsort(-scores)][:K]
    assert final.size == K and set(final.level["number"]) == set(best)
    np.testing.assert_allclose(final.score, score_of(final.level["number"]))
    for number, plays in zip(final.level["number"], final.level_info.score_state, strict=True):
        times = (slots.level["number"] == number).reshape(4 * CYCLE, -1).any(1).sum()
        assert plays == times  # if a level is drawn twice in an update, the last play counts


def test_the_distribution_steps_once_a_cycle_and_stays_in_the_truncated_simplex(ran):
    y = ran[0].adversary.y.astype(np.float64)
    moved = np.flatnonzero(np.abs(np.diff(y, axis=0)).sum(1) > 0) + 1
    assert set(moved) <= set(range(SWEEP, 4 * CYCLE, CYCLE)) and len(moved) >= 3
    np.testing.assert_allclose(y.sum(1), 1, atol=1e-5)
    assert (y >= np.float32(1e-3)).all() and np.isfinite(y).all()


def climbed(sampler, score, num_steps=3000):
    """Return the distribution after many steps on fixed scores."""
    start = sampler.init(jax.random.key(0), MEMORY).adversary
    climb = jax.jit(
        lambda start, score: jax.lax.scan(
            lambda at, _: (sampler.ascend(at, score), None), start, None, num_steps
        )[0]
    )
    return np.asarray(climb(start, jnp.asarray(score, jnp.float32)).y, np.float64)


@pytest.mark.parametrize("per_level", [False, True])
def test_without_entropy_the_best_level_takes_all_and_with_much_all_are_alike(per_level):
    score = np.random.default_rng(1).permutation(K) / K
    greedy = climbed(make(entropy_coef=0.0, step_size=1.0, per_level=per_level), score)
    expected = np.full(K, 1e-3)
    expected[score.argmax()] = 1 - 1e-3 * (K - 1)
    np.testing.assert_allclose(greedy, expected, atol=1e-4)
    flat = climbed(make(entropy_coef=100.0, step_size=0.01), score)
    np.testing.assert_allclose(flat, 1 / K, rtol=0.02)


@pytest.mark.parametrize(("eta", "floor"), [(0.3, 1e-3), (0.1, 0.02), (1.0, 1e-3)])
def test_steps_on_scores_that_stay_settle_at_the_optimum(eta, floor):
    score = np.random.default_rng(2).random(K)

    def loss(y):
        return -(y @ score) + eta * (y * np.log(y)).sum()

    found = minimize(
        loss,
        np.full(K, 1 / K),
        jac=lambda y: -score + eta * (np.log(y) + 1),
        method="SLSQP",
        bounds=[(floor, 1)] * K,
        constraints={"type": "eq", "fun": lambda y: y.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    assert found.success
    y = climbed(make(entropy_coef=eta, floor=floor), score)
    np.testing.assert_allclose(y, found.x, atol=2e-3)
    moved = climbed(make(entropy_coef=eta, floor=floor), score + 5.0)
    np.testing.assert_allclose(moved, y, atol=1e-4)  # a constant offset changes nothing
    if y.min() > 2 * floor:
        soft = np.exp(score / eta) / np.exp(score / eta).sum()
        np.testing.assert_allclose(y, soft, atol=2e-3)


def test_a_step_worked_by_hand():
    sampler = make(capacity=2, floor=0.1, entropy_coef=0.0, step_size=0.5)
    start = Adversary(jnp.full(2, 0.5), jnp.full(2, 0.1))
    score = jnp.asarray([0.8, 0.2])
    # Centred gradient ±.3, squares .1 + .18 = .28, so y moves by .5 · .3 · .28^-.4 = .2496.
    after = sampler.ascend(start, score)
    np.testing.assert_allclose(after.squares, 0.28, rtol=1e-5)
    np.testing.assert_allclose(after.y, [0.7496, 0.2504], atol=1e-4)
    # Per level: .5 · .8 · .74^-.4 = .4512, .5 · .2 · .14^-.4 = .2195, minus their mean.
    after = replace(sampler, per_level=True).ascend(start, score)
    np.testing.assert_allclose(after.squares, [0.74, 0.14], rtol=1e-5)
    np.testing.assert_allclose(after.y, [0.5 + 0.1158, 0.5 - 0.1158], atol=1e-4)


def test_rows_without_evidence_count_as_the_lowest_known():
    state = make().init(jax.random.key(0), MEMORY)
    np.testing.assert_array_equal(known_scores(state.buffer), np.zeros(K))
    score = jnp.full(K, -jnp.inf).at[:3].set(jnp.asarray([0.5, -jnp.inf, 0.25]))
    buffer = state.buffer._replace(score=score, size=jnp.int32(3))
    np.testing.assert_array_equal(known_scores(buffer), [0.5] + [0.25] * (K - 1))


def test_training_draws_follow_the_distribution():
    sampler = make(train_updates=800, entropy_coef=0.3)
    states, slots = jax.tree.map(np.asarray, run(sampler, SWEEP + 1 + 800))
    size, y = states.buffer.size[-1], states.adversary.y[-1].astype(np.float64)
    rows = slots.buffer_index[SWEEP + 1 :].ravel()
    expected = np.where(np.arange(K) < size, y, 0)
    expected *= rows.size / expected.sum()
    counts = np.bincount(rows, minlength=K)
    assert (counts[size:] == 0).all()  # a row that holds no level is never drawn
    often = expected >= 5
    assert ((counts - expected)[often] ** 2 / expected[often]).sum() < 45.3  # χ², 20 df, p = 0.001
    assert np.ptp(expected[:size]) > 100  # the distribution is not uniform


def test_without_any_evidence_training_goes_on_with_new_levels():
    nothing = Numbers(step=5)
    states, slots = run(replace(make(), source=Random(nothing)), 2 * CYCLE)
    assert (states.buffer.size == 0).all() and (slots.origin == NEW).all()
    np.testing.assert_allclose(states.adversary.y, 1 / K, rtol=1e-5)
    np.testing.assert_array_equal(slots.weight[SWEEP + 1 : CYCLE], 1)


@pytest.mark.thorough
def test_busy_slots_keep_their_levels_and_their_rows():
    sampler = make()
    state, slots = sampler.init(jax.random.key(0), MEMORY), first_slots(sampler)
    step = jax.jit(lambda *args: cycle(sampler, *args))
    rng, free, num_held = np.random.default_rng(0), jnp.ones(N, bool), 0
    for t in range(4 * CYCLE):
        done = jnp.asarray(rng.random(N) < 0.5)
        before, busy = slots, np.flatnonzero(~np.asarray(free))
        state, slots = step(state, slots, Keys(jax.random.key(t), jax.random.key(t)), free, done)
        for name in ("buffer_index", "origin", "weight"):
            x, y = getattr(before, name), getattr(slots, name)
            np.testing.assert_array_equal(x[busy], y[busy])
        still = np.asarray(~done)
        rows, numbers = (
            np.asarray(slots.buffer_index)[still],
            np.asarray(slots.level["number"])[still],
        )
        kept = np.asarray(state.buffer.level["number"])[rows[rows >= 0]]
        np.testing.assert_array_equal(kept, numbers[rows >= 0])
        num_held += (rows >= 0).sum()
        free = done
    assert num_held > 20


@pytest.mark.thorough
def test_seeds_under_vmap_equal_single_runs():
    sampler, seeds = make(), jnp.arange(3)
    many = jax.jit(jax.vmap(lambda own: history(sampler, 4 * CYCLE, own)))(seeds)
    for i in range(3):  # compiled for the runs above
        one = run(sampler, 4 * CYCLE, int(seeds[i]))
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-7), many, one
        )
        np.testing.assert_array_equal(many[1].level["number"][i], one[1].level["number"])


def test_under_vmap_over_seeds_generating_drawing_keeping_and_stepping_stay_branches():
    sampler = make()
    found = over_seeds(cycle, sampler, MEMORY, first_slots(sampler))
    assert [name for name, _ in found].count("cond") == 4
    for work in ("sort", "top_k", "random_split", "random_bits", "log", "cumsum"):
        assert (work, True) in found and (work, False) not in found, work


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"train_updates": 0}, "train_updates must be at least 1"),
        ({"num_fresh_updates": -1}, "num_fresh_updates must be at least 0"),
        ({"entropy_coef": -0.1}, "entropy_coef must be at least 0"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"floor": 0.05}, r"floor must lie between 0 and 1 / capacity = 0.05, got 0.05"),
        ({"floor": 0.0}, "floor must lie between 0"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_a_buffer_smaller_than_an_update_is_refused():
    make().check(20, MaxMC())
    with pytest.raises(ValueError, match="capacity=20 is below the 21 levels of one update"):
        make().check(21, MaxMC())
