"""What samplers have in common that keep levels of another sampler in a buffer."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.samplers.replay.lineage import Lineage, SlotInfo, StoredInfo, born
from rlgen.buffer import Arrivals, LevelBuffer, Priority, insert, make_buffer
from rlgen.levels import hash_of
from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import LevelEnv, Sampler
from rlgen.types import NEW, REPLAY, Keys, Outcome, PyTree, Slots

BY_SCORE = Priority("rank", temperature=1.0, staleness_coef=0.0)
"""With it a level replaces the row of lowest score, and the buffer keeps the K best."""


def first_info(source: Sampler) -> SlotInfo:
    """Of a level without a past."""
    zero = jnp.zeros((), jnp.int32)
    return SlotInfo(source.level_info(), Lineage(jnp.full((), NEW, jnp.int32), zero, zero))


def empty_buffer(source: Sampler, memory: PyTree, capacity: int) -> LevelBuffer:
    """K rows for the source's levels, with the score's memory and the lineage of each."""
    unseen = StoredInfo(memory, first_info(source).lineage)
    return make_buffer(capacity, source.example_level(), unseen)


def check_capacity(capacity: int, num_levels: int) -> None:
    """Refuse a buffer that cannot take the levels of one update.

    Raises:
        ValueError: fewer rows than levels.
    """
    if capacity < num_levels:
        raise ValueError(
            f"capacity={capacity} is below the {num_levels} levels of one update; "
            f"set it to at least {num_levels}, or lower num_slots or levels_per_slot"
        )


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
        own_slots = slots._replace(level_info=slots.level_info.source)
        after, new = source.propose(keys, state, own_slots, fresh)
        new = new._replace(
            buffer_index=jnp.full_like(slots.buffer_index, -1),
            origin=jnp.full_like(slots.origin, NEW),
            weight=jnp.full_like(slots.weight, 1.0) * weight,
            level_info=SlotInfo(new.level_info, born(NEW, jnp.zeros_like(slots.buffer_index), now)),
        )
        return tree_where(fresh.any(), after, state), tree_where(fresh, new, slots)

    return jax.lax.cond(any_over_seeds(fresh.any()), propose, lambda: (state, slots))


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
        level, info = jax.tree.map(lambda x: x[row], (buffer.level, buffer.level_info))
        old = Slots(
            level,
            info.score_state,
            row,
            origin=jnp.full_like(slots.origin, REPLAY),
            weight=jnp.full_like(slots.weight, 1.0) * weight,
            level_info=SlotInfo(slots.level_info.source, info.lineage),
        )
        return tree_where(replay, old, slots)

    return jax.lax.cond(any_over_seeds(replay.any()), take, lambda: slots)


def tell_source(
    source: Sampler,
    keys: Keys,
    state: PyTree,
    slots: Slots,
    score: Float[Array, "N R"],
    outcome: Outcome,
) -> PyTree:
    """The source's state once it has seen how the levels went that it has just proposed."""
    first_time = (slots.origin == NEW) & (slots.buffer_index < 0).all(-1)
    own_slots = slots._replace(level_info=slots.level_info.source)
    of_source = outcome._replace(done=outcome.done & first_time)
    return source.observe(keys, state, own_slots, score, of_source)


def remembered(slots: Slots) -> tuple[PyTree, StoredInfo]:
    """Levels and what to remember of them, [N · R, ...], in the order of the slots."""
    held = slots.level, StoredInfo(slots.score_state, slots.level_info.lineage)
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

    return jax.lax.cond(any_over_seeds(offered.any()), merge, lambda: buffer)


def lineage_of(slots: Slots, num_updates: Int[Array, ""]) -> dict[str, Int[Array, "N R"]]:
    """Updates since each level was first met, `num_updates` of the run being done."""
    return {"age": num_updates - 1 - slots.level_info.lineage.born}
