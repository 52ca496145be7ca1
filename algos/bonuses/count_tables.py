"""Tables of visits: how often a key was met in a run, and whether it was met in an episode.

Both kinds are walked by one scan over time, in which a table is updated in place. A key has a cell
of its own where keys are few, and a cell by its hash otherwise.

Sources: Cormode and Muthukrishnan, 2005, "An Improved Data Stream Summary: the Count-Min Sketch and
its Applications"; the finaliser by which keys are hashed is MurmurHash3's.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt16, UInt32

from rlgen.algos.bonuses.state_keys import Visits, lanes

MOST_EPISODES = 2**16 - 2
"""Episodes that one call can tell apart, and so the most steps of a rollout."""


class Around(NamedTuple):
    """Something of the keys before and after each step: their cells in a table, or their tags."""

    before: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]
    after: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]


class Marks(NamedTuple):
    """What each slot's episode has met: a cell holds the episode's stamp and the key's tag.

    Forgetting is a new stamp. Stamps begin again with every call, so that they never run out.
    """

    mark: UInt32[Array, "N C"]  # stamp in the upper 16 bits, tag in the lower; 0 if never used
    num_met: UInt16[Array, "N C"] | tuple[()]  # times in that episode; () if only whether matters
    stamp: UInt32[Array, " N"]  # of the running episode


class EpisodicCounts(NamedTuple):
    """Counts of each step in an episodic table."""

    times: Int[Array, "T N"]  # that the successor's key was met in this episode, now included
    lost: Bool[Array, "T N"]  # another key of the same episode had to leave the cell


def own_cells(visits: Visits) -> Around:
    """A cell for each key: its number."""
    return Around(visits.before.astype(jnp.int32), visits.after.astype(jnp.int32))


def hashed_rows(visits: Visits, num_cells: int, num_rows: int) -> Around:
    """A key's cells in the k rows of a count-min sketch, [T, N, k].

    Source of making k hashes of two: Kirsch and Mitzenmacher, 2006, "Less Hashing, Same
    Performance: Building a Better Bloom Filter".
    """

    def hashed(keys: Array) -> Array:
        pair = lanes(keys)
        row = jnp.arange(num_rows, dtype=jnp.uint32)[None, None]
        return ((pair[..., :1] + row * pair[..., 1:]) & (num_cells - 1)).astype(jnp.int32)

    return Around(hashed(visits.before), hashed(visits.after))


def hashed_cells(visits: Visits, num_cells: int) -> tuple[Around, Around]:
    """A key's cell, by one of its hashes, and its tag of 16 bits, by the other."""
    pairs = [lanes(keys) for keys in visits[:2]]
    cells = Around(*((pair[..., 0] & (num_cells - 1)).astype(jnp.int32) for pair in pairs))
    return cells, Around(*(pair[..., 1] >> 16 for pair in pairs))


def count_visits(
    table: UInt32[Array, "G k C"],
    cells: Around,
    begins: Bool[Array, "T N"],
    moves: Bool[Array, "T N"],
) -> tuple[UInt32[Array, "G k C"], UInt32[Array, "T N"]]:
    """Add every step's visits of all slots, then read: how often each successor was met by then.

    Slot n counts in the table n mod G. Never too low; too high where hashes collide in all rows.

    Args:
        table: counts so far.
        cells: of the keys around each step, in each of k rows, [T, N, k].
        begins: whether the state before a step is counted, as the first of an episode.
        moves: whether the state after it is.
    """
    groups, rows, num_cells = table.shape
    group = jnp.arange(begins.shape[1], dtype=jnp.int32)[:, None] % groups
    base = (group * rows + jnp.arange(rows, dtype=jnp.int32)[None]) * num_cells

    def step(flat: Array, xs: tuple) -> tuple[Array, Array]:
        (before, after), begin, move = xs
        after = base + after
        at = jnp.concatenate([base + before, after])
        ones = jnp.concatenate([begin, move]).astype(jnp.uint32)
        flat = flat.at[at].add(jnp.broadcast_to(ones[:, None], at.shape))
        return flat, flat[after].min(-1)

    flat, times = jax.lax.scan(step, table.reshape(-1), (cells, begins, moves))
    return flat.reshape(table.shape), times


def no_marks(num_slots: int, num_cells: int, counted: bool) -> Marks:
    """Episodic tables in which nothing was met."""
    shape = (num_slots, num_cells)
    num_met = jnp.zeros(shape, jnp.uint16) if counted else ()
    return Marks(jnp.zeros(shape, jnp.uint32), num_met, jnp.ones(num_slots, jnp.uint32))


def mark_visits(
    marks: Marks,
    cells: Around,
    tags: Around,
    first: Bool[Array, "T N"],
    known: Bool[Array, "T N"],
) -> tuple[Marks, EpisodicCounts]:
    """Follow each slot's episodes; where one begins, all is forgotten and its first state is met.

    Two keys of an episode on one cell drive each other out, so that a return looks new: `lost`.

    Args:
        marks: what the running episodes have met.
        cells, tags: of the keys around each step; tags below 2^16.
        first: whether an episode begins with a step.
        known: whether the successor is known; others are not met.

    Raises:
        ValueError: more steps than there are stamps.
    """
    if first.shape[0] > MOST_EPISODES:
        raise ValueError(
            f"a rollout of {first.shape[0]} steps may begin more episodes than the "
            f"{MOST_EPISODES} that an episodic table tells apart; take shorter rollouts"
        )

    def step(marks: Marks, xs: tuple) -> tuple[Marks, EpisodicCounts]:
        cell, tag, begins, knows = xs
        stamp = marks.stamp + begins.astype(jnp.uint32)
        word = Around(*((stamp << 16) | x for x in tag))
        marks, _ = _meet(marks._replace(stamp=stamp), cell.before, word.before, begins)
        return _meet(marks, cell.after, word.after, knows)

    return jax.lax.scan(step, _restamped(marks), (cells, tags, first, known))


def _meet(
    marks: Marks, cell: Int[Array, " N"], word: UInt32[Array, " N"], meets: Bool[Array, " N"]
) -> tuple[Marks, EpisodicCounts]:
    slots = jnp.arange(cell.size)
    old = marks.mark[slots, cell]
    seen = old == word
    lost = meets & ~seen & (old >> 16 == word >> 16)
    # What is written depends on what was read: else XLA copies the table at every step.
    mark = marks.mark.at[slots, cell].set(jnp.where(meets & ~seen, word, old))
    if isinstance(marks.num_met, tuple):
        return marks._replace(mark=mark), EpisodicCounts(jnp.where(seen, 2, 1), lost)
    had = marks.num_met[slots, cell]
    times = jnp.where(seen, jnp.minimum(had, 2**16 - 2), 0) + 1
    num_met = marks.num_met.at[slots, cell].set(jnp.where(meets, times, had).astype(jnp.uint16))
    return marks._replace(mark=mark, num_met=num_met), EpisodicCounts(times.astype(jnp.int32), lost)


def _restamped(marks: Marks) -> Marks:
    """The running episodes' marks with the stamp 1, and no others."""
    running = marks.mark >> 16 == marks.stamp[:, None]
    mark = jnp.where(running, (marks.mark & 0xFFFF) | (1 << 16), 0).astype(jnp.uint32)
    return marks._replace(mark=mark, stamp=jnp.ones_like(marks.stamp))
