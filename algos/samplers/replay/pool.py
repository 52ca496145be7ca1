"""What samplers have in common that keep levels of another sampler in a buffer.

Where levels come from (`Lineage`), how they are edited (`Mutator`), what such samplers do alike
(`BufferedSampler`), and the branches of an update: new levels of the source, levels of the buffer,
edited ones, and what is kept afterwards.
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
    """Where a level comes from; [K] in the buffer, [N, R] in the slots."""

    origin: Int[Array, "*B"]  # NEW or MUTANT
    depth: Int[Array, "*B"]  # edits of edits: 0 from the source, 1 its child, ...
    born: Int[Array, "*B"]  # the update in which it was first met


class StoredInfo(NamedTuple):
    """What the buffer keeps of each level beside its score."""

    score_state: PyTree  # the score's
    lineage: Lineage


class SlotInfo(NamedTuple):
    """What is noted of each level in the slots."""

    source: PyTree  # the source's own
    lineage: Lineage


@dataclass(frozen=True)
class Mutator:
    """How levels that were replayed are edited.

    Attributes:
        num_edits: edits of each mutant; 0 makes none.
        parents: `batch`, every level just replayed has one mutant; `easiest`, the `num_parents`
            easiest of them share the mutants.
        num_parents: of `easiest`: the levels of highest mean return minus score, on which the
            agent does well and has little left to learn.

    Raises:
        ValueError: a field outside its range.
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
        """Fields of the outcome: episodes, to tell which parents are easiest."""
        return frozenset({"episodes"} if self.num_edits and self.parents == "easiest" else ())

    def none_easiest(self) -> Int[Array, " P"]:
        """The rows of the easiest levels before any was replayed."""
        return jnp.full(self.num_parents, -1, jnp.int32)


class BufferedSampler(Sampler, abstract=True):
    """Base of samplers that keep levels of another sampler, their source, in a buffer.

    The state of each has the fields `source`, `buffer` and `num_updates`, and the `level_info` of
    its slots is a `SlotInfo`. Fields are declared by the subclasses, which are dataclasses.
    """

    env: LevelEnv
    """Its hash goes with each level."""
    source: Any
    """Where new levels come from."""
    capacity: int
    """K, rows of the buffer."""

    @property
    def _source(self) -> Sampler:
        """The source, also where the field may be empty."""
        return self.source

    @property
    def reads(self) -> frozenset[str]:
        """What the source reads."""
        return self._source.reads

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse a buffer that cannot take the levels of one update, and what the source refuses.

        Raises:
            ValueError: with the size that is needed.
        """
        if self.capacity < num_levels:
            raise ValueError(
                f"capacity={self.capacity} is below the {num_levels} levels of one update; "
                f"set it to at least {num_levels}, or lower num_slots or levels_per_slot"
            )
        self._source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "BufferedSampler":
        """The same, with the source's schedules."""
        fields: Any = self
        return replace(fields, source=self._source.spanning(num_updates))

    def buffer(self, state: PyTree) -> LevelBuffer:
        """The levels that it keeps."""
        return state.buffer

    def example_level(self) -> PyTree:
        """The source's blank level."""
        return self._source.example_level()

    def level_info(self) -> SlotInfo:
        """Of a level without a past."""
        return first_info(self._source)

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Show the source the levels that it has just proposed, then `take_in` all of them."""
        first_time = (slots.origin == NEW) & (slots.buffer_index < 0).all(-1)
        own_slots = slots._replace(level_info=slots.level_info.source)
        of_source = outcome._replace(done=outcome.done & first_time)
        source = self._source.observe(keys, state.source, own_slots, score, of_source)
        return self.take_in(state._replace(source=source), slots, score, outcome)

    @abc.abstractmethod
    def take_in(
        self, state: PyTree, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> PyTree:
        """The state after an update: new scores, new rows, and the number of updates."""

    def metrics(self, state: PyTree) -> Metrics:
        """The source's."""
        return self._source.metrics(state.source)

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Array]:
        """Updates since each level was first met."""
        return {"age": state.num_updates - 1 - slots.level_info.lineage.born}


def born(origin: int, depth: Int[Array, "N R"], update: Int[Array, ""]) -> Lineage:
    """The lineage of levels that are met for the first time."""
    return Lineage(jnp.full_like(depth, origin), depth, jnp.ones_like(depth) * update)


def easiest_rows(
    slots: Slots, score: Float[Array, "N R"], outcome: Outcome, num_parents: int
) -> Int[Array, " P"]:
    """Rows of the replayed levels of highest mean return minus score; -1 where there are fewer.

    A row that was drawn twice counts once; one without a completed episode or a score, not at all.

    Source: Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design":
    the levels that the agent solves with the least regret. (The code released with it sorts by the
    same difference but takes the lowest values.)
    """
    assert outcome.episodes, "samplers that ask declare that they read episodes"
    ease = outcome.episodes.mean_return - score
    known = (outcome.episodes.num > 0) & jnp.isfinite(score) & (slots.buffer_index >= 0)
    ease = jnp.where(known & outcome.done[:, None], ease, -jnp.inf).ravel()
    row = slots.buffer_index.ravel()
    earlier = jnp.tril((row[:, None] == row[None]) & jnp.isfinite(ease)[None], k=-1).any(-1)
    num = min(num_parents, row.size)
    best, place = jax.lax.top_k(jnp.where(earlier, -jnp.inf, ease), num)
    chosen = jnp.where(jnp.isfinite(best), row[place], -1)
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
    """The slots with mutants, of weight 0, in those that are to have some; a branch.

    Args:
        key: consumed.
        env: which edits.
        parents: a parent for each place, [N, R, ...], and how deep it is.
        num_edits: of each mutant.
        slots: as they were; their `level_info` is a `SlotInfo`.
        mutant: which slots to fill.
        now: number of this update, which the mutants are born in.
    """

    def edit() -> Slots:
        level, depth = parents()
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
"""With it a level replaces the row of lowest score, and the buffer keeps the K best."""


def first_info(source: Sampler) -> SlotInfo:
    """Of a level without a past."""
    zero = jnp.zeros((), jnp.int32)
    return SlotInfo(source.level_info(), Lineage(jnp.full((), NEW, jnp.int32), zero, zero))


def empty_buffer(source: Sampler, memory: PyTree, capacity: int) -> LevelBuffer:
    """K rows for the source's levels, with the score's memory and the lineage of each."""
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


def replayed(
    buffer: LevelBuffer, row: Int[Array, "N R"], slots: Slots, weight: Float[Array, ""] | float
) -> Slots:
    """The levels of the given rows, of one weight, in all slots."""
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
    """Levels of the chosen rows for the `replay` slots; a branch, choosing included."""

    def take() -> Slots:
        old = replayed(buffer, choose(), slots, weight)
        return tree_where(replay, old, slots)

    return jax.lax.cond(any_over_seeds(replay.any()), take, lambda: slots)


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
        hashes = jax.vmap(env.level_hash)(level)
        arrivals = Arrivals(level, memory, score.ravel(), hashes, offered.ravel())
        return insert(buffer, arrivals, BY_SCORE, protected, deduplicate=False)

    return jax.lax.cond(any_over_seeds(offered.any()), merge, lambda: buffer)


def held_rows(slots: Slots, busy: Bool[Array, " N"], capacity: int) -> Bool[Array, " K"]:
    """Rows whose levels busy slots are working on."""
    row = jnp.where(busy[:, None] & (slots.buffer_index >= 0), slots.buffer_index, capacity)
    return jnp.zeros(capacity, bool).at[row].set(True, mode="drop")
