"""What samplers have in common that keep levels of another sampler in a buffer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.branching import any_seed, where
from rlgen.buffer import Arrivals, LevelBuffer, Priority, insert, make_buffer
from rlgen.curriculum import note_of
from rlgen.levels import hash_of
from rlgen.protocols import LevelEnv, Sampler, Score
from rlgen.types import NEW, REPLAY, Keys, Metrics, Outcome, PyTree, Slots

from ._lineage import Lineage, Note, Remembered, born

BY_SCORE = Priority("rank", temperature=1.0, staleness_coef=0.0)
"""With it a level replaces the row of lowest score, and the buffer keeps the K best."""


def first_note(source: Sampler) -> Note:
    """Of a level without a past."""
    zero = jnp.zeros((), jnp.int32)
    return Note(note_of(source), Lineage(jnp.full((), NEW, jnp.int32), zero, zero))


def empty_buffer(source: Sampler, score: Score, capacity: int) -> LevelBuffer:
    """K rows for the source's levels, with the score's memory and the lineage of each."""
    unseen = Remembered(score.memory(), first_note(source).lineage)
    return make_buffer(capacity, source.blank(), unseen)


def check_capacity(capacity: int, source: Sampler, num_levels: int) -> None:
    """Refuse a buffer that cannot take the levels of one update.

    Raises:
        ValueError: fewer rows than levels, or what the source refuses.
    """
    if capacity < num_levels:
        raise ValueError(
            f"capacity={capacity} is below the {num_levels} levels of one update; "
            f"set it to at least {num_levels}, or lower num_slots or num_queued"
        )
    check = getattr(source, "check", None)
    if check is not None:
        check(num_levels)


def source_metrics(source: Sampler, state: PyTree) -> Metrics:
    """What the source has to tell."""
    own = getattr(source, "metrics", None)
    return own(state) if own else {}


def generate(
    source: Sampler,
    keys: Keys,
    state: PyTree,
    slots: Slots,
    fresh: Bool[Array, " N"],
    weight: Float[Array, ""],
    now: Int[Array, ""],
) -> tuple[PyTree, Slots]:
    """New levels from the source for the `fresh` slots; a branch, as they may be dear.

    Args:
        source: gets the keys as they are.
        keys: of this update.
        state: the source's.
        slots: as they were.
        fresh: which slots to fill.
        weight: of those slots.
        now: number of this update, which the new levels are born in.
    """

    def propose() -> tuple[PyTree, Slots]:
        own_slots = slots._replace(note=slots.note.source)
        after, new = source.propose(keys, state, own_slots, fresh)
        new = new._replace(
            row=jnp.full_like(slots.row, -1),
            origin=jnp.full_like(slots.origin, NEW),
            weight=jnp.full_like(slots.weight, 1.0) * weight,
            note=Note(new.note, born(NEW, jnp.zeros_like(slots.row), now)),
        )
        return where(fresh.any(), after, state), where(fresh, new, slots)

    return jax.lax.cond(any_seed(fresh.any()), propose, lambda: (state, slots))


def recall(
    buffer: LevelBuffer,
    choose: Callable[[], Int[Array, "N R"]],
    slots: Slots,
    replay: Bool[Array, " N"],
    weight: Float[Array, ""],
) -> Slots:
    """Levels of the chosen rows for the `replay` slots; a branch, choosing included."""

    def take() -> Slots:
        row = choose()
        level, memory = jax.tree.map(lambda x: x[row], (buffer.level, buffer.memory))
        old = Slots(
            level,
            memory.score,
            row,
            origin=jnp.full_like(slots.origin, REPLAY),
            weight=jnp.full_like(slots.weight, 1.0) * weight,
            note=Note(slots.note.source, memory.lineage),
        )
        return where(replay, old, slots)

    return jax.lax.cond(any_seed(replay.any()), take, lambda: slots)


def tell_source(
    source: Sampler,
    keys: Keys,
    state: PyTree,
    slots: Slots,
    score: Float[Array, "N R"],
    outcome: Outcome,
) -> PyTree:
    """The source's state once it has seen how the levels went that it has just proposed."""
    first_time = (slots.origin == NEW) & (slots.row < 0).all(-1)
    own_slots = slots._replace(note=slots.note.source)
    of_source = outcome._replace(done=outcome.done & first_time)
    return source.observe(keys, state, own_slots, score, of_source)


def remembered(slots: Slots) -> tuple[PyTree, Remembered]:
    """Levels and what to remember of them, [N · R, ...], in the order of the slots."""
    held = slots.level, Remembered(slots.memory, slots.note.lineage)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), held)


def keep_best(
    env: LevelEnv,
    buffer: LevelBuffer,
    slots: Slots,
    score: Float[Array, "N R"],
    offered: Bool[Array, "N R"],
    protected: Bool[Array, " K"],
) -> LevelBuffer:
    """The K best of the buffer's levels and the offered ones; a branch, skipped if there are none.

    A level with a score of `-inf` never enters, and protected rows stay.
    """

    def merge() -> LevelBuffer:
        level, memory = remembered(slots)
        hashes = jax.vmap(lambda one: hash_of(env, one))(level)
        arrivals = Arrivals(level, memory, score.ravel(), hashes, offered.ravel())
        return insert(buffer, arrivals, BY_SCORE, protected, deduplicate=False)

    return jax.lax.cond(any_seed(offered.any()), merge, lambda: buffer)


def lineage_of(slots: Slots, num_updates: Int[Array, ""]) -> dict[str, Int[Array, "N R"]]:
    """Updates since each level was first met, `num_updates` of the run being done."""
    return {"age": num_updates - 1 - slots.note.lineage.born}
