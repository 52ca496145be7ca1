"""Prioritised level replay: new levels, or old ones from which there was most to learn.

With edits it is ACCEL, which grows new levels out of replayed ones; with blocks of slots it is the
parallel variant of either.

Sources: Jiang et al., 2021, "Prioritized Level Replay"; Jiang et al., 2021, "Replay-Guided
Adversarial Environment Design", algorithm 1 (robust PLR: no training on new levels); Parker-Holder
et al., 2022, "Evolving Curricula with Regret-Based Environment Design" (ACCEL); Jiang et al., 2023,
"minimax: Efficient Baselines for Autocurricula in JAX" (the parallel variants).
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.lineage import (
    SlotInfo,
    StoredInfo,
    born,
    easiest_rows,
    edit_into,
)
from rlgen.algos.samplers.replay.pool import check_capacity, empty_buffer, first_info
from rlgen.buffer import (
    Arrivals,
    LevelBuffer,
    Priority,
    PriorityKind,
    draw,
    draw_distinct,
    insert,
    observed,
    update,
)
from rlgen.levels import hash_of
from rlgen.parallel.seeds import any_over_seeds, same_for_all_seeds, tree_where
from rlgen.protocols import LevelEnv, Sampler, Score
from rlgen.registry import require
from rlgen.types import NEW, REPLAY, Key, Keys, Metrics, Outcome, PyTree, Slots

_OWN, _EDIT, _COIN = 0x504C5200, 0x504C5201, 0x504C5202
"""Folded into keys that the source gets as they are: alone or under PLR, it draws the same."""


class PLRState(NamedTuple):
    """What has been seen, and the source's own state."""

    source: PyTree
    buffer: LevelBuffer
    num_new: Int[Array, ""]  # new levels asked for, up to the capacity; see `PLR._decide`
    num_updates: Int[Array, ""]
    edits_next: Bool[Array, ""]  # the last update replayed, so this one edits; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the easiest levels of the last replay; -1 for none


@dataclass(frozen=True)
class PLR(Sampler):
    """Replays levels of a buffer with some probability; takes new ones from another sampler.

    Whether to replay is decided once an update, for all slots and all seeds, and only the work
    that was decided for is done. Replay begins once `min_fill · capacity` levels have been taken
    from the source. (JaxUED waits for that many *rows*, which a family of few distinct levels
    never fills, and which differ between seeds.) A seed whose buffer is still empty by then goes
    on with new levels. Rows held by busy slots are neither drawn nor replaced.

    Attributes:
        env: whose hash tells levels apart, and which edits levels.
        source: where new levels come from; it sees only the slots that it filled.
        capacity: K, rows.
        replay_prob: share of updates that replay; 0 is the source alone.
        temperature: β of the priorities.
        staleness_coef: ρ of the priorities.
        min_fill: share of the capacity to be taken in before replay begins.
        priority: `rank` or `proportional`; see `rlgen.buffer.Priority`.
        train_on_new: whether new levels have weight 1; `False` is robust PLR.
        num_edits: edits of each mutant; 0 is PLR without mutants. After every update that replays,
            the next one plays mutants of the levels just replayed, with weight 0.
        parents: `batch`, every level just replayed has one mutant; `easiest`, the `num_parents`
            easiest of them share the mutants.
        num_parents: of `easiest`: the levels of highest mean return minus score, on which the
            agent does well and has little left to learn.
        parallel: new levels, replayed ones and mutants of these side by side in equal blocks of
            slots, in every update. `replay_prob` has no meaning then.
        sequential: draw and insert levels one after the other, as published; see `rlgen.buffer`.
        deduplicate: whether equal levels share a row.
        per_slot: each free slot decides for itself whether to replay; for students whose slots
            come free at different times (GROOVE). Replay begins once `min_fill · capacity` levels
            have been scored, long after they were taken in. No row is in play twice: rows are drawn
            without replacement, and a slot for which none is left takes a new level. Seeds differ
            in what they do. Not with edits or blocks, which belong to whole updates.

    Raises:
        ValueError: a field outside its range, fields that exclude each other, or edits in an
            environment that has none.
    """

    env: LevelEnv
    source: Sampler
    capacity: int = 4000
    replay_prob: float = 0.8
    temperature: float = 0.3
    staleness_coef: float = 0.3
    min_fill: float = 0.5
    priority: PriorityKind = "rank"
    train_on_new: bool = True
    num_edits: int = 0
    parents: Literal["batch", "easiest"] = "batch"
    num_parents: int = 4
    parallel: bool = False
    sequential: bool = False
    deduplicate: bool = True
    per_slot: bool = False

    def __post_init__(self):
        self._check_fields()
        self._priority()

    def _check_fields(self) -> None:
        """Refuse fields of a `PLR` that are out of range or do not go together.

        Raises:
            ValueError: with what is allowed instead.
        """
        for name, least in (("capacity", 1), ("num_edits", 0), ("num_parents", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        for name in ("replay_prob", "min_fill"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.num_edits > 0:
            require(
                self.env, LevelEnv.mutate_levels, "a curriculum that edits levels (num_edits > 0)"
            )
        if self.parents not in ("batch", "easiest"):
            raise ValueError(f"parents must be 'batch' or 'easiest', got {self.parents!r}")
        if self.parallel and self.parents == "easiest":
            raise ValueError(
                "parents='easiest' asks how the parents went, and a parallel update plays them "
                "beside their mutants; use parents='batch'"
            )
        if self.per_slot:
            self._check_alone()

    def _check_alone(self) -> None:
        """Refuse what is decided for whole updates where each slot decides for itself."""
        wrong = {
            f"num_edits={self.num_edits}": self.num_edits > 0,
            "parallel=True": self.parallel,
            "sequential=True": self.sequential,
        }
        for what, is_set in wrong.items():
            if is_set:
                raise ValueError(
                    f"per_slot=True does not go with {what}: slots come free at different times, "
                    "and mutants, blocks and draws one by one are of whole updates; unset one of "
                    "the two"
                )

    @property
    def reads(self) -> frozenset[str]:
        """Episodes, to tell which parents are easiest; and what the source reads."""
        own = {"episodes"} if self.parents == "easiest" else set()
        return self.source.reads | own

    @property
    def num_blocks(self) -> int:
        """Equal blocks that the slots divide into."""
        return (3 if self.num_edits > 0 else 2) if self.parallel else 1

    @property
    def train_share(self) -> float:
        """Share of the slots that can have weight in one update."""
        return 1 / self.num_blocks if self.parallel and not self.train_on_new else 1.0

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from once replay has begun."""
        del num_levels
        if self.parallel or self.per_slot:
            return 1.0
        learned = 1.0 if self.train_on_new else self.replay_prob
        return learned / (1 + self.replay_prob * (self.num_edits > 0))

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse a buffer that cannot take the levels of one update, and what the source refuses.

        Raises:
            ValueError: fewer rows than levels, or proportional priorities of a score that may be
                negative.
        """
        check_capacity(self.capacity, num_levels)
        if self.priority == "proportional" and score.may_be_negative:
            raise ValueError(
                f"priority='proportional' needs scores of 0 or more, and those of "
                f"{type(score).__name__} may be negative; use priority='rank'"
            )
        self.source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "PLR":
        """The same, with the source's schedules."""
        return replace(self, source=self.source.spanning(num_updates))

    def buffer(self, state: PLRState) -> LevelBuffer:
        """What has been seen."""
        return state.buffer

    def init(self, key: Key, memory: PyTree) -> PLRState:
        """An empty buffer."""
        zero, never = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        return PLRState(
            source=self.source.init(key, memory),
            buffer=empty_buffer(self.source, memory, self.capacity),
            num_new=zero,
            num_updates=zero,
            edits_next=never,
            easiest=jnp.full(self.num_parents, -1, jnp.int32),
        )

    def example_level(self) -> PyTree:
        """The source's blank level."""
        return self.source.example_level()

    def level_info(self) -> SlotInfo:
        """Of a level without a past."""
        return first_info(self.source)

    def propose(
        self, keys: Keys, state: PLRState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PLRState, Slots]:
        """Replayed levels for all free slots, or new ones, or mutants; or a block of each."""
        rows = observed(state.buffer) & ~self._held(slots, ~free)
        if self.per_slot:
            replays, edits = self._decide_each(keys.own, state, slots, free, rows)
        else:
            replays, edits = self._decide(keys.shared, state, free.size)
        before, playing = slots, free & rows.any()
        replay = playing & replays
        mutant = playing & edits & self._has_parent(state, before)
        new = free & ~replay & ~mutant
        # Counted by what was decided, which is equal for all seeds, and not by what could be done.
        taken_in = state.num_new + ((free & ~replays & ~edits).sum() * slots.buffer_index.shape[1])
        source, slots = self._generate(keys, state, slots, new)
        buffer, slots = self._recall(keys.own, state.buffer, rows, slots, replay)
        slots = self._edit(keys.own, state, before, slots, mutant)
        state = state._replace(
            source=source,
            buffer=buffer,
            num_new=jnp.minimum(taken_in, self.capacity),
            edits_next=replays.any() & (self.num_edits > 0),
        )
        return state, slots

    def observe(
        self,
        keys: Keys,
        state: PLRState,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PLRState:
        """Update the replayed rows, offer the other levels to the buffer."""
        done = outcome.done
        of_source = outcome._replace(done=done & (slots.origin == NEW))
        own_slots = slots._replace(level_info=slots.level_info.source)
        source = self.source.observe(keys, state.source, own_slots, score, of_source)
        easiest = state.easiest
        if self.parents == "easiest":
            easiest = easiest_rows(slots, score, outcome, self.num_parents)
        remembered = StoredInfo(slots.score_state, slots.level_info.lineage)
        level, memory = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (slots.level, remembered)
        )
        row, score = slots.buffer_index.ravel(), score.ravel()
        finished = jnp.repeat(done, slots.buffer_index.shape[1])
        buffer = update(state.buffer, row, score, memory, finished)
        offered = finished & (row < 0)

        def take_in() -> LevelBuffer:
            hashes = jax.vmap(lambda one: hash_of(self.env, one))(level)
            return insert(
                buffer,
                Arrivals(level, memory, score, hashes, offered),
                self._priority(),
                protected=self._held(slots, ~done),
                sequential=self.sequential,
                deduplicate=self.deduplicate,
            )

        # A replay offers nothing, and insertion one by one is dear.
        buffer = jax.lax.cond(any_over_seeds(offered.any()), take_in, lambda: buffer)
        return state._replace(
            source=source, buffer=buffer, num_updates=state.num_updates + 1, easiest=easiest
        )

    def metrics(self, state: PLRState) -> Metrics:
        """The source's."""
        return self.source.metrics(state.source)

    def replay_probability(self, state: PLRState) -> Float[Array, " K"]:
        """Of each row, in an update that replays."""
        return self._priority()(state.buffer, observed(state.buffer))

    def lineage(self, state: PLRState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Updates since each level was first met, and edits between it and the source."""
        age = state.num_updates - 1 - slots.level_info.lineage.born
        return {"age": age, "depth": slots.level_info.lineage.depth}

    def _decide(
        self, key: Key, state: PLRState, num_slots: int
    ) -> tuple[Bool[Array, " N"], Bool[Array, " N"]]:
        """Which slots are to replay and which to edit, if possible; equal for all seeds.

        So is `num_new`, which counts what was decided, unless each slot decides for itself.
        """
        warm = same_for_all_seeds(state.num_new) >= self.min_fill * self.capacity
        if self.parallel:
            block = jnp.arange(num_slots) * self.num_blocks // num_slots
            return warm & (block == 1), warm & (block == 2)
        edits = same_for_all_seeds(state.edits_next)
        coin = jax.random.bernoulli(jax.random.fold_in(key, _OWN), self.replay_prob)
        return jnp.tile(warm & coin & ~edits, num_slots), jnp.tile(edits, num_slots)

    def _decide_each(
        self,
        key: Key,
        state: PLRState,
        slots: Slots,
        free: Bool[Array, " N"],
        rows: Bool[Array, " K"],
    ) -> tuple[Bool[Array, " N"], Bool[Array, " N"]]:
        """The same by a coin of each slot's own, as far as there are rows; no slot edits."""
        # What was taken in may be much without evidence: lives cut short, and those that go on.
        warm = observed(state.buffer).sum() >= self.min_fill * self.capacity
        coins = jax.random.bernoulli(jax.random.fold_in(key, _COIN), self.replay_prob, free.shape)
        wanted = free & coins & warm
        enough = jnp.cumsum(wanted) * slots.buffer_index.shape[1] <= rows.sum()
        return wanted & enough, jnp.zeros_like(free)

    def _generate(
        self, keys: Keys, state: PLRState, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """New levels from the source for the `fresh` slots; a branch, as they may be dear."""

        def generate() -> tuple[PyTree, Slots]:
            own_slots = slots._replace(level_info=slots.level_info.source)
            after, new = self.source.propose(keys, state.source, own_slots, fresh)
            new = new._replace(
                buffer_index=jnp.full_like(slots.buffer_index, -1),
                origin=jnp.full_like(slots.origin, NEW),
                weight=jnp.full_like(slots.weight, float(self.train_on_new)),
                level_info=SlotInfo(
                    new.level_info, born(NEW, jnp.zeros_like(slots.buffer_index), state.num_updates)
                ),
            )
            return tree_where(fresh.any(), after, state.source), tree_where(fresh, new, slots)

        return jax.lax.cond(any_over_seeds(fresh.any()), generate, lambda: (state.source, slots))

    def _recall(
        self,
        key: Key,
        buffer: LevelBuffer,
        rows: Bool[Array, " K"],
        slots: Slots,
        replay: Bool[Array, " N"],
    ) -> tuple[LevelBuffer, Slots]:
        """Levels of the buffer for the `replay` slots; only what changes leaves the branch."""

        def recall() -> tuple[Array, Array, Slots]:
            used = jnp.repeat(replay, slots.buffer_index.shape[1])
            key_draw = jax.random.fold_in(key, _OWN)
            if self.per_slot:
                drawn, row = draw_distinct(key_draw, buffer, self._priority(), rows, used)
            else:
                drawn, row = draw(key_draw, buffer, self._priority(), rows, used, self.sequential)
            row = row.reshape(slots.buffer_index.shape)
            level, info = jax.tree.map(lambda x: x[row], (buffer.level, buffer.level_info))
            old = Slots(
                level,
                info.score_state,
                row,
                origin=jnp.full_like(slots.origin, REPLAY),
                weight=jnp.ones_like(slots.weight),
                level_info=SlotInfo(slots.level_info.source, info.lineage),
            )
            return drawn.timestamp, drawn.clock, tree_where(replay, old, slots)

        timestamp, clock, slots = jax.lax.cond(
            any_over_seeds(replay.any()), recall, lambda: (buffer.timestamp, buffer.clock, slots)
        )
        return buffer._replace(timestamp=timestamp, clock=clock), slots

    def _edit(
        self, key: Key, state: PLRState, before: Slots, slots: Slots, mutant: Bool[Array, " N"]
    ) -> Slots:
        """Mutants for the `mutant` slots.

        Their parents are the levels that the slots held before, or, in a parallel update, those
        that another block has just been given.
        """
        if self.num_edits == 0:
            return slots
        held = slots if self.parallel else before

        def parents() -> tuple[PyTree, Int[Array, "N R"]]:
            return self._parents(state, held)

        key_edit = jax.random.fold_in(key, _EDIT)
        now = state.num_updates
        return edit_into(key_edit, self.env, parents, self.num_edits, slots, mutant, now)

    def _has_parent(self, state: PLRState, before: Slots) -> Bool[Array, " N"]:
        if self.parents == "easiest":
            return jnp.tile((state.easiest >= 0).any(), before.origin.size)
        return (before.origin == REPLAY) | self.parallel

    def _parents(self, state: PLRState, slots: Slots) -> tuple[PyTree, Int[Array, "N R"]]:
        """A parent for each place [N, R], and how deep it is."""
        if self.parents == "batch":
            shift = (
                slots.buffer_index.shape[0] // 3 if self.parallel else 0
            )  # from the block before
            return jax.tree.map(
                lambda x: jnp.roll(x, shift, axis=0), (slots.level, slots.level_info.lineage.depth)
            )
        num_known = jnp.maximum((state.easiest >= 0).sum(), 1)
        place = jnp.arange(slots.buffer_index.size) % num_known
        row = state.easiest[place].reshape(slots.buffer_index.shape)
        held = state.buffer.level, state.buffer.level_info.lineage.depth
        return jax.tree.map(lambda x: x[row], held)

    def _held(self, slots: Slots, busy: Bool[Array, " N"]) -> Bool[Array, " K"]:
        """Rows whose levels busy slots are working on."""
        row = jnp.where(
            busy[:, None] & (slots.buffer_index >= 0), slots.buffer_index, self.capacity
        )
        return jnp.zeros(self.capacity, bool).at[row].set(True, mode="drop")

    def _priority(self) -> Priority:
        return Priority(self.priority, self.temperature, self.staleness_coef)


def build(env: LevelEnv, **fields: Any) -> PLR:
    """PLR over an environment's base distribution."""
    return PLR(env, Random(env), **fields)


def tiny(env: LevelEnv) -> PLR:
    """The smallest instance, for tests of laws."""
    return PLR(env, Random(env), capacity=16, replay_prob=0.5)
