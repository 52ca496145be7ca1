"""Common parts of samplers that keep levels of another sampler in a buffer.

The other sampler is called the source. `Lineage` records the origin of a level, `Mutator` contains
the settings for edits, and `BufferedSampler` is the base class. Four functions implement parts of
an update: `generate` adds new levels from the source, `recall` replays levels of the buffer,
`edit_into` edits levels, and `keep_best` inserts levels into the buffer. Slots, queues and weights
are explained in `rlgen.algos.samplers`.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.buffer import Arrivals, LevelBuffer, Priority, insert, make_buffer
from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import LevelEnv, Sampler, Score, check_numbers
from rlgen.types import MUTANT, NEW, REPLAY, Key, Keys, Metrics, Outcome, PyTree, Slots

Parents = Literal["batch", "easiest"]


class Lineage(NamedTuple):
    """Origin of a level; each field is [K] in the buffer and [N, R] in the slots."""

    origin: Int[Array, "*B"]  # NEW or MUTANT
    depth: Int[Array, "*B"]  # number of generations of edits; 0 for a level of the source
    born: Int[Array, "*B"]  # number of the update in which the level was first played


class StoredInfo(NamedTuple):
    """Record that the buffer keeps of each level, in addition to the score."""

    score_state: PyTree  # the score's memory of the level
    lineage: Lineage


class SlotInfo(NamedTuple):
    """Record of a level in a slot."""

    source: PyTree  # the `level_info` of the source
    lineage: Lineage


@dataclass(frozen=True)
class Mutator:
    """Settings for the mutation of replayed levels.

    Attributes:
        num_edits: Number of edits per mutant; 0 disables mutation.
        parents: Levels that are edited. With `batch`, each level of the last replay gets one
            mutant. With `easiest`, all mutants are edits of the `num_parents` easiest levels of the
            last replay.
        num_parents: Number of parents with `easiest`. The easiest levels are those with the highest
            value of mean return minus score. The agent does well on these levels and has little
            left to learn from them.

    Raises:
        ValueError: If a field is outside its range.
    """

    num_edits: int = 5
    parents: Parents = "batch"
    num_parents: int = 4

    def __post_init__(self):
        check_numbers(self, "num_edits", least=0)
        check_numbers(self, "num_parents", least=1)
        if self.parents not in get_args(Parents):
            raise ValueError(f"parents must be 'batch' or 'easiest', got {self.parents!r}")

    @property
    def reads(self) -> frozenset[str]:
        """Fields of the outcome that are needed: `episodes`, to find the easiest parents."""
        return frozenset({"episodes"} if self.num_edits and self.parents == "easiest" else ())

    def none_easiest(self) -> Int[Array, " P"]:
        """Rows of the easiest levels before any level was replayed: all -1."""
        return jnp.full(self.num_parents, -1, jnp.int32)


class BufferedSampler(Sampler, abstract=True):
    """Base of samplers that keep levels of another sampler, the source, in a buffer.

    The state of a subclass has the fields `source`, `buffer` and `num_updates`. The `level_info` of
    the slots is a `SlotInfo`. Each subclass is a dataclass and declares the fields `env`, `source`
    and `capacity`.
    """

    env: LevelEnv
    """Environment; its `level_hash` is stored with each level."""
    source: Any
    """Sampler of new levels."""
    capacity: int
    """Number of rows of the buffer, K."""

    @property
    def _source(self) -> Sampler:
        """The source; overridden by subclasses whose field `source` may be empty."""
        return self.source

    @property
    def _edits(self) -> bool:
        """True if the sampler edits levels; overridden by subclasses with a mutator."""
        return False

    @property
    def reads(self) -> frozenset[str]:
        """Fields of the outcome that the source reads."""
        return self._source.reads

    @property
    def makes_levels(self) -> bool:
        """True if the source makes levels, or levels are edited."""
        return self._source.makes_levels or self._edits

    def check(self, num_levels: int, score: Score) -> None:
        """Check that the buffer can hold the levels of one update, and check the source.

        Raises:
            ValueError: If the capacity is too small, or if the source rejects an argument.
        """
        if self.capacity < num_levels:
            raise ValueError(
                f"capacity={self.capacity} is below the {num_levels} levels of one update; "
                f"set it to at least {num_levels}, or lower num_slots or levels_per_slot"
            )
        self._source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "BufferedSampler":
        """Return a copy whose source has schedules for `num_updates` updates."""
        fields: Any = self
        return replace(fields, source=self._source.spanning(num_updates))

    def buffer(self, state: PyTree) -> LevelBuffer:
        """Return the level buffer."""
        return state.buffer

    def example_level(self) -> PyTree:
        """Return the source's example level."""
        return self._source.example_level()

    def level_info(self) -> SlotInfo:
        """Return the record of a new level."""
        return first_info(self._source)

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Pass the results of new levels to the source, and all results to `take_in`."""
        # The source sees a slot as done only if the slot played new levels of the source for the
        # first time. Replayed levels and mutants are hidden from the source.
        first_time = (slots.origin == NEW) & (slots.buffer_index < 0).all(-1)
        own_slots = slots._replace(level_info=slots.level_info.source)
        of_source = outcome._replace(done=outcome.done & first_time)
        source = self._source.observe(keys, state.source, own_slots, score, of_source)
        return self.take_in(state._replace(source=source), slots, score, outcome)

    @abc.abstractmethod
    def take_in(
        self, state: PyTree, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> PyTree:
        """Return the state with new scores, inserted levels and the new number of updates."""

    def metrics(self, state: PyTree) -> Metrics:
        """Return the source's metrics."""
        return self._source.metrics(state.source)

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Array]:
        """Age of each level: updates since it was first played."""
        # The 1 is subtracted because `observe` has already counted the current update.
        return {"age": state.num_updates - 1 - slots.level_info.lineage.born}


def born(origin: int, depth: Int[Array, "N R"], update: Int[Array, ""]) -> Lineage:
    """Return the lineage of levels that are played for the first time."""
    return Lineage(jnp.full_like(depth, origin), depth, jnp.ones_like(depth) * update)


def easiest_rows(
    slots: Slots, score: Float[Array, "N R"], outcome: Outcome, num_parents: int
) -> Int[Array, " P"]:
    """Return the rows of the replayed levels with the highest mean return minus score.

    If fewer than `num_parents` rows qualify, the remaining entries are -1. A row that was drawn
    twice counts once. A row without a completed episode or without a score is ignored.

    Source: Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design",
    who edit the levels that the agent solves with the least regret. (The code released with this
    paper sorts by the same difference but takes the levels with the lowest values.)
    """
    assert outcome.episodes, "samplers that use easiest_rows must declare that they read episodes"
    # [N, R]; -inf excludes an entry from top_k.
    ease = outcome.episodes.mean_return - score
    known = (outcome.episodes.num > 0) & jnp.isfinite(score) & (slots.buffer_index >= 0)
    ease = jnp.where(known & outcome.done[:, None], ease, -jnp.inf).ravel()
    row = slots.buffer_index.ravel()
    # True for an entry whose row occurs earlier in the batch with a finite value.
    earlier = jnp.tril((row[:, None] == row[None]) & jnp.isfinite(ease)[None], k=-1).any(-1)
    num = min(num_parents, row.size)
    best, place = jax.lax.top_k(jnp.where(earlier, -jnp.inf, ease), num)
    chosen = jnp.where(jnp.isfinite(best), row[place], -1)
    # A batch smaller than `num_parents` is padded, because the state has a fixed shape.
    return jnp.concatenate([chosen, jnp.full(num_parents - num, -1, jnp.int32)])


def edit_into(
    key: Key,
    env: LevelEnv,
    parents: Callable[[], tuple[PyTree, Int[Array, "N R"]]],
    num_edits: int,
    slots: Slots,
    mutant: Bool[Array, " N"],
    now: Int[Array, ""],
) -> Slots:
    """Fill the slots in the mask `mutant` with mutants of weight 0, unless the mask is empty.

    Args:
        key: Consumed.
        env: Environment that edits levels.
        parents: Function that returns a parent for each queue position, [N, R, ...], and the depth
            of each parent, [N, R].
        num_edits: Number of edits per mutant.
        slots: Current slots; their `level_info` is a `SlotInfo`.
        mutant: Slots to fill.
        now: Number of the current update, recorded as `born`.

    Returns:
        The slots, with the mutants.
    """

    def edit() -> Slots:
        level, depth = parents()
        # `mutate_levels` takes one batch axis: [N, R, ...] -> [N * R, ...] and back.
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), level)
        flat = env.mutate_levels(key, flat, num_edits)
        child = Slots(
            level=jax.tree.map(lambda x, y: x.reshape(y.shape), flat, slots.level),
            score_state=slots.score_state,
            buffer_index=jnp.full_like(slots.buffer_index, -1),
            origin=jnp.full_like(slots.origin, MUTANT),
            weight=jnp.zeros_like(slots.weight),
            level_info=SlotInfo(slots.level_info.source, born(MUTANT, depth + 1, now)),
        )
        return tree_where(mutant, child, slots)

    return jax.lax.cond(any_over_seeds(mutant.any()), edit, lambda: slots)


BY_SCORE = Priority("rank", temperature=1.0, staleness_coef=0.0)
"""Priority by score alone. A level replaces the row with the lowest score, so that the buffer keeps
the K levels with the highest scores."""


def first_info(source: Sampler) -> SlotInfo:
    """Return the record of a new level of the source."""
    zero = jnp.zeros((), jnp.int32)
    return SlotInfo(source.level_info(), Lineage(jnp.full((), NEW, jnp.int32), zero, zero))


def empty_buffer(source: Sampler, memory: PyTree, capacity: int) -> LevelBuffer:
    """Return an empty buffer for levels of the source, with their score memory and lineage."""
    unseen = StoredInfo(memory, first_info(source).lineage)
    return make_buffer(capacity, source.example_level(), unseen)


def generate(
    source: Sampler,
    keys: Keys,
    state: PyTree,
    slots: Slots,
    fresh: Bool[Array, " N"],
    weight: Float[Array, ""],
    now: Int[Array, ""],
) -> tuple[PyTree, Slots]:
    """Fill the slots in the mask `fresh` with new levels from the source, unless the mask is empty.

    Args:
        source: Sampler of new levels; it receives `keys` unchanged.
        keys: Keys of this update.
        state: State of the source.
        slots: Current slots.
        fresh: Slots to fill.
        weight: Weight of the `fresh` slots in the student's loss.
        now: Number of the current update, recorded as `born`.

    Returns:
        State of the source, and the slots with the new levels.
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
        # Under vmap over seeds, the branch runs if any seed has fresh slots. For a seed without
        # fresh slots, the state of the source stays unchanged.
        return tree_where(fresh.any(), after, state), tree_where(fresh, new, slots)

    return jax.lax.cond(any_over_seeds(fresh.any()), propose, lambda: (state, slots))


def replayed(
    buffer: LevelBuffer, row: Int[Array, "N R"], slots: Slots, weight: Float[Array, ""] | float
) -> Slots:
    """Return slots whose queues contain the levels of the given rows, all with the same weight."""
    level, info = jax.tree.map(lambda x: x[row], (buffer.level, buffer.level_info))
    return Slots(
        level,
        info.score_state,
        row,
        origin=jnp.full_like(slots.origin, REPLAY),
        weight=jnp.full_like(slots.weight, 1.0) * weight,
        level_info=SlotInfo(slots.level_info.source, info.lineage),
    )


def recall(
    buffer: LevelBuffer,
    choose: Callable[[], Int[Array, "N R"]],
    slots: Slots,
    replay: Bool[Array, " N"],
    weight: Float[Array, ""],
) -> Slots:
    """Fill the slots in the mask `replay` with levels of the buffer, in the rows from `choose`.

    If the mask is empty, `choose` is not executed.
    """

    def take() -> Slots:
        old = replayed(buffer, choose(), slots, weight)
        return tree_where(replay, old, slots)

    return jax.lax.cond(any_over_seeds(replay.any()), take, lambda: slots)


def remembered(slots: Slots) -> tuple[PyTree, StoredInfo]:
    """Return the levels and their records, [N · R, ...], in the order of the slots."""
    held = slots.level, StoredInfo(slots.score_state, slots.level_info.lineage)
    # The size is explicit, because some families have arrays without elements.
    size = slots.buffer_index.size
    return jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), held)


def keep_best(
    env: LevelEnv,
    buffer: LevelBuffer,
    slots: Slots,
    score: Float[Array, "N R"],
    offered: Bool[Array, "N R"],
    protected: Bool[Array, " K"],
) -> LevelBuffer:
    """Insert the offered levels, so that the buffer keeps the K levels with the highest scores.

    If no level is offered, the buffer stays unchanged. A level with a score of `-inf` is never
    inserted, and protected rows are not replaced.
    """

    def merge() -> LevelBuffer:
        level, memory = remembered(slots)
        hashes = jax.vmap(env.level_hash)(level)
        arrivals = Arrivals(level, memory, score.ravel(), hashes, offered.ravel())
        return insert(buffer, arrivals, BY_SCORE, protected, deduplicate=False)

    return jax.lax.cond(any_over_seeds(offered.any()), merge, lambda: buffer)


def held_rows(slots: Slots, busy: Bool[Array, " N"], capacity: int) -> Bool[Array, " K"]:
    """Return a mask of the buffer rows whose levels are in busy slots."""
    # Positions without a row get the index `capacity`, which is out of bounds and dropped.
    row = jnp.where(busy[:, None] & (slots.buffer_index >= 0), slots.buffer_index, capacity)
    return jnp.zeros(capacity, bool).at[row].set(True, mode="drop")
