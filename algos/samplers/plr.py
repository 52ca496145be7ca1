"""Prioritised level replay: new levels, or old ones from which there was most to learn.

With a mutator it is ACCEL, which grows new levels out of replayed ones; with `Blocks` for a
decision it is the parallel variant of either.

Sources: Jiang et al., 2021, "Prioritized Level Replay"; Jiang et al., 2021, "Replay-Guided
Adversarial Environment Design", algorithm 1 (robust PLR: no training on new levels); Parker-Holder
et al., 2022, "Evolving Curricula with Regret-Based Environment Design" (ACCEL); Jiang et al., 2023,
"minimax: Efficient Baselines for Autocurricula in JAX" (the parallel variants).
"""

import abc
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import (
    BufferedSampler,
    Mutator,
    easiest_rows,
    edit_into,
    empty_buffer,
    generate,
    held_rows,
    remembered,
    replayed,
)
from rlgen.buffer import (
    Arrivals,
    LevelBuffer,
    Priority,
    draw,
    draw_distinct,
    insert,
    observed,
    update,
)
from rlgen.parallel.seeds import any_over_seeds, same_for_all_seeds, tree_where
from rlgen.protocols import Component, LevelEnv, Sampler, Score, check_numbers
from rlgen.registry import require
from rlgen.types import REPLAY, Key, Keys, Outcome, PyTree, Slots

_OWN, _EDIT, _COIN = 0x504C5200, 0x504C5201, 0x504C5202
"""Folded into keys that the source gets as they are: alone or under PLR, it draws the same."""


_EXAMPLES = {
    "decision": "Alternate(replay_prob=0.5)",
    "mutator": "Mutator(num_edits=5)",
    "priority": "Priority('rank', temperature=0.3)",
}


class PLRState(NamedTuple):
    """What has been seen, and the source's own state."""

    source: PyTree
    buffer: LevelBuffer
    num_new: Int[Array, ""]  # levels asked of the source, up to the capacity
    num_updates: Int[Array, ""]
    edits_next: Bool[Array, ""]  # the last update replayed, so this one edits; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the easiest levels of the last replay; -1 for none


class Situation(NamedTuple):
    """What a decision knows of an update; K rows, N slots."""

    state: PLRState
    free: Bool[Array, " N"]  # slots to be filled
    levels_per_slot: int
    rows: Bool[Array, " K"]  # that may be replayed
    least: float  # rows that must have been taken in before replay begins
    edits: bool  # whether there are mutants at all


Choice = tuple[Bool[Array, " N"], Bool[Array, " N"]]
"""The slots that are to replay, and those that are to play mutants, if possible."""


class Decision(Component, abstract=True):
    """Which slots replay, which play mutants, and which play new levels."""

    whole_updates: bool = True
    """Whether the slots of an update are decided together; mutants are of whole updates."""

    @abc.abstractmethod
    def choose(self, keys: Keys, now: Situation) -> Choice:
        """Decide about the slots of one update."""

    def num_blocks(self, edits: bool) -> int:
        """Equal blocks that the slots divide into, with or without mutants."""
        return 1

    def trained_updates(self, learned: float, edits: bool) -> float:
        """Share of the updates that are learned from.

        Args:
            learned: share of those with new levels that are.
            edits: whether mutants are made.
        """
        return 1.0


def _is_warm(now: Situation) -> Bool[Array, ""]:
    """Whether enough levels were asked of the source to replay; equal for all seeds."""
    return same_for_all_seeds(now.state.num_new) >= now.least


@dataclass(frozen=True)
class Alternate(Decision):
    """All slots do the same: one coin an update, for all seeds, so that other work is skipped.

    With a mutator, the update after one that replayed plays mutants of the levels just replayed.
    Replay begins once `min_fill` of the capacity has been taken from the source. (JaxUED waits for
    that many *rows*, which a family of few distinct levels never fills, and which differ between
    seeds.)

    Attributes:
        replay_prob: share of updates that replay, of those without mutants; 0 is the source alone.

    Raises:
        ValueError: a share outside [0, 1].
    """

    replay_prob: float = 0.8

    def __post_init__(self):
        check_numbers(self, "replay_prob", least=0, most=1)

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """The same for all slots and all seeds."""
        edits = same_for_all_seeds(now.state.edits_next)
        coin = jax.random.bernoulli(jax.random.fold_in(keys.shared, _OWN), self.replay_prob)
        num_slots = now.free.size
        return jnp.tile(_is_warm(now) & coin & ~edits, num_slots), jnp.tile(edits, num_slots)

    def trained_updates(self, learned: float, edits: bool) -> float:
        """One more, of mutants, follows each that replays."""
        share = learned + (1 - learned) * self.replay_prob
        return share / (1 + self.replay_prob * edits)


@dataclass(frozen=True)
class Blocks(Decision):
    """New levels, replayed ones and mutants of these side by side, in equal blocks of slots."""

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """By the place of a slot, once replay has begun."""
        num_slots, warm = now.free.size, _is_warm(now)
        block = jnp.arange(num_slots) * self.num_blocks(now.edits) // num_slots
        return warm & (block == 1), warm & (block == 2)

    def num_blocks(self, edits: bool) -> int:
        """New, replayed, and perhaps mutants."""
        return 3 if edits else 2


@dataclass(frozen=True)
class EachSlot(Decision):
    """Each free slot decides for itself; for students whose slots come free at different times.

    Replay begins once `min_fill` of the capacity has been scored, long after it was taken in. No
    row is in play twice: rows are drawn without replacement, and a slot for which none is left
    takes a new level. Seeds differ in what they do. Mutants and blocks belong to whole updates.

    Attributes:
        replay_prob: chance that a slot replays.

    Raises:
        ValueError: a chance outside [0, 1].
    """

    replay_prob: float = 0.8
    whole_updates = False

    def __post_init__(self):
        check_numbers(self, "replay_prob", least=0, most=1)

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """A coin a slot, as far as there are rows; no slot edits."""
        # What was taken in may be much without evidence: lives cut short, and those that go on.
        warm = observed(now.state.buffer).sum() >= now.least
        key = jax.random.fold_in(keys.own, _COIN)
        wanted = now.free & jax.random.bernoulli(key, self.replay_prob, now.free.shape) & warm
        enough = jnp.cumsum(wanted) * now.levels_per_slot <= now.rows.sum()
        return wanted & enough, jnp.zeros_like(now.free)


@dataclass(frozen=True)
class PLR(BufferedSampler):
    """Replays levels of a buffer, those from which there is most to learn; takes new ones, too.

    A seed whose buffer is still empty when replay begins goes on with new levels. Rows held by busy
    slots are neither drawn nor replaced.

    Attributes:
        env: whose hash tells levels apart, and which edits levels.
        source: where new levels come from; it sees only the slots that it filled.
        decision: `Alternate`, `Blocks` or `EachSlot`.
        mutator: how mutants are made, which have weight 0; without edits there are none.
        priority: which levels are replayed.
        capacity: K, rows.
        min_fill: share of the capacity to be taken in before replay begins.
        train_on_new: whether new levels have weight 1; `False` is robust PLR.
        sequential: draw and insert levels one after the other, as published; see `rlgen.buffer`.
        deduplicate: whether equal levels share a row.

    Raises:
        ValueError: a field outside its range, fields that exclude each other, or edits in an
            environment that has none.
    """

    env: LevelEnv
    source: Sampler
    decision: Decision = field(default_factory=Alternate)
    mutator: Mutator = field(default_factory=lambda: Mutator(num_edits=0))
    priority: Priority = field(default_factory=Priority)
    capacity: int = 4000
    min_fill: float = 0.5
    train_on_new: bool = True
    sequential: bool = False
    deduplicate: bool = True

    def __post_init__(self):
        for name, kind in (("decision", Decision), ("mutator", Mutator), ("priority", Priority)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be a {kind.__name__}, such as {_EXAMPLES[name]}, got "
                    f"{getattr(self, name)!r}"
                )
        check_numbers(self, "capacity", least=1)
        check_numbers(self, "min_fill", least=0, most=1)
        for given, is_set in (
            (f"mutator.num_edits={self.mutator.num_edits}", self._edits),
            ("sequential=True", self.sequential),
        ):
            if is_set and not self.decision.whole_updates:
                raise ValueError(
                    f"{type(self.decision).__name__} does not go with {given}: slots come free at "
                    "different times, and mutants and draws one by one are of whole updates; "
                    "leave it at its default"
                )
        if not self._edits:
            return
        if self.decision.num_blocks(True) > 1 and self.mutator.parents == "easiest":
            raise ValueError(
                "parents='easiest' asks how the parents went, and a parallel update plays them "
                "beside their mutants; use parents='batch'"
            )
        require(self.env, LevelEnv.mutate_levels, "a curriculum that edits levels (num_edits > 0)")

    @property
    def _edits(self) -> bool:
        return self.mutator.num_edits > 0

    @property
    def reads(self) -> frozenset[str]:
        """What the mutator and the source read."""
        return super().reads | self.mutator.reads

    @property
    def num_blocks(self) -> int:
        """Equal blocks that the slots divide into."""
        return self.decision.num_blocks(self._edits)

    @property
    def train_share(self) -> float:
        """Share of the slots that can have weight in one update."""
        return 1.0 if self.train_on_new else 1 / self.num_blocks

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from once replay has begun."""
        del num_levels
        return self.decision.trained_updates(float(self.train_on_new), self._edits)

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse a buffer that cannot take the levels of one update, and what the source refuses.

        Raises:
            ValueError: fewer rows than levels, or proportional priorities of a score that may be
                negative.
        """
        super().check(num_levels, score)
        if self.priority.kind == "proportional" and score.may_be_negative:
            raise ValueError(
                f"priority.kind='proportional' needs scores of 0 or more, and those of "
                f"{type(score).__name__} may be negative; use priority.kind='rank'"
            )

    def init(self, key: Key, memory: PyTree) -> PLRState:
        """An empty buffer."""
        zero, never = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
        return PLRState(
            source=self.source.init(key, memory),
            buffer=empty_buffer(self.source, memory, self.capacity),
            num_new=zero,
            num_updates=zero,
            edits_next=never,
            easiest=self.mutator.none_easiest(),
        )

    def propose(
        self, keys: Keys, state: PLRState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PLRState, Slots]:
        """Replayed levels for all free slots, or new ones, or mutants; or a block of each."""
        rows = observed(state.buffer) & ~held_rows(slots, ~free, self.capacity)
        levels_per_slot = slots.buffer_index.shape[1]
        least = self.min_fill * self.capacity
        now = Situation(state, free, levels_per_slot, rows, least, self._edits)
        replays, edits = self.decision.choose(keys, now)
        before, playing = slots, free & rows.any()
        replay = playing & replays
        mutant = playing & edits & self._has_parent(state, before)
        fresh = free & ~replay & ~mutant
        # Counted by what was decided, and not by what could be done: of whole updates the decision
        # is equal for all seeds, as the start of replay must be.
        taken_in = state.num_new + ((free & ~replays & ~edits).sum() * levels_per_slot)
        weight = jnp.float32(self.train_on_new)
        source, slots = generate(
            self.source, keys, state.source, slots, fresh, weight, state.num_updates
        )
        buffer, slots = self._recall(keys.own, state.buffer, rows, slots, replay)
        slots = self._edit(keys.own, state, before, slots, mutant)
        state = state._replace(
            source=source,
            buffer=buffer,
            num_new=jnp.minimum(taken_in, self.capacity),
            edits_next=replays.any() & self._edits,
        )
        return state, slots

    def take_in(
        self, state: PLRState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> PLRState:
        """Update the replayed rows, offer the other levels to the buffer."""
        done, easiest = outcome.done, state.easiest
        if self.mutator.reads:
            easiest = easiest_rows(slots, score, outcome, self.mutator.num_parents)
        level, memory = remembered(slots)
        row, score = slots.buffer_index.ravel(), score.ravel()
        finished = jnp.repeat(done, slots.buffer_index.shape[1])
        buffer = update(state.buffer, row, score, memory, finished)
        offered = finished & (row < 0)

        def admit() -> LevelBuffer:
            hashes = jax.vmap(self.env.level_hash)(level)
            return insert(
                buffer,
                Arrivals(level, memory, score, hashes, offered),
                self.priority,
                protected=held_rows(slots, ~done, self.capacity),
                sequential=self.sequential,
                deduplicate=self.deduplicate,
            )

        # A replay offers nothing, and insertion one by one is dear.
        buffer = jax.lax.cond(any_over_seeds(offered.any()), admit, lambda: buffer)
        return state._replace(buffer=buffer, num_updates=state.num_updates + 1, easiest=easiest)

    def replay_probability(self, state: PLRState) -> Float[Array, " K"]:
        """Of each row, in an update that replays."""
        return self.priority(state.buffer, observed(state.buffer))

    def lineage(self, state: PLRState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Updates since each level was first met, and edits between it and the source."""
        return super().lineage(state, slots) | {"depth": slots.level_info.lineage.depth}

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
            if self.decision.whole_updates:
                drawn, row = draw(key_draw, buffer, self.priority, rows, used, self.sequential)
            else:
                drawn, row = draw_distinct(key_draw, buffer, self.priority, rows, used)
            old = replayed(buffer, row.reshape(slots.buffer_index.shape), slots, weight=1.0)
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
        if not self._edits:
            return slots
        held = slots if self.num_blocks > 1 else before

        def parents() -> tuple[PyTree, Int[Array, "N R"]]:
            return self._parents(state, held)

        key_edit, num_edits = jax.random.fold_in(key, _EDIT), self.mutator.num_edits
        return edit_into(key_edit, self.env, parents, num_edits, slots, mutant, state.num_updates)

    def _has_parent(self, state: PLRState, before: Slots) -> Bool[Array, " N"]:
        if self.mutator.reads:
            return jnp.tile((state.easiest >= 0).any(), before.origin.size)
        return (before.origin == REPLAY) | (self.num_blocks > 1)

    def _parents(self, state: PLRState, slots: Slots) -> tuple[PyTree, Int[Array, "N R"]]:
        """A parent for each place [N, R], and how deep it is."""
        if self.mutator.parents == "batch":
            # Of blocks, from the block before.
            shift = slots.buffer_index.shape[0] // 3 if self.num_blocks > 1 else 0
            return jax.tree.map(
                lambda x: jnp.roll(x, shift, axis=0), (slots.level, slots.level_info.lineage.depth)
            )
        num_known = jnp.maximum((state.easiest >= 0).sum(), 1)
        place = jnp.arange(slots.buffer_index.size) % num_known
        row = state.easiest[place].reshape(slots.buffer_index.shape)
        held = state.buffer.level, state.buffer.level_info.lineage.depth
        return jax.tree.map(lambda x: x[row], held)


def build(env: LevelEnv, **fields: Any) -> PLR:
    """PLR over an environment's base distribution."""
    return PLR(env, Random(env), **fields)


def tiny(env: LevelEnv) -> PLR:
    """The smallest instance, for tests of laws."""
    return PLR(env, Random(env), Alternate(replay_prob=0.5), capacity=16)
