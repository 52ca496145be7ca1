"""GROOVE's components: replay decided per slot, lifetimes, and algorithmic regret."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.lifetimes import Lifetimes, TaskEnv
from rlgen.algos.samplers.plr import PLR, EachSlot
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.algos.scores.algorithmic_regret import AlgorithmicRegret
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.none import NoScore
from rlgen.algos.scores.oracle_regret import OracleRegret
from rlgen.buffer import Priority, draw_distinct, make_buffer
from rlgen.envs import maze
from rlgen.testing import new_slots, random_rollout
from rlgen.types import NEW, REPLAY, EpisodeStats, Keys, LifetimeResults, Outcome, Task
from tests.standins.numbers import Numbers

N, K = 12, 40


ENV = Numbers()
REGRET = AlgorithmicRegret()


def make(**fields):
    source = Lifetimes(ENV, Random(ENV), 1, 8)
    defaults: Any = {"capacity": K, "decision": EachSlot(0.5), "min_fill": 0.5}
    return PLR(TaskEnv(ENV), source, **(defaults | fields))


def judged(slots, done, complete):
    """Return scores; every fifth level and every incomplete lifetime give no evidence."""
    number = slots.level.level["number"]
    known = (number % 5 > 0) & (done & complete)[:, None]
    return jnp.where(known, (number % 997).astype(jnp.float32), -jnp.inf)


def history(sampler, own, num_updates=120, judge=REGRET):
    """Return slots, states and free masks of a run whose slots become free at different times."""
    memory = judge.initial_state()
    level, note = sampler.example_level(), sampler.level_info()
    level = jax.tree.map(lambda x: jnp.broadcast_to(x, (N, 1, *jnp.shape(x))), level)
    state = sampler.init(jax.random.key(own), memory)
    start = state, new_slots(level, memory, note), jnp.ones(N, bool)
    key_done = jax.random.fold_in(jax.random.key(99), own)
    complete = jnp.arange(N) % 4 > 0

    def body(carry, t):
        state, slots, free = carry
        keys = Keys(jax.random.fold_in(jax.random.key(own), t), jax.random.key(t))
        state, slots = sampler.propose(keys, state, slots, free)
        done = jax.random.bernoulli(jax.random.fold_in(key_done, t), 0.3, (N,))
        score = judged(slots, done, complete | (t > 8))
        if isinstance(judge, NoScore):
            score = jnp.full_like(score, -jnp.inf)
        after = sampler.observe(keys, state, slots, score, Outcome(done))
        return (after, slots, done), (after, slots, free)

    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 2, 3))


@pytest.fixture(scope="module")
def played():
    return jax.device_get(run(make(), 3))


@pytest.mark.thorough
def test_slots_decide_for_themselves_and_replay_their_share():
    origins = []
    for own in range(6):
        _, slots, free = jax.device_get(run(make(), own))
        mixed = [set(o[f]) == {NEW, REPLAY} for o, f in zip(slots.origin, free, strict=True)]
        assert any(mixed)
        origins.append(slots.origin[40:][free[40:]])
    origins = np.concatenate(origins)
    spread = 0.5 / np.sqrt(len(origins))
    assert abs((origins == REPLAY).mean() - 0.5) < 4 * spread


def test_replay_begins_when_enough_levels_are_scored_not_when_they_were_drawn(played):
    """Regression: unscored levels in play were counted, so two scored ones were replayed often."""
    states, slots, free = played
    scored = np.isfinite(states.buffer.score).sum(-1)
    drawn = np.cumsum((free & (slots.origin == NEW)).sum(-1))
    first = next(t for t in range(1, len(free)) if (free[t] & (slots.origin[t] == REPLAY)).any())
    assert scored[first - 1] >= K / 2 > scored[first - 4]
    assert drawn[first - 4] > K / 2


def test_busy_slots_stay_as_they_are_and_their_rows_are_neither_drawn_nor_replaced(played):
    states, slots, free = played
    num_held = 0
    for t in range(1, len(free)):
        busy = ~free[t]
        kept = jax.tree.map(lambda x, t=t, busy=busy: (x[t][busy] == x[t - 1][busy]).all(), slots)
        same_memory = np.array_equal(
            slots.score_state[t][busy], slots.score_state[t - 1][busy], equal_nan=True
        )
        assert same_memory
        assert all(jax.tree.leaves(kept._replace(score_state=True)))
        rows = slots.buffer_index[t].ravel()
        rows = rows[rows >= 0]
        assert len(set(rows)) == len(rows)  # no row is in play twice
        playing = slots.level.level["number"][t][slots.buffer_index[t] >= 0]
        buffer = states.buffer.level.level["number"]
        np.testing.assert_array_equal(buffer[t - 1][rows], playing)
        if t + 1 < len(free):  # in play during update t and later
            held = slots.buffer_index[t][~free[t + 1]].ravel()
            held = held[held >= 0]
            num_held += len(held)
            np.testing.assert_array_equal(buffer[t][held], buffer[t - 1][held])
    assert num_held > 100


def test_levels_without_evidence_never_enter_the_buffer(played):
    states, slots, _ = played
    last = int(states.buffer.size[-1])
    assert last == K
    assert np.isfinite(states.buffer.score[-1][:last]).all()
    assert (states.buffer.level.level["number"][-1] % 5 > 0).all()
    replayed = slots.level.level["number"][slots.buffer_index >= 0]
    assert len(replayed) > 100
    assert (replayed % 5 > 0).all()


@pytest.mark.thorough
def test_without_a_score_nothing_is_replayed_and_the_source_is_as_if_alone():
    sampler = make(min_fill=0.0, decision=EachSlot(1.0))
    _, slots, _ = run(sampler, 1, 30, NoScore())
    assert (slots.origin == NEW).all()
    _, alone, _ = run(make(decision=EachSlot(0.0)), 1, 30, NoScore())
    jax.tree.map(np.testing.assert_array_equal, slots, alone)


@pytest.mark.thorough
def test_two_seeds_under_vmap_equal_two_single_runs():
    sampler = make()
    many = jax.jit(jax.vmap(lambda own: history(sampler, own)))(jnp.arange(2))
    frees = np.asarray(many[2])
    assert (frees[0] != frees[1]).any()
    for i in range(2):
        one = run(sampler, i)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), many, one)


def test_what_belongs_to_whole_updates_is_refused():
    with pytest.raises(ValueError, match="EachSlot does not support sequential=True"):
        make(sequential=True)
    env = maze.tiny()
    with pytest.raises(ValueError, match=r"does not support mutator\.num_edits=2"):
        PLR(env, Random(env), decision=EachSlot(), mutator=Mutator(2))


def test_draws_without_replacement_follow_the_priorities():
    buffer = make_buffer(4, {"a": jnp.zeros(())}, ())
    score = jnp.array([1.0, 4.0, 2.0, 9.0])
    buffer = buffer._replace(score=score, size=jnp.int32(4), clock=jnp.int32(1))
    priority = Priority("proportional", temperature=1.0, staleness_coef=0.0)
    rows, used = jnp.array([True, True, True, False]), jnp.array([True, False, True, False])
    keys = jax.random.split(jax.random.key(0), 8000)
    drawn, row = jax.vmap(lambda key: draw_distinct(key, buffer, priority, rows, used))(keys)
    first, second = np.asarray(row)[:, 0], np.asarray(row)[:, 2]
    assert (first != second).all()
    assert (drawn.clock == 3).all()
    assert (np.asarray(drawn.timestamp)[np.arange(8000), second] == 3).all()
    p = np.array([1, 4, 2]) / 7
    found = np.bincount(first, minlength=3) / 8000
    np.testing.assert_allclose(found, p, atol=4 * 0.5 / np.sqrt(8000))
    pairs = p[:, None] * p[None] / (1 - p[:, None]) * (1 - np.eye(3))
    both = np.bincount(first * 3 + second, minlength=9).reshape(3, 3) / 8000
    np.testing.assert_allclose(both, pairs, atol=4 * 0.5 / np.sqrt(8000))


@pytest.mark.thorough
def test_lifetimes_are_log_uniform_and_those_of_the_environment_by_default():
    env = maze.tiny()
    sampler = Lifetimes(env, Random(env), 10, 250)
    level = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (4000, 1, *x.shape)), sampler.example_level()
    )
    keys = Keys(jax.random.key(0), jax.random.key(0))
    _, slots = sampler.propose(keys, (), new_slots(level, ()), jnp.ones(4000, bool))
    found = np.asarray(slots.level.lifetime)
    assert found.min() == 10
    assert 240 < found.max() <= 250
    share = (found < 50).mean()  # each integer n stands for the interval [n, n + 1)
    assert abs(share - np.log(50 / 10) / np.log(251 / 10)) < 4 * 0.5 / np.sqrt(4000)
    assert Lifetimes(env, Random(env)).bounds == (250, 250)
    with pytest.raises(ValueError, match="shortest=300 is above the longest lifetime, 250"):
        Lifetimes(env, Random(env), 300)


@pytest.mark.thorough
def test_a_source_under_lifetimes_draws_what_it_draws_alone_and_its_set_is_kept():
    env = maze.tiny()
    source = Fixed(env, num_levels=3, shuffle=True)
    sampler = Lifetimes(env, source, 1, 9)
    assert sampler.level_set is source.level_set
    assert Lifetimes(env, Random(env)).level_set is None
    keys, free = Keys(jax.random.key(1), jax.random.key(2)), jnp.array([True, False, True])
    level = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, 1, *x.shape)), sampler.example_level())
    slots, state = new_slots(level, ()), source.init(jax.random.key(0), ())
    _, new = sampler.propose(keys, state, slots, free)
    _, alone = source.propose(keys, state, slots._replace(level=slots.level.level), free)
    jax.tree.map(np.testing.assert_array_equal, new.level.level, alone.level)
    assert int(new.level.lifetime[1, 0]) == 9


def test_algorithmic_regret_takes_the_antagonist_from_the_memory_where_it_is_known():
    slots = new_slots(jnp.zeros((5, 1)), AlgorithmicRegret().initial_state())
    slots = slots._replace(
        score_state=jnp.array([jnp.nan, jnp.nan, 7.0, jnp.nan, jnp.nan])[:, None]
    )
    lifetimes = LifetimeResults(
        student_return=jnp.array([1.0, 1.0, 1.0, 1.0, 1.0]),
        antagonist_return=jnp.array([3.0, 3.0, jnp.nan, 3.0, jnp.nan]),
        complete=jnp.array([True, False, True, True, True]),
    )
    done = jnp.array([True, True, True, False, True])
    score, memory = AlgorithmicRegret()(
        jax.random.key(0), slots, Outcome(done, lifetimes=lifetimes)
    )
    inf, nan = np.inf, np.nan
    np.testing.assert_array_equal(score[:, 0], [2.0, -inf, 6.0, -inf, -inf])
    np.testing.assert_array_equal(memory[:, 0], [3.0, nan, 7.0, nan, nan])
    with pytest.raises(ValueError, match="the student reports no such agents"):
        AlgorithmicRegret()(jax.random.key(0), slots, Outcome(done))


@pytest.mark.thorough
def test_scores_of_returns_read_the_lives_that_a_meta_learner_reports():
    family = maze.tiny()
    env = TaskEnv(family)
    level = jax.vmap(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(0), (3, 1)))
    rollout = jax.tree.map(lambda x: x[None], random_rollout(0, 8, 3, 1))
    num = jnp.array([[1], [0], [1]])
    stats = EpisodeStats(num, num * 0, num * 0.25, jnp.where(num > 0, 0.25, -jnp.inf), num * 1.0)
    outcome, key = Outcome(jnp.ones(3, bool), rollout, episodes=stats), jax.random.key(1)
    oracle = OracleRegret(env)
    score, best = oracle(key, new_slots(level, oracle.initial_state()), outcome)
    solution = jax.vmap(jax.vmap(family.solve))(level.level)
    optimal = np.where(solution.solvable, solution.optimal_return, 0.25)
    expected = np.where(num > 0, optimal - 0.25, -np.inf)
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    _, best = MaxMC()(key, new_slots(level, jnp.float32(0.1)), outcome)
    np.testing.assert_allclose(best[:, 0], [0.25, 0.1, 0.25])


@pytest.mark.thorough
def test_equal_levels_with_other_lifetimes_are_other_tasks():
    env = TaskEnv(maze.tiny())
    task = env.sample_level(jax.random.key(0))
    other = replace_lifetime(task, 2)
    assert np.array_equal(env.level_hash(task), env.level_hash(replace_lifetime(task, 1)))
    assert not np.array_equal(env.level_hash(task), env.level_hash(other))


def replace_lifetime(task: Task, lifetime: int) -> Task:
    return task._replace(lifetime=jnp.int32(lifetime))
