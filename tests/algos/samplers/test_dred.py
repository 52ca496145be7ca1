"""DRED's mixture in closed form; which levels are played, inserted, and never removed."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats as scipy_stats

from rlgen.algos.samplers.dred import DRED, Mixture, judge
from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.algos.scores.none import NoScore
from rlgen.buffer import Priority, make_buffer, observed
from rlgen.curriculum import Curriculum
from rlgen.types import MUTANT, NEW, REPLAY, EpisodeStats, Keys, Outcome, Slots
from tests.standins import trial
from tests.standins.numbers import Numbers

N, R, M, K = 4, 3, 10, 16
CHILD = 1_000_000
ENV = Numbers(num_kinds=1000, child=CHILD)


@dataclass(frozen=True)
class Rolled:
    """The only field of a rollout that DRED reads: the queue position played."""

    level_index: jax.Array

    def __bool__(self):
        return True


def make(**fields):
    defaults = {"source": Random(ENV), "capacity": K}
    return DRED(ENV, Fixed(ENV, num_levels=M), **(defaults | fields))


def first_slots(sampler):
    shape = (N, R)
    blank, note = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)),
        (sampler.example_level(), sampler.level_info()),
    )
    origin, row = jnp.full(N, NEW, jnp.int32), jnp.full(shape, -1, jnp.int32)
    return Slots(blank, (), row, origin, jnp.ones(N), note)


def outcome_of(number, solves):
    """Return an outcome with one episode per level, with return 1 where `solves` is true."""
    solved = solves(number)
    won = solved.astype(jnp.float32)
    one = jnp.ones(number.shape, jnp.int32)
    best = jnp.where(solved, 1.0, 0.0)
    return Outcome(
        jnp.ones(N, bool), episodes=EpisodeStats(one, solved.astype(jnp.int32), won, best, won)
    )


def score_of(number):
    return (number % 1000).astype(jnp.float32) / 1000 + 0.001


def history(sampler, own=0, num_updates=60, solves=lambda number: number % 2 == 0):
    def body(carry, t):
        state, slots = carry
        keys = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, 7)))
        state, slots = sampler.propose(keys, state, slots, jnp.ones(N, bool))
        number = slots.level["number"]
        outcome = outcome_of(number, solves)
        state = sampler.observe(keys, state, slots, score_of(number), outcome)
        return (state, slots), (state, slots, sampler.metrics(state))

    start = sampler.init(jax.random.key(own), ()), first_slots(sampler)
    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 2, 3))


# The mixture.


def by_rank(score, rows, temperature):
    """Compute rank weights slowly, one rank at a time."""
    weight = np.zeros(len(score))
    for rank, row in enumerate(sorted(np.flatnonzero(rows), key=lambda i: -score[i]), start=1):
        weight[row] = rank ** (-1.0 / temperature)
    return weight / weight.sum()


def random_buffer(num_rows, num_data, size):
    rng = np.random.default_rng(0)
    buffer = make_buffer(num_rows, {"number": jnp.int32(0)}, ())
    score = np.where(np.arange(num_rows) < size, rng.random(num_rows), -np.inf)
    stamp = rng.integers(0, 5000, num_rows)
    buffer = buffer._replace(
        score=jnp.asarray(score, jnp.float32),
        timestamp=jnp.asarray(stamp, jnp.int32),
        clock=jnp.int32(5000),
        size=jnp.int32(size),
    )
    solved = rng.random(num_rows) < 0.6
    return buffer, np.arange(num_rows) < num_data, solved


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("stale", ["data", "all"])
def test_the_mixture_is_the_closed_form(share, stale):
    buffer, data, solved = random_buffer(40, 12, 30)
    mixture = Mixture(0.3, 0.7, 0.3, share_start=share, share_end=share, stale=stale)
    now = mixture.at(jnp.int32(3), jnp.asarray(data), jnp.asarray(solved))
    rows = np.asarray(observed(buffer))
    score = np.asarray(buffer.score)
    grounded = np.where(solved, score, 0.0)
    age = np.where(rows & (data if stale == "data" else rows), 5000 - buffer.timestamp, 0.0)
    # Unsolved rows tie at 0; stable sorting orders them by row in both implementations.
    expected = (
        0.7
        * ((1 - share) * by_rank(score, rows & data, 0.3) + share * by_rank(grounded, rows, 0.7))
        + 0.3 * age / age.sum()
    )
    found = np.asarray(now(buffer, jnp.asarray(rows)))
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-7)
    if share == 0 and stale == "data":
        assert found[12:].sum() == 0


def test_effective_sizes_at_the_published_settings():
    # 4000 rows, 512 of them the set's, with random scores. The expected values are those of the
    # specification, computed by another program.
    rng = np.random.default_rng(1)
    buffer, data, _ = random_buffer(4000, 512, 4000)
    buffer = buffer._replace(timestamp=jnp.asarray(rng.integers(0, 5000, 4000), jnp.int32))
    solved = jnp.ones(4000, bool)
    for share, effective, on_data in (
        (0.0, 2.0, 1.00),
        (0.25, 3.6, 0.84),
        (0.5, 8.0, 0.68),
        (0.75, 27.0, 0.51),
        (1.0, 95.0, 0.35),
    ):
        mixture = Mixture(share_start=share, share_end=share)
        now = mixture.at(jnp.int32(0), jnp.asarray(data), solved)
        p = np.asarray(now(buffer, observed(buffer)))
        np.testing.assert_allclose(1 / (p**2).sum(), effective, rtol=0.25)
        np.testing.assert_allclose(p[:512].sum(), on_data, atol=0.08)


def test_the_share_of_all_levels_grows_from_start_to_end():
    mixture = Mixture(share_start=0.2, share_end=0.8, num_updates=10)
    found = [float(mixture.share(jnp.int32(t))) for t in (0, 5, 10, 20)]
    np.testing.assert_allclose(found, [0.2, 0.5, 0.8, 0.8], rtol=1e-6)


def test_on_the_set_alone_it_is_prioritised_replay():
    buffer, data, solved = random_buffer(40, 40, 40)
    now = Mixture(0.3, share_end=0.0).at(jnp.int32(9), jnp.asarray(data), jnp.asarray(solved))
    rows = observed(buffer)
    expected = Priority("rank", 0.3, 0.3)(buffer, rows)
    np.testing.assert_allclose(now(buffer, rows), expected, rtol=1e-6)


# The sampler.


@pytest.mark.thorough
def test_every_level_of_the_set_is_met_once_before_any_is_replayed():
    sampler = make(train_in_warmup=False)
    _, slots, _ = run(sampler, 0, 8)
    number = np.asarray(slots.level["number"])
    known = set(np.asarray(sampler.level_set.level["number"]).tolist())
    warmup = -(-M // N)
    assert (number == number[:, :, :1]).all(-1)[:warmup].all()  # same level at all positions
    first = number[:warmup, :, 0].ravel()
    assert set(first[:M].tolist()) == known
    weight = np.asarray(slots.weight)
    assert (weight[:warmup] == 0).all() and (weight[warmup] == 1).all()
    assert (run(make(), 0, 8)[1].weight[:warmup] == 1).all()


@pytest.mark.thorough
def test_replay_and_looking_take_turns():
    _, slots, _ = run(make(), 0, 20)
    origin, weight = np.asarray(slots.origin), np.asarray(slots.weight)
    kinds = origin[:, 0]
    assert (origin == kinds[:, None]).all()
    warmup = -(-M // N)
    assert (kinds[:warmup] == REPLAY).all()
    np.testing.assert_array_equal(kinds[warmup:], [REPLAY, NEW] * 8 + [REPLAY])
    np.testing.assert_array_equal(weight[kinds == NEW], 0)
    looked = np.asarray(slots.level["number"])[kinds == NEW]
    assert (looked == looked[:, :, :1]).all()  # the same level at every position of the queue
    assert len(np.unique(looked)) > N


def test_without_proposals_every_update_replays_the_set():
    states, slots, metrics = run(make(source=()), 0, 12)
    assert (slots.origin == REPLAY).all() and (slots.weight == 1).all()
    assert (np.asarray(slots.buffer_index) < M).all()
    assert (states.buffer.size == M).all() and (metrics["generated_share"] == 0).all()


@pytest.mark.thorough
def test_the_set_is_never_lost_and_the_unsolved_never_enters():
    sampler = make(mixture=Mixture(1.0, num_updates=60))
    states, _, metrics = run(sampler, 1, 120)
    number = np.asarray(states.buffer.level["number"])
    own = np.asarray(sampler.level_set.level["number"])
    assert (number[:, :M] == own).all()
    size = np.asarray(states.buffer.size)
    assert size[-1] == K and (np.diff(size) >= 0).all()
    for t in range(len(size)):
        added = number[t, M : size[t]]
        assert (added % 2 == 0).all()  # odd levels are unsolved
        assert np.asarray(states.buffer.level_info.solved)[t, M : size[t]].all()
    assert len(np.unique(number[:, M:])) > 2 * (K - M)  # generated levels are inserted and removed
    shares = np.asarray(metrics["generated_share"])
    assert shares[0] == 0 and shares[-1] > 0.2


@pytest.mark.thorough
def test_a_solved_proposal_replaces_the_added_level_least_likely_to_be_drawn():
    sampler = make(mixture=Mixture(1.0, share_start=1.0))
    states, slots, _ = run(sampler, 2, 120)
    number, size = np.asarray(states.buffer.level["number"]), np.asarray(states.buffer.size)
    replaced = 0
    for t in range(1, 120):
        new = np.asarray(slots.level["number"])[t, :, 0]
        gone = np.flatnonzero(number[t] != number[t - 1])
        if slots.origin[t, 0] != NEW:
            assert gone.size == 0
            continue
        if size[t - 1] < K or gone.size == 0:
            continue
        replaced += gone.size
        before = jax.tree.map(lambda x, t=t: x[t - 1], states)
        likely = np.asarray(sampler.replay_probability(before))
        order = M + np.argsort(likely[M:], kind="stable")
        assert set(gone) == set(order[: gone.size])
        assert (score_of(number[t][gone]) > score_of(number[t - 1][gone])).all()
        assert set(number[t][gone]) <= set(new.tolist())
    assert replaced > 3


@pytest.mark.thorough
def test_any_admits_the_unsolved_with_a_score_of_zero_while_there_is_room():
    sampler = make(admit="any")
    states, _, _ = run(sampler, 0, 40, lambda number: number < 0)
    assert int(states.buffer.size[-1]) == K
    assert (np.asarray(states.buffer.score)[-1, M:] == 0).all()
    assert not states.buffer.level_info.solved.any()


def test_edits_are_of_what_was_just_replayed():
    _, slots, _ = run(make(source=(), mutator=Mutator(3)), 0, 20)
    origin, number = np.asarray(slots.origin)[:, 0], np.asarray(slots.level["number"])
    mutants = np.flatnonzero(origin == MUTANT)
    assert mutants.size > 5
    for t in mutants:
        np.testing.assert_array_equal(number[t, :, 0], number[t - 1, :, 0] + 3 * CHILD)


@pytest.mark.thorough
def test_seeds_side_by_side_are_the_same_runs():
    sampler = make()
    both = jax.jit(jax.vmap(lambda own: history(sampler, own, 20)))(jnp.arange(2))
    for i in range(2):
        alone = run(sampler, i, 20)
        jax.tree.map(
            lambda x, y, i=i: np.testing.assert_allclose(x[i], y, rtol=1e-5), both[:2], alone[:2]
        )


def test_a_level_is_drawn_when_it_is_played_and_not_when_it_is_queued():
    sampler = make(source=())
    state, slots = sampler.init(jax.random.key(0), ()), first_slots(sampler)
    keys = Keys(jax.random.key(0), jax.random.key(1))
    # After M levels the warm-up is over, so this update replays.
    state = state._replace(num_met=jnp.int32(M))
    state, slots = jax.jit(sampler.propose)(keys, state, slots, jnp.ones(N, bool))
    outcome = outcome_of(slots.level["number"], lambda number: number >= 0)
    turn = jnp.zeros((1, 5, N), jnp.int32)  # no slot got beyond the first position
    observe = jax.jit(
        lambda turn: (
            sampler.observe(
                keys,
                state,
                slots,
                score_of(slots.level["number"]),
                outcome._replace(rollout=Rolled(turn)),
            ).buffer
        )
    )
    after = observe(turn)
    played = np.unique(np.asarray(slots.buffer_index)[:, 0])
    assert int(after.clock) == N
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(after.timestamp)), played)


def test_a_proposal_is_judged_by_all_its_episodes_or_by_the_first_place():
    shape = (2, 3)
    score = jnp.asarray([[0.2, 0.6, -jnp.inf], [-jnp.inf, 0.5, -jnp.inf]])
    num = jnp.asarray([[1, 3, 0], [0, 1, 0]])
    won = jnp.asarray([[0, 1, 0], [0, 1, 0]])
    mean = jnp.asarray([[0.0, 0.4, 0.0], [0.0, 0.7, 0.0]])
    best = jnp.asarray([[0.0, 0.9, -jnp.inf], [-jnp.inf, 0.7, -jnp.inf]])
    blank = jnp.zeros(2)
    slots = Slots((), jnp.arange(6.0).reshape(shape), jnp.zeros(shape, jnp.int32), blank, blank)
    outcome = Outcome(jnp.ones(2, bool), episodes=EpisodeStats(num, won, mean, best, mean))
    trial = judge(slots, score, outcome, single_chance=False)
    np.testing.assert_allclose(trial.score, [0.4, 0.5])
    np.testing.assert_allclose(trial.mean_return, [0.3, 0.7])
    np.testing.assert_array_equal(trial.solved, [True, True])
    np.testing.assert_array_equal(trial.score_state, [1.0, 4.0])
    once = judge(slots, score, outcome, single_chance=True)
    np.testing.assert_allclose(once.score, [0.2, -jnp.inf])
    np.testing.assert_array_equal(once.solved, [False, False])
    np.testing.assert_array_equal(once.score_state, [0.0, 3.0])


@pytest.mark.thorough
def test_the_shift_gap_is_the_mean_return_under_the_mixture_minus_that_over_the_set():
    sampler = make(mixture=Mixture(1.0, share_start=1.0))
    states, _, metrics = run(sampler, 0, 30)
    last = jax.tree.map(lambda x: x[-2], states)  # the gap refers to the sampled mixture
    last = last._replace(buffer=jax.tree.map(lambda x: x[-1], states.buffer))
    p = np.asarray(sampler.replay_probability(last))
    seen = np.asarray(last.buffer.level_info.mean_return)
    assert np.isfinite(seen).all() and 0 < seen[:M].mean() < 1
    np.testing.assert_allclose(metrics["shift_gap"][-1], (p * seen).sum() - seen[:M].mean(), 1e-4)


def test_uniform_is_uniform():
    # The configuration released as "uniform" plays 1.9 of 512 levels (specification, 8.1).
    env = Numbers(num_kinds=100_000)
    sampler = Fixed(env, num_levels=512)
    slots = Slots(
        jax.tree.map(lambda x: jnp.broadcast_to(x, (36, 8)), sampler.example_level()),
        (),
        jnp.full((36, 8), -1, jnp.int32),
        jnp.zeros(36, jnp.int32),
        jnp.ones(36),
    )
    free = jnp.ones(36, bool)

    @jax.jit
    def draws(keys):
        one = lambda key: sampler.propose(Keys(key, key), sampler.init(key, ()), slots, free)[1]  # noqa: E731
        return jax.vmap(one)(keys).level["number"]

    number = np.asarray(draws(jax.random.split(jax.random.key(0), 400))).ravel()
    known, count = np.unique(number, return_counts=True)
    assert known.size == 512
    assert scipy_stats.chisquare(count).pvalue > 1e-3
    # Power of the test: if one level in fifty is drawn twice as often, it fails.
    skewed = np.where(np.arange(512) % 50 == 0, 2 * count, count)
    assert scipy_stats.chisquare(skewed).pvalue < 1e-6


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"capacity": M}, "capacity=10 is below the 10 levels of the set plus a row for proposals"),
        ({"mutator": Mutator(2)}, "but a source is also given"),
    ],
)
def test_impossible_fields_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**fields)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"share_end": 1.5}, "share_end must lie in"),
        ({"num_updates": 0}, "num_updates must be at least 1"),
    ],
)
def test_impossible_mixtures_are_refused(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        replace(Mixture(), **fields)


def test_a_student_without_episodes_is_refused():
    silent = trial.Student(ENV)
    with pytest.raises(ValueError, match="DRED reads the outcome's episodes, but Student fills no"):
        Curriculum(silent, make(), NoScore(), num_slots=N)
    Curriculum(replace(silent, gives=frozenset({"episodes"})), make(), NoScore(), num_slots=N)
