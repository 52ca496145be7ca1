"""The level buffer, compared with a slow, simple implementation of the published semantics."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.buffer import Arrivals, Priority, draw, filled, insert, make_buffer, observed, update

K, NUM = 12, 4  # rows, levels per batch


class SlowBuffer:
    """Buffer with lists and loops. A level is a number with hash (number, number + 1)."""

    def __init__(self, priority):
        self.priority = priority
        self.rows = []  # dicts of level, memory, score, timestamp
        self.clock = 0

    def weights(self, excluded=()):
        chosen = [
            i for i, row in enumerate(self.rows) if i not in excluded and np.isfinite(row["score"])
        ]
        by_score = self.normalised(self.score_weights(chosen), chosen)
        ages = {i: float(self.clock - self.rows[i]["timestamp"]) for i in chosen}
        by_age = self.normalised(ages, chosen)
        share = self.priority.staleness_coef
        mixed = np.zeros(K)
        for i in chosen:
            mixed[i] = (1 - share) * by_score[i] + share * by_age[i]
        return mixed

    def score_weights(self, chosen):
        power = 1 / self.priority.temperature
        if self.priority.kind == "proportional":
            return {i: max(self.rows[i]["score"], 0.0) ** power for i in chosen}
        best_first = sorted(chosen, key=lambda i: (-self.rows[i]["score"], i))
        return {i: (1 / (n + 1)) ** power for n, i in enumerate(best_first)}

    @staticmethod
    def normalised(weights, chosen):
        total = sum(weights.values())
        return {i: weights[i] / total if total > 0 else 1 / len(chosen) for i in chosen}

    def draw(self, uniform, excluded=()):
        edges = np.cumsum(self.weights(excluded))
        row = int(np.flatnonzero(edges > uniform * edges[-1])[0])
        self.clock += 1
        self.rows[row]["timestamp"] = self.clock
        return row

    def update(self, row, score, memory):
        if row >= 0 and np.isfinite(score):
            self.rows[row] |= {"score": score, "memory": memory}

    def insert(self, level, score, memory, protected=(), deduplicate=True):
        if not np.isfinite(score):
            return
        new = {"level": level, "memory": memory, "score": score, "timestamp": self.clock + 1}
        known = [i for i, row in enumerate(self.rows) if row["level"] == level and deduplicate]
        if known:
            self.rows[known[0]] = new
        elif len(self.rows) < K:
            self.rows.append(new)
        else:
            weights = self.weights()
            weights[list(protected)] = np.inf
            weakest = int(np.argmin(weights))
            if weakest not in protected and score > self.rows[weakest]["score"]:
                self.rows[weakest] = new
        self.clock += 1


def empty():
    return make_buffer(K, {"id": jnp.int32(0)}, jnp.float32(0))


def arrivals(levels, scores, valid=None):
    levels = jnp.asarray(levels, jnp.int32)
    words = levels.astype(jnp.uint32)
    valid = jnp.ones(levels.shape, bool) if valid is None else jnp.asarray(valid)
    scores = jnp.asarray(scores, jnp.float32)
    memory = 10.0 * scores
    return Arrivals({"id": levels}, memory, scores, jnp.stack([words, words + 1], -1), valid)


def mask(rows):
    return jnp.zeros(K, bool).at[jnp.asarray(list(rows), jnp.int32)].set(True)


def assert_same(buffer, slow):
    size = len(slow.rows)
    assert int(buffer.size) == size
    assert int(buffer.clock) == slow.clock
    columns = {
        "level": buffer.level["id"],
        "memory": buffer.level_info,
        "score": buffer.score,
        "timestamp": buffer.timestamp,
    }
    for name, column in columns.items():
        np.testing.assert_array_equal(column[:size], [r[name] for r in slow.rows], err_msg=name)
    assert not jnp.isfinite(buffer.score[size:]).any()


def compiled(priority, sequential, deduplicate=True):
    """Compile the three operations on a whole batch."""

    @jax.jit
    def inserting(buffer, batch, protected):
        protected &= filled(buffer)
        return insert(buffer, batch, priority, protected, sequential, deduplicate)

    @jax.jit
    def drawing(key, buffer, excluded, used):
        return draw(key, buffer, priority, observed(buffer) & ~excluded, used, sequential)

    return inserting, drawing, jax.jit(update)


PRIORITIES = [
    Priority("rank", 0.3, 0.3),
    Priority("rank", 1.0, 0.0),
    Priority("proportional", 0.5, 0.5),
    Priority("rank", 0.1, 1.0),
]


class Trace:
    """Both buffers, given batches with ties, duplicates and levels without evidence."""

    def __init__(self, priority, deduplicate, seed):
        self.rng = np.random.default_rng(seed)
        self.deduplicate = deduplicate
        self.slow, self.fast = SlowBuffer(priority), empty()

    def batch(self):
        scores = self.rng.integers(0, 6, NUM) / np.float32(4)  # ties are frequent
        scores[self.rng.random(NUM) < 0.15] = -np.inf
        special = set(self.rng.integers(0, K, 2).tolist())
        return scores, self.rng.integers(0, 30, NUM), self.rng.random(NUM) < 0.8, special

    def insert(self, inserting):
        scores, levels, valid, held = self.batch()
        self.fast = inserting(self.fast, arrivals(levels, scores, valid), mask(held))
        present = {i for i in held if i < len(self.slow.rows)}
        for level, score in zip(levels[valid], scores[valid], strict=True):
            self.slow.insert(level, score, 10 * score, present, self.deduplicate)

    def draw(self, drawing):
        if len(self.slow.rows) > 3:
            key = jax.random.key(self.rng.integers(1 << 30))
            _, _, valid, excluded = self.batch()
            self.fast, rows = drawing(key, self.fast, mask(excluded), jnp.asarray(valid))
            uniform = np.asarray(jax.random.uniform(key, (NUM,)))[valid]
            expected = [self.slow.draw(u, excluded) for u in uniform]
            np.testing.assert_array_equal(np.asarray(rows)[valid], expected)

    def update(self, updating):
        scores, levels, valid, _ = self.batch()
        rows = self.rng.integers(-1, max(len(self.slow.rows), 1), NUM).astype(np.int32)
        rows[1] = rows[0]  # a row drawn twice: the last entry counts
        rows = np.where(rows < len(self.slow.rows), rows, -1)
        memory = (3 * scores + levels).astype(np.float32)
        self.fast = updating(self.fast, *map(jnp.asarray, (rows, scores, memory, valid)))
        for entry in zip(rows[valid], scores[valid], memory[valid], strict=True):
            self.slow.update(*entry)


@pytest.mark.thorough
@pytest.mark.parametrize("deduplicate", [True, False])
@pytest.mark.parametrize("priority", PRIORITIES, ids=lambda p: f"{p.kind}-{p.staleness_coef}")
def test_the_sequential_mode_equals_a_slow_implementation_on_random_traces(priority, deduplicate):
    operations = compiled(priority, sequential=True, deduplicate=deduplicate)
    for seed in range(3):
        trace = Trace(priority, deduplicate, seed)
        choices = np.random.default_rng(seed).choice(3, 40, p=[0.5, 0.25, 0.25])
        for choice in choices:
            step = (trace.insert, trace.draw, trace.update)[choice]
            step(operations[choice])
            assert_same(trace.fast, trace.slow)
        assert len(trace.slow.rows) == K  # the trace filled the buffer


@pytest.mark.thorough
@pytest.mark.parametrize("priority", PRIORITIES, ids=lambda p: f"{p.kind}-{p.staleness_coef}")
def test_priorities_are_a_distribution_over_observed_rows_and_equal_the_slow_ones(priority):
    slow, buffer = SlowBuffer(priority), empty()
    levels, scores = np.arange(9), np.asarray([0, 1, 1, 2, 0.5, 3, 0, 1, 2.0])
    inserting, drawing, _ = compiled(priority, sequential=True)
    for i in range(9):
        buffer = inserting(buffer, arrivals(levels[i : i + 1], scores[i : i + 1]), mask([]))
        slow.insert(levels[i], scores[i], 10 * scores[i])
    buffer, rows = drawing(jax.random.key(0), buffer, mask([]), jnp.ones(NUM, bool))
    for row in rows:
        slow.clock += 1
        slow.rows[int(row)]["timestamp"] = slow.clock
    for excluded in ([], [5], [0, 3, 7], range(8)):
        weights = priority(buffer, observed(buffer) & ~mask(excluded))
        np.testing.assert_allclose(weights, slow.weights(excluded), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
        assert not weights[9:].any()
    assert not priority(buffer, mask([])).any()


def test_rank_priorities_worked_by_hand():
    """Scores 5, 7, 1 have ranks 2, 1, 3; β = 1/2 squares 1/rank; staleness 2, 0, 6 sums to 8."""
    buffer = empty()._replace(
        score=jnp.full(K, -jnp.inf).at[:3].set(jnp.asarray([5.0, 7.0, 1.0])),
        timestamp=jnp.zeros(K, jnp.int32).at[:3].set(jnp.asarray([4, 6, 0])),
        size=jnp.int32(3),
        clock=jnp.int32(6),
    )
    by_rank = np.asarray([1 / 4, 1, 1 / 9]) / (1 + 1 / 4 + 1 / 9)
    expected = 0.75 * by_rank + 0.25 * np.asarray([2, 0, 6]) / 8
    weights = Priority("rank", temperature=0.5, staleness_coef=0.25)(buffer, observed(buffer))
    np.testing.assert_allclose(weights[:3], expected, rtol=1e-6)


@pytest.mark.thorough
def test_a_row_never_observed_is_never_drawn_even_where_the_cumulative_sum_rounds():
    num_rows = 4000
    buffer = make_buffer(num_rows, {"id": jnp.int32(0)}, jnp.float32(0))
    known = jnp.arange(num_rows) % 7 == 3
    buffer = buffer._replace(
        score=jnp.where(known, jnp.linspace(0, 1, num_rows), -jnp.inf),
        size=jnp.int32(num_rows),
        clock=jnp.int32(5),
    )
    for sequential, num_draws in ((False, 20_000), (True, 50)):
        used = jnp.ones(num_draws, bool)
        for coef in (0.0, 1.0):
            _, rows = draw(
                jax.random.key(1), buffer, Priority("rank", 1.0, coef), known, used, sequential
            )
            assert known[rows].all()


def test_batched_draws_follow_the_priorities():
    rng = np.random.default_rng(0)
    buffer = empty()._replace(
        score=jnp.asarray(rng.random(K), jnp.float32), size=jnp.int32(K), clock=jnp.int32(20)
    )
    buffer = buffer._replace(timestamp=jnp.asarray(rng.integers(0, 20, K), jnp.int32))
    priority, num_draws = Priority("rank", 1.0, 0.5), 20_000
    expected = np.asarray(priority(buffer, filled(buffer)))
    after, rows = draw(
        jax.random.key(3), buffer, priority, filled(buffer), jnp.ones(num_draws, bool)
    )
    counts = np.bincount(rows, minlength=K)
    chi_square = ((counts - num_draws * expected) ** 2 / (num_draws * expected)).sum()
    assert chi_square < 31.3  # 99.9 % quantile, 11 degrees of freedom
    assert int(after.clock) == 20 + num_draws
    last = num_draws - 1 - np.asarray([np.argmax(np.asarray(rows)[::-1] == i) for i in range(K)])
    last = num_draws - 1 - (num_draws - 1 - last)
    np.testing.assert_array_equal(after.timestamp, 20 + 1 + last)


def test_the_batched_mode_keeps_the_same_levels_as_the_sequential_one_while_there_is_room():
    priority = Priority()
    one_by_one, batched = compiled(priority, True)[0], compiled(priority, False)[0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        slow, fast = empty(), empty()
        for _ in range(3):
            batch = arrivals(rng.integers(0, 15, NUM), rng.random(NUM), rng.random(NUM) < 0.8)
            slow, fast = one_by_one(slow, batch, mask([])), batched(fast, batch, mask([]))
        kept = [
            sorted(zip(b.level["id"].tolist(), b.score.tolist(), b.timestamp.tolist(), strict=True))
            for b in (slow, fast)
        ]
        assert kept[0] == kept[1]
        assert int(slow.clock) == int(fast.clock)


def test_the_batched_mode_replaces_the_rows_of_lowest_priority_by_the_best_arrivals():
    """Without staleness, scores order priorities; four levels compete with the lowest rows."""
    priority = Priority("rank", 1.0, 0.0)
    one_by_one, batched = compiled(priority, True)[0], compiled(priority, False)[0]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        scores = rng.permutation(K + NUM) / 10.0
        buffer = empty()
        for at in range(0, K, NUM):
            buffer = batched(
                buffer, arrivals(np.arange(at, at + NUM), scores[at : at + NUM]), mask([])
            )
        batch = arrivals(np.arange(K, K + NUM), np.sort(scores[K:]))  # worst first: the same result
        fast, slow = batched(buffer, batch, mask([])), one_by_one(buffer, batch, mask([]))
        lowest = np.sort(scores[:K])[:NUM]
        best = np.sort(scores[K:])[::-1]
        survivors = np.where(best > lowest, best, lowest)
        expected = np.sort(np.concatenate([np.sort(scores[:K])[NUM:], survivors]))
        np.testing.assert_allclose(np.sort(fast.score), expected, rtol=1e-6)
        # Sequential insertion keeps the K best levels; pairwise comparison may miss some.
        assert float(fast.score.sum()) <= float(slow.score.sum()) + 1e-5


@pytest.mark.parametrize("sequential", [True, False])
def test_protected_rows_stay_and_the_capacity_holds(sequential):
    inserting = compiled(Priority(staleness_coef=0.0), sequential)[0]
    buffer = empty()
    for at in range(0, K, NUM):
        buffer = inserting(buffer, arrivals(np.arange(at, at + NUM), np.zeros(NUM)), mask([]))
    held = [1, 4, 5]
    for at in range(K, 5 * K, NUM):
        buffer = inserting(buffer, arrivals(np.arange(at, at + NUM), np.full(NUM, at)), mask(held))
        assert int(buffer.size) == K
        np.testing.assert_array_equal(buffer.level["id"][jnp.asarray(held)], held)
    assert not (np.delete(np.asarray(buffer.level["id"]), held) < K).any()
    everything = mask(range(K))
    after = inserting(buffer, arrivals(np.arange(900, 900 + NUM), np.full(NUM, 1e6)), everything)
    np.testing.assert_array_equal(after.level["id"], buffer.level["id"])


@pytest.mark.parametrize("sequential", [True, False])
def test_a_level_is_held_once(sequential):
    inserting = compiled(Priority(), sequential)[0]
    buffer = inserting(empty(), arrivals([3, 5, 3, 3], [1.0, 2.0, 0.5, 0.25]), mask([]))
    assert sorted(buffer.level["id"][:2].tolist()) == [3, 5]
    assert int(buffer.size) == 2
    where_three = int(jnp.argmax(buffer.level["id"] == 3))
    assert float(buffer.score[where_three]) == 0.25  # the last reported score
    assert int(buffer.timestamp[where_three]) == 4
    buffer = inserting(buffer, arrivals([3, 7, 7, 3], [-np.inf, -np.inf, 9.0, 8.0]), mask([]))
    assert int(buffer.size) == 3
    np.testing.assert_array_equal(np.sort(buffer.score[:3]), [2.0, 8.0, 9.0])
    assert int(buffer.clock) == 6  # levels without evidence do not count


def test_an_update_without_evidence_or_row_changes_nothing():
    buffer = insert(empty(), arrivals([1, 2, 3, 4], [1, 2, 3, 4]), Priority(), mask([]))
    rows, scores = jnp.asarray([0, -1, 2, 3]), jnp.asarray([-jnp.inf, 9.0, jnp.nan, 9.0])
    valid = jnp.asarray([True, True, True, False])
    after = update(buffer, rows, scores, scores, valid)
    jax.tree.map(np.testing.assert_array_equal, after, buffer)


@pytest.mark.thorough
@pytest.mark.parametrize("sequential", [True, False])
def test_seeds_under_vmap_equal_single_buffers(sequential):
    inserting, drawing, updating = compiled(Priority(), sequential)
    rng = np.random.default_rng(5)
    num_seeds = 3
    single = [empty() for _ in range(num_seeds)]
    many = jax.tree.map(lambda *x: jnp.stack(x), *single)
    rows = jnp.asarray(rng.integers(0, 6, (num_seeds, NUM)), jnp.int32)
    used = jnp.ones((num_seeds, NUM), bool)
    for step in range(6):
        batches = [arrivals(rng.integers(0, 30, NUM), rng.random(NUM)) for _ in range(num_seeds)]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *batches)
        keys = jax.random.split(jax.random.key(step), num_seeds)
        many = jax.vmap(inserting, in_axes=(0, 0, None))(many, stacked, mask([]))
        many, drawn = jax.vmap(drawing, in_axes=(0, 0, None, 0))(keys, many, mask([]), used)
        many = jax.vmap(updating)(many, rows, stacked.score, stacked.level_info, used)
        for i, batch in enumerate(batches):
            buffer, row = drawing(keys[i], inserting(single[i], batch, mask([])), mask([]), used[i])
            np.testing.assert_array_equal(row, drawn[i])
            single[i] = updating(buffer, rows[i], batch.score, batch.level_info, used[i])
    for i, buffer in enumerate(single):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), many, buffer)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"staleness_coef": 1.5}, r"staleness_coef must lie in \[0, 1\]"),
    ],
)
def test_impossible_priorities_are_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        Priority(**fields)


def test_an_unknown_priority_is_refused_with_the_nearest_known():
    # The tests' type checks would reject it in a Priority.
    priority: Any = SimpleNamespace(kind="rang")
    with pytest.raises(ValueError, match="did you mean 'rank'"):
        Priority.__post_init__(priority)
