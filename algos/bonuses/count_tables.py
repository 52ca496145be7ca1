"""Tables of visits to keys: counts over a whole run, and first visits or counts in an episode.

A key identifies a state. It is either the observation or a feature (see `state_keys`). Each
enumerable key has its own table cell. Other keys are assigned to cells by a hash, so several keys
may share a cell. `count_visits` and `mark_visits` each run one scan over time that updates the
table in place.

Sources: Cormode and Muthukrishnan, 2005, "An Improved Data Stream Summary: the Count-Min Sketch and
its Applications"; keys are hashed with the finaliser of MurmurHash3.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt16, UInt32

from rlgen.algos.bonuses.state_keys import Visits, lanes

# A stamp is the number of an episode (see `Marks`). Stamps have 16 bits. In each call the running
# episode has stamp 1, so 2^16 - 2 stamps remain for further episodes.
MOST_EPISODES = 2**16 - 2
"""Largest number of episodes that one call can distinguish.

Every step may begin an episode, so this is also the largest number of steps in a rollout.
"""


class Around(NamedTuple):
    """Table cells, or tags (see `Marks`), of the keys before and after each step."""

    before: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]
    after: Int[Array, "T N *k"] | UInt32[Array, "T N *k"]


class Marks(NamedTuple):
    """Episodic table of each slot; a cell holds the stamp of an episode and the tag of a key.

    The stamp is the number of the episode that last wrote the cell. The tag is a short hash of the
    key. A new episode gets a new stamp, so the cells of earlier episodes count as empty. Stamps are
    renumbered at every call of `mark_visits`, so they never overflow.
    """

    mark: UInt32[Array, "N C"]  # stamp in the upper 16 bits, tag in the lower; 0 if never used
    num_met: UInt16[Array, "N C"] | tuple[()]  # visits to the key in that episode; () if unused
    stamp: UInt32[Array, " N"]  # stamp of the running episode


class EpisodicCounts(NamedTuple):
    """Results of inserting the key after each step into an episodic table.

    Without visit counts (`Marks.num_met` is `()`), `times` is 1 at a first visit and 2 later.
    """

    times: Int[Array, "T N"]  # visits to the key in this episode, including this visit
    lost: Bool[Array, "T N"]  # whether the visit evicted another key of this episode


def own_cells(visits: Visits) -> Around:
    """Return the cells of enumerable keys: each key is itself the index of its cell."""
    return Around(visits.before.astype(jnp.int32), visits.after.astype(jnp.int32))


def hashed_rows(visits: Visits, num_cells: int, num_rows: int) -> Around:
    """Return the cells of each key in the k rows of a count-min sketch, [T, N, k].

    The k hashes are linear combinations of two hashes, after Kirsch and Mitzenmacher, 2006, "Less
    Hashing, Same Performance: Building a Better Bloom Filter".
    """

    def hashed(keys: Array) -> Array:
        pair = lanes(keys)
        row = jnp.arange(num_rows, dtype=jnp.uint32)[None, None]
        # Row i uses h1 + i h2 modulo 2^32; num_cells is a power of two, so `&` takes the remainder.
        return ((pair[..., :1] + row * pair[..., 1:]) & (num_cells - 1)).astype(jnp.int32)

    return Around(hashed(visits.before), hashed(visits.after))


def hashed_cells(visits: Visits, num_cells: int) -> tuple[Around, Around]:
    """Return a cell for each key, from its first hash, and a 16-bit tag, from its second hash."""
    pairs = [lanes(keys) for keys in visits[:2]]
    # The two hashes are independent, so two keys in one cell share a tag with probability 2^-16.
    cells = Around(*((pair[..., 0] & (num_cells - 1)).astype(jnp.int32) for pair in pairs))
    return cells, Around(*(pair[..., 1] >> 16 for pair in pairs))


def count_visits(
    table: UInt32[Array, "G k C"],
    cells: Around,
    begins: Bool[Array, "T N"],
    moves: Bool[Array, "T N"],
) -> tuple[UInt32[Array, "G k C"], UInt32[Array, "T N"]]:
    """Add the visits of all slots to the table, and return the count of the key after each step.

    At each step, the visits of all slots are added before any count is read. With G tables, slot n
    uses table n mod G. Counts are never too low. The count of a key is too high if the key shares
    its cell with another key in every row.

    Args:
        table: Counts before the rollout.
        cells: Cells of the keys before and after each step, in each of k rows, [T, N, k].
        begins: Whether the state before a step starts an episode and is counted.
        moves: Whether the state after a step is counted.

    Returns:
        The table after the rollout, and the count of the key after each step, read at that step.
    """
    groups, rows, num_cells = table.shape
    # Offsets [N, k] into the flattened table, so that one gather or scatter serves all rows.
    group = jnp.arange(begins.shape[1], dtype=jnp.int32)[:, None] % groups
    base = (group * rows + jnp.arange(rows, dtype=jnp.int32)[None]) * num_cells

    def step(flat: Array, xs: tuple) -> tuple[Array, Array]:
        (before, after), begin, move = xs
        # Indices are int32, so `Counts` requires fewer than 2^31 cells.
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
    """Insert a rollout's visits into each slot's episodic table, and count each visit.

    When an episode begins, the table is cleared and the episode's first state is inserted. If two
    keys of one episode share a cell, they evict each other, and a revisit then looks new. In the
    result, `lost` marks the steps that evict a key.

    Args:
        marks: Tables of the running episodes.
        cells: Cells of the keys before and after each step.
        tags: Tags of these keys, below 2^16.
        first: Whether an episode begins with a step.
        known: Whether the state after a step is known; an unknown state is not inserted.

    Raises:
        ValueError: If the rollout has more than `MOST_EPISODES` steps.
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
        # The count of an episode's first state is dropped, because no action led to that state.
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
    # An equal stamp with another tag means that a different key of this episode occupies the cell.
    lost = meets & ~seen & (old >> 16 == word >> 16)
    # The written value depends on the value read; otherwise XLA copies the table at every step.
    mark = marks.mark.at[slots, cell].set(jnp.where(meets & ~seen, word, old))
    if isinstance(marks.num_met, tuple):
        # Without counts, 2 stands for any revisit, because only `times == 1` is read.
        return marks._replace(mark=mark), EpisodicCounts(jnp.where(seen, 2, 1), lost)
    had = marks.num_met[slots, cell]
    # Counts saturate at 2^16 - 1, the largest uint16.
    times = jnp.where(seen, jnp.minimum(had, 2**16 - 2), 0) + 1
    num_met = marks.num_met.at[slots, cell].set(jnp.where(meets, times, had).astype(jnp.uint16))
    return marks._replace(mark=mark, num_met=num_met), EpisodicCounts(times.astype(jnp.int32), lost)


def _restamped(marks: Marks) -> Marks:
    """Set the stamp of each running episode to 1, and clear the marks of earlier episodes."""
    running = marks.mark >> 16 == marks.stamp[:, None]
    # `& 0xFFFF` keeps the tag of the key. `num_met` needs no change, because it is read only where
    # the mark matches.
    mark = jnp.where(running, (marks.mark & 0xFFFF) | (1 << 16), 0).astype(jnp.uint32)
    return marks._replace(mark=mark, stamp=jnp.ones_like(marks.stamp))
