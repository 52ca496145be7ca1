"""Level buffer for replay: priorities, draws and insertions as pure functions.

A buffer has K rows, each of which holds one level and the level's score. The buffer's clock
advances by 1 with every draw and with every level that is offered for insertion. The *staleness* of
a row is the number of clock ticks since the row was last drawn or written.

Draws and insertions have two modes. The sequential mode is the reference: it processes the levels
of a batch one after the other and updates the buffer after each level, as JaxUED does. The default
mode processes a whole batch at once and computes priorities once per batch. The default mode
differs from the reference as follows:

- The draws of a batch are independent. In the reference, a row that the batch has just drawn has
  staleness 0 and is therefore a little less likely to be drawn again.
- The new levels of a batch are sorted by score, so their order in the batch does not matter. The
  level with the highest score is offered the first empty row or, if no row is empty, the row of
  lowest priority. The level with the second-highest score is offered the next row, and so on. No
  row is replaced twice within a batch.
- If a batch contains equal levels, only the last of them is considered.

Sources: Jiang et al., 2021, "Prioritized Level Replay"; Jiang et al., 2021, "Replay-Guided
Adversarial Environment Design" (robust PLR). The sequential mode has the semantics of JaxUED
(Coward et al., 2024), except that a level without data (score `-inf`) is never inserted.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.registry import did_you_mean
from rlgen.types import Key, PyTree

PriorityKind = Literal["rank", "proportional"]


class LevelBuffer(NamedTuple):
    """Buffer of K rows, of which the first `size` rows are filled."""

    level: PyTree  # [K, ...]
    level_info: PyTree  # [K, ...] data stored with each level, such as the score's memory
    score: Float[Array, " K"]  # -inf if the level has no score yet
    timestamp: Int[Array, " K"]  # value of the clock when the row was last drawn or written
    hash: UInt32[Array, "K 2"]  # content hash of the level
    size: Int[Array, ""]
    clock: Int[Array, ""]  # number of draws and of levels offered for insertion


class Arrivals(NamedTuple):
    """n levels that are offered for insertion, and the data to store with each level."""

    level: PyTree  # [n, ...]
    level_info: PyTree  # [n, ...]
    score: Float[Array, " n"]
    hash: UInt32[Array, "n 2"]
    valid: Bool[Array, " n"]  # False for entries to ignore


@runtime_checkable
class Weighting(Protocol):
    """Interface of priorities, which decide which rows are drawn and which rows are replaced.

    A row's priority combines a part that depends on the scores and a part that depends on
    staleness. Draws do not change the part that depends on the scores, so this part is computed
    once for a batch of draws.
    """

    def __call__(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return the probability of each row; it is 0 outside `rows`.

        `rows` is a mask of the rows that can be drawn. The probabilities sum to 1, unless the mask
        is False everywhere.
        """
        ...

    def by_score(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return the part of the priority that does not depend on staleness."""
        ...

    def with_staleness(
        self, by_score: Float[Array, " K"], buffer: LevelBuffer, rows: Bool[Array, " K"]
    ) -> Float[Array, " K"]:
        """Return the priority, given its part `by_score` and the staleness of the buffer's rows."""
        ...


@dataclass(frozen=True)
class Priority:
    """Replay distribution over the rows: P = (1 − ρ) w_score + ρ w_stale.

    Attributes:
        kind: `rank`: w_score ∝ (1 / rank)^(1/β), where the highest score has rank 1 and equal
            scores are ranked by the indices of their rows. `proportional`: w_score ∝ score^(1/β),
            where negative scores count as 0.
        temperature: β; a lower value gives the highest scores more weight.
        staleness_coef: ρ, weight of w_stale. w_stale is proportional to the number of draws and
            insertions since the row was last drawn or written (clock − timestamp).

    Raises:
        ValueError: unknown kind, β not positive, or ρ outside [0, 1].
    """

    kind: PriorityKind = "rank"
    temperature: float = 0.3
    staleness_coef: float = 0.3

    def __post_init__(self):
        if self.kind not in get_args(PriorityKind):
            raise ValueError(
                f"unknown priority {self.kind!r}; {did_you_mean(self.kind, get_args(PriorityKind))}"
            )
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be positive, got {self.temperature}; to draw almost only the "
                "highest scores, use a small value such as 0.05"
            )
        if not 0 <= self.staleness_coef <= 1:
            raise ValueError(f"staleness_coef must lie in [0, 1], got {self.staleness_coef}")

    def __call__(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return the probability of each row; see `Weighting`."""
        return self.with_staleness(self.by_score(buffer, rows), buffer, rows)

    def by_score(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return w_score, which does not depend on staleness."""
        weights = rank_weights if self.kind == "rank" else proportional_weights
        return weights(buffer.score, rows, self.temperature)

    def with_staleness(
        self, by_score: Float[Array, " K"], buffer: LevelBuffer, rows: Bool[Array, " K"]
    ) -> Float[Array, " K"]:
        """Return P, given w_score and the staleness of the buffer's rows."""
        stale = staleness_weights(buffer, rows)
        return (1 - self.staleness_coef) * by_score + self.staleness_coef * stale


def rank_weights(
    score: Float[Array, " K"], rows: Bool[Array, " K"], temperature: float
) -> Float[Array, " K"]:
    """Weights ∝ (1 / rank)^(1/temperature) over the rows in `rows`; rank 1 is the highest score."""
    # `order[r]` is the row of rank r + 1; rows outside `rows` come last and get weight 0 below.
    order = jnp.argsort(jnp.where(rows, -score, jnp.inf), stable=True)
    by_rank = jnp.arange(1.0, score.size + 1.0) ** (-1.0 / temperature)
    weights = jnp.zeros_like(score).at[order].set(by_rank, unique_indices=True)
    return _normalised(weights, rows)


def proportional_weights(
    score: Float[Array, " K"], rows: Bool[Array, " K"], temperature: float
) -> Float[Array, " K"]:
    """Weights ∝ score^(1/temperature) over the rows in `rows`; uniform if no score is positive."""
    score = jnp.where(rows, jnp.maximum(score, 0.0), 0.0)
    best = score.max()
    # The scores are divided by the best score, because powers of the raw scores could overflow, or
    # all of them could underflow to 0.
    return _normalised((score / jnp.where(best > 0, best, 1.0)) ** (1.0 / temperature), rows)


def staleness_weights(buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
    """Weights ∝ staleness over the rows in `rows`; uniform if the staleness of all rows is 0."""
    return _normalised((buffer.clock - buffer.timestamp).astype(jnp.float32), rows)


def make_buffer(capacity: int, level: PyTree, level_info: PyTree) -> LevelBuffer:
    """Make an empty buffer.

    Args:
        capacity: number of rows, K.
        level: example of a level, for shapes and dtypes.
        level_info: example of the data stored with a level.
    """

    def rows(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (capacity, *jnp.shape(x))), tree)

    return LevelBuffer(
        level=rows(level),
        level_info=rows(level_info),
        score=jnp.full(capacity, -jnp.inf),
        timestamp=jnp.zeros(capacity, jnp.int32),
        hash=jnp.zeros((capacity, 2), jnp.uint32),
        size=jnp.zeros((), jnp.int32),
        clock=jnp.zeros((), jnp.int32),
    )


def filled(buffer: LevelBuffer) -> Bool[Array, " K"]:
    """True for rows that hold a level."""
    return jnp.arange(buffer.score.size) < buffer.size


def observed(buffer: LevelBuffer) -> Bool[Array, " K"]:
    """True for rows that hold a level with a finite score: the rows that can be replayed."""
    return filled(buffer) & jnp.isfinite(buffer.score)


def draw(
    key: Key,
    buffer: LevelBuffer,
    priority: Weighting,
    rows: Bool[Array, " K"],
    used: Bool[Array, " n"],
    sequential: bool = False,
) -> tuple[LevelBuffer, Int[Array, " n"]]:
    """Draw n rows with replacement; each draw advances the clock and sets the row's timestamp.

    Args:
        key: consumed.
        buffer: only its clock and timestamps change.
        priority: probabilities of the rows.
        rows: mask of the rows that can be drawn. If the mask is False everywhere, the result is
            undefined.
        used: mask of the draws that count. A draw that does not count leaves the buffer unchanged.
        sequential: if True, compute each draw from the staleness after the previous draws.

    Returns:
        The new buffer and the indices of the n rows.
    """
    uniform = jax.random.uniform(key, used.shape)
    by_score = priority.by_score(buffer, rows)

    def batch(buffer: LevelBuffer, draws: tuple) -> tuple[LevelBuffer, Array]:
        uniform, used = draws
        row = _pick(priority.with_staleness(by_score, buffer, rows), uniform)
        stamp = buffer.clock + jnp.cumsum(used)  # [n], the clock after each draw
        at = jnp.where(used, row, rows.size)  # an index out of bounds is dropped
        # If a row was drawn more than once, `max` keeps the time of the last draw.
        timestamp = buffer.timestamp.at[at].max(stamp, mode="drop")
        return buffer._replace(timestamp=timestamp, clock=buffer.clock + used.sum()), row

    if not sequential:
        return batch(buffer, (uniform, used))
    ones = jax.tree.map(lambda x: x[:, None], (uniform, used))  # n batches of one draw each
    buffer, row = jax.lax.scan(batch, buffer, ones)
    return buffer, row[:, 0]


def draw_distinct(
    key: Key,
    buffer: LevelBuffer,
    priority: Weighting,
    rows: Bool[Array, " K"],
    used: Bool[Array, " n"],
) -> tuple[LevelBuffer, Int[Array, " n"]]:
    """Draw rows without replacement, each from the remaining rows in proportion to their priority.

    Args:
        key: consumed.
        buffer: only its clock and timestamps change.
        priority: probabilities of the first draw; later draws renormalise over the remaining rows.
        rows: mask of the rows that can be drawn. Their number must be at least the number of draws
            that count.
        used: mask of the draws that count; there are n ≤ K draws in total. A draw that does not
            count leaves the buffer unchanged and returns an undefined row.

    Returns:
        The new buffer and the indices of the n rows. The rows of draws that count are distinct.

    Source: Gumbel-top-k, e.g. Kool et al., 2019, "Stochastic Beams and Where to Find Them".
    """
    # Gumbel-top-k: let G_i be standard Gumbel noise. The rows with the n largest values of log P_i
    # + G_i are then n draws from P without replacement.
    probability = priority(buffer, rows)
    # The lower bound keeps the log finite: a row that can be drawn must precede all rows outside
    # `rows`, even if its probability underflows to 0.
    tiny = jnp.finfo(probability.dtype).tiny
    perturbed = jnp.log(jnp.maximum(probability, tiny)) + jax.random.gumbel(key, rows.shape)
    best = jax.lax.top_k(jnp.where(rows, perturbed, -jnp.inf), used.size)[1]
    order = jnp.cumsum(used)  # the k-th draw that counts takes the k-th best row
    row = best[jnp.maximum(order - 1, 0)]
    at = jnp.where(used, row, rows.size)  # an index out of bounds is dropped
    # The rows are distinct, so `set` suffices here, whereas `draw` needs `max`.
    timestamp = buffer.timestamp.at[at].set(buffer.clock + order, mode="drop")
    return buffer._replace(timestamp=timestamp, clock=buffer.clock + used.sum()), row


def update(
    buffer: LevelBuffer,
    row: Int[Array, " n"],
    score: Float[Array, " n"],
    level_info: PyTree,
    valid: Bool[Array, " n"],
) -> LevelBuffer:
    """Overwrite the score and the level info of rows whose levels were played again.

    Entries with a row below 0 or a score of `-inf` are ignored. If a row occurs more than once, its
    last entry counts. The clock and the timestamps do not change, because the draw of the row has
    already updated them.
    """
    valid = valid & (row >= 0) & jnp.isfinite(score)
    valid = _last_of_each(row[:, None] == row[None], valid)
    at = jnp.where(valid, row, buffer.score.size)  # an index out of bounds is dropped
    return buffer._replace(
        score=buffer.score.at[at].set(score, mode="drop"),
        level_info=_put(buffer.level_info, at, level_info),
    )


def insert(
    buffer: LevelBuffer,
    arrivals: Arrivals,
    priority: Weighting,
    protected: Bool[Array, " K"],
    sequential: bool = False,
    deduplicate: bool = True,
) -> LevelBuffer:
    """Insert up to n levels into the buffer.

    If the buffer has an empty row, a new level is written to this row. Otherwise the new level
    replaces the row of lowest priority, provided that the new level has a higher score than this
    row. If the buffer already holds an equal level, the row of that level is overwritten instead,
    including the level info, as in JaxUED. Every valid level with a finite score advances the
    clock, even if the level is not inserted. A level with score `-inf` is ignored.

    Args:
        buffer: K rows.
        arrivals: n levels, n ≤ K.
        priority: decides which rows are replaced first.
        protected: mask of filled rows that must not be replaced, such as rows whose levels are
            being played.
        sequential: if True, insert the levels one after the other.
        deduplicate: if True, store levels with equal hashes in a single row.
    """
    if not sequential:
        return _insert_batch(buffer, arrivals, priority, protected, deduplicate)

    def one(buffer: LevelBuffer, arrival: Arrivals) -> tuple[LevelBuffer, None]:
        return _insert_batch(buffer, arrival, priority, protected, deduplicate), None

    return jax.lax.scan(one, buffer, jax.tree.map(lambda x: x[:, None], arrivals))[0]


def _insert_batch(
    buffer: LevelBuffer,
    arrivals: Arrivals,
    priority: Weighting,
    protected: Bool[Array, " K"],
    deduplicate: bool,
) -> LevelBuffer:
    num_arrivals, capacity = arrivals.score.size, buffer.score.size
    waiting = arrivals.valid & jnp.isfinite(arrivals.score)
    # The clock is computed before duplicates are dropped from `waiting`, since every valid level
    # advances the clock.
    clock = buffer.clock + waiting.sum()
    stamp = buffer.clock + jnp.cumsum(waiting)
    if deduplicate:
        waiting = _last_of_each(_equal(arrivals.hash, arrivals.hash), waiting)
        known = _equal(arrivals.hash, buffer.hash) & filled(buffer)[None]
        held = known.any(-1)
        at = jnp.where(waiting & held, known.argmax(-1), capacity)
        buffer = _write(buffer, at, arrivals, stamp)
        waiting = waiting & ~held
    # Rows are offered in the order of their worth: first empty rows (worth -1), then filled rows by
    # rising priority, and last protected rows (worth inf).
    worth = jnp.where(protected, jnp.inf, priority(buffer, observed(buffer)))
    worth = jnp.where(filled(buffer), worth, -1.0)
    # Filled rows without a score have priority 0, so they are replaced before rows with a score.
    # `top_k` keeps the order of equal entries, so empty rows are sorted by index.
    target = jax.lax.top_k(-worth, num_arrivals)[1]
    best_first = jnp.argsort(jnp.where(waiting, -arrivals.score, jnp.inf), stable=True)
    arrivals, stamp, waiting = jax.tree.map(lambda x: x[best_first], (arrivals, stamp, waiting))
    # The k-th best arrival is now paired with the k-th target.
    # The filled rows must remain a prefix of the buffer. Waiting arrivals come first, so the empty
    # rows that receive a level are consecutive, and `size` grows by the number of these rows.
    empty = target >= buffer.size
    better = (arrivals.score > buffer.score[target]) & ~protected[target]
    accepted = waiting & (empty | better)
    buffer = _write(buffer, jnp.where(accepted, target, capacity), arrivals, stamp)
    return buffer._replace(size=buffer.size + (accepted & empty).sum(), clock=clock)


def _write(
    buffer: LevelBuffer, at: Int[Array, " n"], arrivals: Arrivals, stamp: Int[Array, " n"]
) -> LevelBuffer:
    """Write arrivals to the distinct rows `at`; an arrival with a row out of bounds is dropped."""
    return buffer._replace(
        level=_put(buffer.level, at, arrivals.level),
        level_info=_put(buffer.level_info, at, arrivals.level_info),
        score=buffer.score.at[at].set(arrivals.score, mode="drop"),
        timestamp=buffer.timestamp.at[at].set(stamp, mode="drop"),
        hash=buffer.hash.at[at].set(arrivals.hash, mode="drop"),
    )


def _put(tree: PyTree, at: Int[Array, " n"], values: PyTree) -> PyTree:
    return jax.tree.map(lambda x, v: x.at[at].set(v, mode="drop"), tree, values)


def _pick(probability: Float[Array, " K"], uniform: Float[Array, " n"]) -> Int[Array, " n"]:
    """Sample rows by inverting the cumulative distribution."""
    edges = jnp.cumsum(probability)
    # `uniform` is scaled by the last edge, which may differ slightly from 1 because of rounding.
    row = jnp.searchsorted(edges, uniform * edges[-1], side="right")
    row = jnp.minimum(row, probability.size - 1)
    # Because of rounding in the cumulative sum, about one draw in 10⁷ selects a row of probability
    # zero. The most probable row is returned instead.
    return jnp.where(probability[row] > 0, row, probability.argmax())


def _normalised(weights: Float[Array, " K"], rows: Bool[Array, " K"]) -> Float[Array, " K"]:
    """Normalise weights to a distribution over the rows in `rows`; uniform if all weights are 0."""
    weights = jnp.where(rows, weights, 0.0)
    # The inner `where` avoids 0 / 0, which would give NaN in the branch that is not selected.
    total = weights.sum()
    uniform = rows / jnp.maximum(rows.sum(), 1)
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1.0), uniform)


def _equal(x: UInt32[Array, "n 2"], y: UInt32[Array, "m 2"]) -> Bool[Array, "n m"]:
    return (x[:, None] == y[None]).all(-1)


def _last_of_each(same: Bool[Array, "n n"], valid: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """True for the last valid entry of each group of equal entries.

    `same[i, j]` is True if the entries i and j are equal.
    """
    # later[i, j] for j > i: entry j is valid and equal to entry i.
    later = jnp.triu(same & valid[None], k=1)
    return valid & ~later.any(-1)
