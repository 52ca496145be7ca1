"""Visit tables: counts of a key over a whole run, and membership or counts within an episode.

Each function runs one scan over time that updates the table in place. Enumerable keys have one
cell each; other keys share cells chosen by a hash.

Sources: Cormode and Muthukrishnan, 2005, "An Improved Data Stream Summary: the Count-Min Sketch and
its Applications"; keys are hashed with the finaliser of MurmurHash3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt16, UInt32

from rlgen.algos.bonuses.state_keys import Visits, lanes

# Stamps have 16 bits and start at 1 in each call, so 2^16 - 2 further ones fit.
MOST_EPISODES = 2**16 - 2
"""Largest number of episodes that one call can distinguish, and so of steps in a rollout."""


class Around(NamedTuple):
    """Table cells, or tags, of the keys before and after each step."""

    before: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]
    after: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]


class Marks(NamedTuple):
    """Episodic table of each slot: a cell holds the episode's stamp and the key's tag.

    A table is cleared by moving to a new stamp. Stamps are renumbered at every call, so they never
    overflow.
    """

    mark: UInt32[Array, "N C"]  # stamp in the upper 16 bits, tag in the lower; 0 if never used
    num_met: UInt16[Array, "N C"] | tuple[()]  # visits in that episode; () if not counted
    stamp: UInt32[Array, " N"]  # of the running episode


class EpisodicCounts(NamedTuple):
    """Counts of each step in an episodic table."""

    times: Int[Array, "T N"]  # visits to the successor's key in this episode, this one included
    lost: Bool[Array, "T N"]  # the visit evicted another key of the same episode from its cell


def own_cells(visits: Visits) -> Around:
    """Return the cell of each enumerable key, which is the key itself."""
    return Around(visits.before.astype(jnp.int32), visits.after.astype(jnp.int32))


def hashed_rows(visits: Visits, num_cells: int, num_rows: int) -> Around:
    """Return the cells of each key in the k rows of a count-min sketch, [T, N, k].

    The k hashes are linear combinations of two, after Kirsch and Mitzenmacher, 2006, "Less Hashing,
    Same Performance: Building a Better Bloom Filter".
    """

    def hashed(keys: Array) -> Array:
        pair = lanes(keys)
        row = jnp.arange(num_rows, dtype=jnp.uint32)[None, None]
        # Row i uses h1 + i h2 modulo 2^32; num_cells is a power of two, so `&` takes the remainder.
        return ((pair[..., :1] + row * pair[..., 1:]) & (num_cells - 1)).astype(jnp.int32)

    return Around(hashed(visits.before), hashed(visits.after))


def hashed_cells(visits: Visits, num_cells: int) -> tuple[Around, Around]:
    """Return the cell of each key, from its first hash, and a 16-bit tag, from its second."""
    pairs = [lanes(keys) for keys in visits[:2]]
    # Independent hashes: two keys in one cell share a tag with probability 2^-16.
    cells = Around(*((pair[..., 0] & (num_cells - 1)).astype(jnp.int32) for pair in pairs))
    return cells, Around(*(pair[..., 1] >> 16 for pair in pairs))


def count_visits(
    table: UInt32[Array, "G k C"],
    cells: Around,
    begins: Bool[Array, "T N"],
    moves: Bool[Array, "T N"],
) -> tuple[UInt32[Array, "G k C"], UInt32[Array, "T N"]]:
    """Count the visits of all slots, and return the count of each step's successor at that step.

    At each step all slots are added before any count is read. Slot n uses table n mod G. Counts
    are never too low; they are too high where hashes collide in all rows.

    Args:
        table: Counts before the rollout.
        cells: Cells of the keys around each step in each of k rows, [T, N, k].
        begins: Whether the state before a step is counted, as the first state of an episode.
        moves: Whether the state after a step is counted.
    """
    groups, rows, num_cells = table.shape
    # Offsets [N, k] into the flattened table: one gather or scatter then serves all rows.
    group = jnp.arange(begins.shape[1], dtype=jnp.int32)[:, None] % groups
    base = (group * rows + jnp.arange(rows, dtype=jnp.int32)[None]) * num_cells

    def step(flat: Array, xs: tuple) -> tuple[Array, Array]:
        (before, after), begin, move = xs
        # Indices are int32; `Counts` limits its tables to 2^31 cells.
        after = base + after
        # [2 N, k]: the first states of episodes that begin here, then the successors.
        at = jnp.concatenate([base + before, after])
        ones = jnp.concatenate([begin, move]).astype(jnp.uint32)
        # `add` sums over repeated indices, so slots that visit the same key in one step all count.
        flat = flat.at[at].add(jnp.broadcast_to(ones[:, None], at.shape))
        # Collisions only add to a cell, so the minimum over rows is the tightest bound.
        return flat, flat[after].min(-1)

    flat, times = jax.lax.scan(step, table.reshape(-1), (cells, begins, moves))
    return flat.reshape(table.shape), times


def no_marks(num_slots: int, num_cells: int, counted: bool) -> Marks:
    """Return empty episodic tables, with a visit count per cell if `counted`."""
    shape = (num_slots, num_cells)
    num_met = jnp.zeros(shape, jnp.uint16) if counted else ()
    # Marks start at 0 and stamps at 1, so that an unused cell belongs to no episode.
    return Marks(jnp.zeros(shape, jnp.uint32), num_met, jnp.ones(num_slots, jnp.uint32))


def mark_visits(
    marks: Marks,
    cells: Around,
    tags: Around,
    first: Bool[Array, "T N"],
    known: Bool[Array, "T N"],
) -> tuple[Marks, EpisodicCounts]:
    """Insert a rollout's visits into each slot's episodic table, and count each step's visit.

    Where an episode begins, the table is cleared and the episode's first state is inserted. Two
    keys of one episode that share a cell evict each other, so that a revisit looks new; `lost`
    marks the steps at which this happens.

    Args:
        marks: Tables of the running episodes.
        cells: Cells of the keys around each step.
        tags: Tags of these keys, below 2^16.
        first: Whether an episode begins with a step.
        known: Whether the successor is known; an unknown one is not inserted.

    Raises:
        ValueError: If the rollout has more steps than there are stamps.
    """
    if first.shape[0] > MOST_EPISODES:
        raise ValueError(
            f"a rollout of {first.shape[0]} steps may begin more episodes than the "
            f"{MOST_EPISODES} that an episodic table can distinguish; use shorter rollouts"
        )

    def step(marks: Marks, xs: tuple) -> tuple[Marks, EpisodicCounts]:
        cell, tag, begins, knows = xs
        # A new stamp invalidates the whole table without writing to it.
        stamp = marks.stamp + begins.astype(jnp.uint32)
        word = Around(*((stamp << 16) | x for x in tag))
        # The count of an episode's first state is dropped: no action led to it.
        marks, _ = _meet(marks._replace(stamp=stamp), cell.before, word.before, begins)
        return _meet(marks, cell.after, word.after, knows)

    return jax.lax.scan(step, _restamped(marks), (cells, tags, first, known))


def _meet(
    marks: Marks, cell: Int[Array, " N"], word: UInt32[Array, " N"], meets: Bool[Array, " N"]
) -> tuple[Marks, EpisodicCounts]:
    slots = jnp.arange(cell.size)
    # One comparison of 32 bits tests the episode (stamp) and the key (tag).
    old = marks.mark[slots, cell]
    seen = old == word
    # The same stamp with another tag: a different key of this episode occupies the cell.
    lost = meets & ~seen & (old >> 16 == word >> 16)
    # The written value depends on the value read; otherwise XLA copies the table at every step.
    mark = marks.mark.at[slots, cell].set(jnp.where(meets & ~seen, word, old))
    if isinstance(marks.num_met, tuple):
        # Without counts, 2 stands for any revisit: only `times == 1` is read.
        return marks._replace(mark=mark), EpisodicCounts(jnp.where(seen, 2, 1), lost)
    had = marks.num_met[slots, cell]
    # Saturates before uint16 overflows.
    times = jnp.where(seen, jnp.minimum(had, 2**16 - 2), 0) + 1
    num_met = marks.num_met.at[slots, cell].set(jnp.where(meets, times, had).astype(jnp.uint16))
    return marks._replace(mark=mark, num_met=num_met), EpisodicCounts(times.astype(jnp.int32), lost)


def _restamped(marks: Marks) -> Marks:
    """Renumber the stamps of the running episodes to 1, and clear all other marks."""
    running = marks.mark >> 16 == marks.stamp[:, None]
    # `& 0xFFFF` keeps the tag of the key; `num_met` needs no change, as it is read only where the
    # mark matches.
    mark = jnp.where(running, (marks.mark & 0xFFFF) | (1 << 16), 0).astype(jnp.uint32)
    return marks._replace(mark=mark, stamp=jnp.ones_like(marks.stamp))
