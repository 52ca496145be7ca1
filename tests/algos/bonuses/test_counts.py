"""Visit counts, compared with Python dictionaries, and the tables that hold them."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry, testing
from rlgen.algos.bonuses import count_tables, counts, episodic, state_keys
from rlgen.envs import cave, maze
from rlgen.types import Visit

T, N, Z = 24, 6, 7
WEIGHT = np.array([1, 0, 2, 1, 0, 1], np.float32)
LINE = maze.Maze(height=1, width=Z, num_walls=0)


@dataclass(frozen=True)
class Eventful(testing.Probe):
    def event(self, state, level):
        return state.time % 3

    def num_events(self):
        return 3


def visits(before, after):
    return {"position": Visit(cast(Any, before), cast(Any, after))}  # NumPy arrays


def played(seed, num_keys=Z):
    """Synthetic rollout with consistent visits and observations; an observation is one key."""
    rng = np.random.default_rng(seed)
    rollout = jax.tree.map(np.asarray, testing.random_rollout(seed, T, N, 1))
    key = rng.integers(0, num_keys, (T + 1, N)).astype(np.int32)
    after = np.where(rollout.terminated | rollout.truncated, (key[:T] + 1) % num_keys, key[1:])
    return rollout._replace(obs=key[:T], last_obs=key[T:], visits=visits(key[:T], after))


def going_on(seed, **options):
    """Two rollouts; the second begins where the first ended."""
    one, two = played(seed, **options), played(seed + 1, **options)
    begins = (one.terminated | one.truncated)[-1]
    two = two._replace(first=np.concatenate([begins[None], two.first[1:]]))
    start = one.last_obs[0]
    obs = np.concatenate([start[None], two.obs[1:]])
    before = np.concatenate([start[None], two.visits["position"].before[1:]])
    after = two.visits["position"].after
    return [one, two._replace(obs=obs, visits=visits(before, after))]


def keys_of(rollout, key):
    """Return the keys before and after each step, and whether the key after it is known."""
    if key == "position":
        return *rollout.visits["position"], np.ones((T, N), bool)
    known = ~(rollout.terminated | rollout.truncated)
    return rollout.obs, np.concatenate([rollout.obs[1:], rollout.last_obs]), known


def slow_counts(rollouts, key, num_groups=1):
    """Count the visits to each successor's key by the end of its step; 0 where it is unknown."""
    met, times = [Counter() for _ in range(num_groups)], []
    for rollout in rollouts:
        before, after, known = keys_of(rollout, key)
        for t in range(T):
            for n in np.flatnonzero(WEIGHT):
                met[n % num_groups].update([before[t, n]] * bool(rollout.first[t, n]))
                met[n % num_groups].update([after[t, n]] * bool(known[t, n]))
            row = [met[n % num_groups][after[t, n]] * known[t, n] for n in range(N)]
            times.append(row)
    return np.array(times)


def slow_episodic(rollouts, key):
    met, times = [Counter() for _ in range(N)], []
    for rollout in rollouts:
        before, after, known = keys_of(rollout, key)
        for t, n in np.ndindex(T, N):
            if rollout.first[t, n]:
                met[n] = Counter([before[t, n]])
            met[n].update([after[t, n]] * bool(known[t, n]))
            times.append(met[n][after[t, n]] * known[t, n])
    return np.reshape(times, (-1, N))


def judged(bonus, rollouts):
    """Return the bonuses, [sum of T, N], and the last metrics."""
    state, apply = bonus.init(jax.random.key(0), N), jax.jit(bonus.apply)
    found, metrics = [], {}
    for rollout in rollouts:
        state, value, metrics = apply(jax.random.key(0), state, rollout, WEIGHT)
        found.append(value)
    return np.concatenate(found), {name: float(x) for name, x in metrics.items()}


@pytest.mark.parametrize("num_groups", [1, 4])
def test_exact_counts_are_those_of_a_dictionary(num_groups):
    rollouts = going_on(0)
    bonus, metrics = judged(counts.build(LINE, num_groups=num_groups), rollouts)
    times = slow_counts(rollouts, "position", num_groups)
    np.testing.assert_allclose(bonus, 1 / np.sqrt(np.maximum(times, 1)), rtol=1e-6)
    if num_groups == 1:
        assert metrics == {"counts_full": 1.0, "counts_distinct": Z}


def test_one_group_per_slot_gives_separate_tables():
    rollout = played(3)
    together, _ = judged(counts.build(LINE, num_groups=N), [rollout])
    alone = counts.build(LINE)
    key, nothing = jax.random.key(0), alone.init(jax.random.key(0), N)
    apply = jax.jit(alone.apply)
    for n in np.flatnonzero(WEIGHT):
        only = (np.arange(N) == n).astype(np.float32)
        _, bonus, _ = apply(key, nothing, rollout, only)
        np.testing.assert_allclose(together[:, n], bonus[:, n], rtol=1e-6)


@pytest.mark.parametrize("key", ["position", "observation"])
def test_a_large_sketch_counts_as_a_dictionary(key):
    rollouts = going_on(5)
    bonus, metrics = judged(counts.build(LINE, key=key, table="count-min", log_size=16), rollouts)
    times = slow_counts(rollouts, key)
    known = np.concatenate([keys_of(rollout, key)[2] for rollout in rollouts])
    right = np.where(known, 1 / np.sqrt(np.maximum(times, 1)), 0.0)
    np.testing.assert_allclose(bonus, right, rtol=1e-6)
    assert metrics["counts_distinct"] == pytest.approx(Z, rel=1e-2)


def test_a_small_sketch_counts_too_much_and_never_too_little():
    rollouts = going_on(7, num_keys=60)
    small = counts.build(LINE, key="observation", log_size=5)
    bonus, metrics = judged(small, rollouts)
    times = slow_counts(rollouts, "observation")
    found = np.round(np.where(bonus > 0, bonus, 1.0) ** -2.0)
    assert (found >= times)[times > 0].all()
    assert (found > times)[times > 0].mean() > 0.1
    rows = counts.build(LINE, key="observation", log_size=5, num_rows=1)
    coarse = np.where(bonus > 0, judged(rows, rollouts)[0], 1.0) ** -2.0
    assert coarse.mean() > found.mean()
    assert metrics["counts_full"] > counts.FULL
    assert small.warnings(metrics) and "raise log_size from 5 to 7" in small.warnings(metrics)[0]
    assert not small.warnings({"counts_full": 0.2})


@pytest.mark.parametrize("decay", [False, True])
@pytest.mark.parametrize("key", ["position", "observation"])
def test_episodic_counts_are_those_of_a_dictionary(key, decay):
    rollouts = going_on(9)
    bonus, metrics = judged(episodic.build(LINE, key=key, decay=decay), rollouts)
    times = slow_episodic(rollouts, key)
    right = np.where(times > 0, np.maximum(times, 1) ** -0.5, 0.0) if decay else times == 1
    np.testing.assert_allclose(bonus, right, rtol=1e-6)
    assert metrics["episodic_lost"] == 0 < metrics["episodic_full"]
    assert 0.2 < right.mean() < 0.9


def test_a_hashed_episodic_table_of_positions_is_the_exact_one():
    rollouts = going_on(11)
    hashed = judged(episodic.build(LINE, table="stamped"), rollouts)[0]
    np.testing.assert_array_equal(hashed, judged(episodic.build(LINE), rollouts)[0])


def test_a_small_episodic_table_forgets_and_says_so():
    rollouts = going_on(13, num_keys=12)
    small = episodic.build(LINE, key="observation", log_size=2)
    bonus, metrics = judged(small, rollouts)
    right = slow_episodic(rollouts, "observation") == 1
    assert (bonus >= right).all() and (bonus > right).any()
    assert metrics["episodic_lost"] > episodic.LOST
    assert "raise log_size from 2 to 4" in small.warnings(metrics)[0]
    assert not small.warnings({"episodic_lost": 0.0, "episodic_full": 0.9})


def test_staying_where_an_episode_begins_is_nothing_new():
    rollout = played(15)
    key = np.zeros((T, N), np.int32)
    rollout = rollout._replace(visits=visits(key, key))
    bonus, _ = judged(episodic.build(LINE), [rollout])
    assert not bonus.any()


def test_a_rollout_longer_than_there_are_stamps_is_refused():
    cells = count_tables.Around(*[jnp.zeros((2**16, 1), jnp.int32)] * 2)
    tags = count_tables.Around(*[jnp.zeros((2**16, 1), jnp.uint32)] * 2)
    flags = jnp.ones((2**16, 1), bool)
    with pytest.raises(ValueError, match="use shorter rollouts"):
        count_tables.mark_visits(count_tables.no_marks(1, 4, False), cells, tags, flags, flags)


def test_the_most_episodes_of_one_call_are_distinguished():
    shape = (count_tables.MOST_EPISODES, 1)
    key = np.arange(shape[0])[:, None] % 3
    cells = count_tables.Around(*[jnp.asarray(x, jnp.int32) for x in (key, (key + 1) % 3)])
    tags = count_tables.Around(*[jnp.zeros(shape, jnp.uint32)] * 2)
    flags = jnp.ones(shape, bool)
    marks = count_tables.no_marks(1, 3, False)
    marks, met = jax.jit(count_tables.mark_visits)(marks, cells, tags, flags, flags)
    assert (np.asarray(met.times) == 1).all()
    end = np.asarray(marks.mark >> 16)[0]
    last = [int(key[-1, 0]), int(key[-1, 0] + 1) % 3]
    assert {*np.flatnonzero(end == int(marks.stamp[0]))} == {*last}


def test_hashes_distinguish_keys():
    pair = np.asarray(jax.jit(state_keys.lanes)(jnp.arange(2**15).reshape(1, -1)))[0]
    assert len(np.unique(pair, axis=0)) == 2**15
    for lane in pair.T:  # uniform hashes: 128 +- 11 in each of 256 cells
        filled = np.bincount(lane & 255, minlength=256)
        assert filled.min() > 60 and filled.max() < 200
    same_cell = (pair[:, 0] & 255) == 0
    assert len(np.unique(pair[same_cell, 1] >> 16)) > 0.99 * same_cell.sum()


@pytest.mark.parametrize(("bins", "num_different"), [(10, 2), (100, 3), (0, 4)])
def test_floats_are_rounded_and_integers_are_not(bins, num_different):
    x = np.array([0.5, 0.501, 0.52, 0.71], np.float32)[:, None]
    rollout = played(0)._replace(
        obs={"x": x, "n": 100 + 0 * x.astype(np.int32)},
        last_obs={"x": x[-1:], "n": np.full((1, 1), 101, np.int32)},
        terminated=np.zeros((4, 1), bool),
        truncated=np.zeros((4, 1), bool),
    )
    visits = jax.jit(lambda rollout: state_keys.read_visits(rollout, "observation", bins))(rollout)
    assert len(np.unique(visits.before[:, 0], axis=0)) == num_different
    assert (visits.after[-1] != visits.before[-1]).any()  # the integer alone differs


@pytest.mark.parametrize("env", [maze.Maze(height=3, width=5, num_walls=2), cave.Cave(4, 7, 3)])
def test_positions_number_the_cells(env):
    x, y = np.meshgrid(np.arange(env.width), np.arange(env.height))
    zero = np.zeros_like(x)
    state = jax.tree.map(jnp.ravel, maze.State(x, y, zero, zero))
    cell = jax.vmap(lambda state: env.position(state, env.default_params))(state)
    np.testing.assert_array_equal(cell, np.arange(env.num_positions()))


@pytest.mark.parametrize("module", [counts, episodic])
def test_defaults_follow_the_environment(module):
    assert (module.build(LINE).key, module.build(LINE).pairs) == ("position", False)
    seen = module.build(testing.Probe())
    assert (seen.key, seen.pairs, seen.features) == ("observation", True, ())
    assert module.build(Eventful(), **module.VARIANTS["event"]).features == ("event",)
    hashed = module.build(LINE, log_size=2).init(jax.random.key(0), N)
    assert jax.tree.leaves(hashed)[0].shape[-1] == 4  # smaller than one entry per position
    assert jax.tree.leaves(module.build(LINE).init(jax.random.key(0), N))[0].shape[-1] == Z


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"key": "smell"}, "key='smell' is not one of position, event, observation"),
        ({"key": "observation", "table": "exact"}, "has too many values; choose table="),
        ({"table": "bitmap"}, "table='bitmap' is not one of auto, exact"),
        ({"log_size": 0}, "log_size=0 is not in 1"),
        ({"bins": -1}, "bins=-1 is not in 0"),
    ],
)
@pytest.mark.parametrize("name", ["counts", "episodic"])
def test_what_cannot_be_counted_is_refused(name, fields, sentence):
    bonus = registry.make_bonus(name, LINE)
    for field, value in fields.items():  # a call would be stopped by the type checker
        object.__setattr__(bonus, field, value)
    with pytest.raises(ValueError, match=f"{name}.*{sentence}"):
        bonus.__post_init__()


def test_an_environment_without_the_feature_is_refused(monkeypatch):
    monkeypatch.setattr(registry, "_able", lambda ability: ["maze"])  # else it builds all envs
    with pytest.raises(ValueError, match="counts with key=position needs an environment with pos"):
        counts.build(testing.Probe(), key="position")


def test_tables_too_large_or_too_many_are_refused():
    with pytest.raises(ValueError, match="exceed the limit of 2\\^31 - 1 cells"):
        counts.build(LINE, table="count-min", num_groups=2**10)
    with pytest.raises(ValueError, match="num_groups=7 exceeds the number of slots, 6;"):
        counts.build(LINE, num_groups=7).init(jax.random.key(0), N)
