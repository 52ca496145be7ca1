"""Prioritised level replay (PLR): plays new levels, and replays earlier levels with high scores.

With a `Mutator`, this is the sampler of ACCEL, which creates mutants by editing replayed levels.
With the decision `Blocks`, this is the sampler of the parallel variants of PLR and ACCEL. Slots,
queues and weights are explained in `rlgen.algos.samplers`.

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
"""Constants that are folded into `keys` for PLR's own draws. The source receives `keys` unchanged,
so that the source samples the same levels with and without PLR."""


_EXAMPLES = {
    "decision": "Alternate(replay_prob=0.5)",
    "mutator": "Mutator(num_edits=5)",
    "priority": "Priority('rank', temperature=0.3)",
}


class PLRState(NamedTuple):
    """The level buffer, counters, and the state of the source."""

    source: PyTree
    buffer: LevelBuffer
    num_new: Int[Array, ""]  # number of levels requested from the source, clipped at K
    num_updates: Int[Array, ""]
    edits_next: Bool[Array, ""]  # True if the last update replayed; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the P easiest levels of the last replay, padded with -1


class Situation(NamedTuple):
    """Input of a `Decision`: the situation before an update, with K buffer rows and N slots."""

    state: PLRState
    free: Bool[Array, " N"]  # slots to fill
    levels_per_slot: int
    rows: Bool[Array, " K"]  # rows that may be replayed
    least: float  # number of levels required before replay begins, min_fill * K
    edits: bool  # True if the sampler creates mutants


Choice = tuple[Bool[Array, " N"], Bool[Array, " N"]]
"""Masks of the slots that should replay and of the slots that should play mutants.

If no row or no parent is available for such a slot, the slot plays a new level instead.
"""


class Decision(Component, abstract=True):
    """Assigns replayed levels, mutants or new levels to each slot."""

    whole_updates: bool = True
    """True if one decision covers all slots of an update, as mutants require."""

    @abc.abstractmethod
    def choose(self, keys: Keys, now: Situation) -> Choice:
        """Choose the slots that replay and the slots that play mutants in one update."""

    def num_blocks(self, edits: bool) -> int:
        """Number of equal blocks of slots; `edits` states whether the sampler creates mutants."""
        return 1

    def trained_updates(self, learned: float, edits: bool) -> float:
        """Fraction of the updates that train the student.

        Args:
            learned: 1 if updates with new levels train the student, else 0.
            edits: Whether the sampler creates mutants.
        """
        return 1.0


def _is_warm(now: Situation) -> Bool[Array, ""]:
    """Return whether enough levels have been requested from the source for replay to begin.

    The result is equal for all seeds.
    """
    return same_for_all_seeds(now.state.num_new) >= now.least


@dataclass(frozen=True)
class Alternate(Decision):
    """Makes one random choice per update: all slots of all seeds replay, or all play new levels.

    The branch that is not chosen is not executed. With a mutator, each replay update is followed by
    an update that plays mutants of the replayed levels. Replay begins once `min_fill * capacity`
    levels have been requested from the source. (JaxUED counts filled rows instead. A family with
    few distinct levels may never fill enough rows, and the number of filled rows differs between
    seeds.)

    Attributes:
        replay_prob: Probability that an update without mutants replays. With 0, all levels come
            from the source.

    Raises:
        ValueError: If `replay_prob` lies outside [0, 1].
    """

    replay_prob: float = 0.8

    def __post_init__(self):
        check_numbers(self, "replay_prob", least=0, most=1)

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """Return one choice, repeated for all N slots."""
        edits = same_for_all_seeds(now.state.edits_next)
        # `keys.shared` is equal for all seeds, so all seeds replay in the same updates. Branches of
        # `propose` that no seed needs are then skipped.
        coin = jax.random.bernoulli(jax.random.fold_in(keys.shared, _OWN), self.replay_prob)
        num_slots = now.free.size
        return jnp.tile(_is_warm(now) & coin & ~edits, num_slots), jnp.tile(edits, num_slots)

    def trained_updates(self, learned: float, edits: bool) -> float:
        """Fraction of the updates that train the student.

        Updates with mutants never train the student.
        """
        # `share` is the fraction of the updates without mutants that train the student. With
        # probability `replay_prob`, an update without mutants is followed by one with mutants.
        share = learned + (1 - learned) * self.replay_prob
        return share / (1 + self.replay_prob * edits)


@dataclass(frozen=True)
class Blocks(Decision):
    """Plays new levels, replayed levels and mutants in parallel, in equal blocks of slots."""

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """Let the second block replay and the third play mutants, once replay has begun."""
        num_slots, warm = now.free.size, _is_warm(now)
        # Block 0 plays new levels, block 1 replays, block 2 plays mutants.
        block = jnp.arange(num_slots) * self.num_blocks(now.edits) // num_slots
        return warm & (block == 1), warm & (block == 2)

    def num_blocks(self, edits: bool) -> int:
        """Return 3 with mutants, else 2."""
        return 3 if edits else 2


@dataclass(frozen=True)
class EachSlot(Decision):
    """Decides for each free slot separately whether it replays.

    This decision is for students whose slots become free at different times.

    Replay begins once `min_fill * capacity` rows have a score. Rows are drawn without replacement,
    so that two slots never play the same row at once. If no row is left for a slot, the slot plays
    a new level. The choices differ between seeds. Mutants and sequential draws are not supported,
    because both require one decision for the whole update.

    Attributes:
        replay_prob: Probability that a free slot replays.

    Raises:
        ValueError: If `replay_prob` lies outside [0, 1].
    """

    replay_prob: float = 0.8
    whole_updates = False

    def __post_init__(self):
        check_numbers(self, "replay_prob", least=0, most=1)

    def choose(self, keys: Keys, now: Situation) -> Choice:
        """Decide at random for each free slot whether it replays.

        If too few rows are left for a slot, the slot plays new levels. No slot plays mutants.
        """
        # The condition counts rows with a score, not `num_new`. Many of the requested levels may
        # have no score, because their lifetime is still in progress or was incomplete.
        warm = observed(now.state.buffer).sum() >= now.least
        key = jax.random.fold_in(keys.own, _COIN)
        wanted = now.free & jax.random.bernoulli(key, self.replay_prob, now.free.shape) & warm
        # Each replaying slot needs R rows that no other slot plays.
        enough = jnp.cumsum(wanted) * now.levels_per_slot <= now.rows.sum()
        return wanted & enough, jnp.zeros_like(now.free)


@dataclass(frozen=True)
class PLR(BufferedSampler):
    """Plays new levels, and replays levels from a buffer with a preference for high scores.

    If a seed's buffer is still empty when replay begins, the seed continues with new levels. Rows
    whose levels are in busy slots are neither drawn nor replaced.

    Attributes:
        env: Environment, which edits levels, and hashes levels to find equal ones.
        source: Sampler of new levels; receives only the results of slots that it filled.
        decision: Rule that assigns slots to replay: `Alternate`, `Blocks` or `EachSlot`.
        mutator: Settings for mutants, which the student does not train on; `num_edits=0` disables
            mutants.
        priority: Replay probability of each level, from score and staleness.
        capacity: Number of rows of the level buffer, K.
        min_fill: Number of levels required before replay begins, as a fraction of the capacity.
        train_on_new: Train on new levels too (weight 1); `False` gives robust PLR.
        sequential: Draw and insert levels one after the other, as in JaxUED; see `rlgen.buffer`.
        deduplicate: Store equal levels in one row.

    Raises:
        TypeError: If `decision`, `mutator` or `priority` has the wrong type.
        ValueError: If a field is outside its range, if two fields are incompatible, or if `mutator`
            is enabled and the environment does not support edits.
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
                    f"{type(self.decision).__name__} does not support {given}: slots become free "
                    "at different times, while mutants and sequential draws require one decision "
                    "for the whole update; leave this field at its default"
                )
        if not self._edits:
            return
        if self.decision.num_blocks(True) > 1 and self.mutator.parents == "easiest":
            raise ValueError(
                "parents='easiest' needs the results of the parents, but a parallel update plays "
                "the parents and their mutants at the same time; use parents='batch'"
            )
        require(self.env, LevelEnv.mutate_levels, "a curriculum that edits levels (num_edits > 0)")

    @property
    def _edits(self) -> bool:
        return self.mutator.num_edits > 0

    @property
    def reads(self) -> frozenset[str]:
        """Fields of the outcome that the mutator and the source read."""
        return super().reads | self.mutator.reads

    @property
    def num_blocks(self) -> int:
        """Number of equal blocks into which the slots divide."""
        return self.decision.num_blocks(self._edits)

    @property
    def train_share(self) -> float:
        """Fraction of the slots whose weight can be above 0 in one update."""
        return 1.0 if self.train_on_new else 1 / self.num_blocks

    def trained_updates(self, num_levels: int) -> float:
        """Fraction of the updates that train the student once replay has begun."""
        del num_levels
        return self.decision.trained_updates(float(self.train_on_new), self._edits)

    def check(self, num_levels: int, score: Score) -> None:
        """Check capacity, priority and source against the number of levels and the score.

        Raises:
            ValueError: If the buffer has fewer rows than an update has levels, if priorities are
                proportional but the score may be negative, or if the source rejects an argument.
        """
        super().check(num_levels, score)
        if self.priority.kind == "proportional" and score.may_be_negative:
            raise ValueError(
                f"priority.kind='proportional' needs scores of 0 or more, but scores of "
                f"{type(score).__name__} may be negative; use priority.kind='rank'"
            )

    def init(self, key: Key, memory: PyTree) -> PLRState:
        """Return a state with an empty buffer."""
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
        """Fill the free slots with replayed levels, new levels or mutants.

        The field `decision` determines the kind of levels of each slot.
        """
        rows = observed(state.buffer) & ~held_rows(slots, ~free, self.capacity)
        levels_per_slot = slots.buffer_index.shape[1]
        least = self.min_fill * self.capacity
        now = Situation(state, free, levels_per_slot, rows, least, self._edits)
        replays, edits = self.decision.choose(keys, now)
        before, playing = slots, free & rows.any()
        replay = playing & replays
        mutant = playing & edits & self._has_parent(state, before)
        fresh = free & ~replay & ~mutant
        # Only slots that `decision` assigns to new levels are counted. A slot that plays new levels
        # because no row or parent is available is not counted. With `whole_updates` the assignment
        # is equal for all seeds, so `num_new` and the start of replay are equal too.
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
        """Update the replayed rows and offer all other levels to the buffer."""
        done, easiest = outcome.done, state.easiest
        if self.mutator.reads:
            easiest = easiest_rows(slots, score, outcome, self.mutator.num_parents)
        level, memory = remembered(slots)
        # One entry per queue position, [N * R].
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

        # A branch, because a replay update offers no levels and sequential insertion is expensive.
        buffer = jax.lax.cond(any_over_seeds(offered.any()), admit, lambda: buffer)
        return state._replace(buffer=buffer, num_updates=state.num_updates + 1, easiest=easiest)

    def replay_probability(self, state: PLRState) -> Float[Array, " K"]:
        """Replay probability of each row, in an update that replays."""
        return self.priority(state.buffer, observed(state.buffer))

    def lineage(self, state: PLRState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Age of each level in updates, and its depth, the number of generations of edits."""
        return super().lineage(state, slots) | {"depth": slots.level_info.lineage.depth}

    def _recall(
        self,
        key: Key,
        buffer: LevelBuffer,
        rows: Bool[Array, " K"],
        slots: Slots,
        replay: Bool[Array, " N"],
    ) -> tuple[LevelBuffer, Slots]:
        """Fill the `replay` slots with levels of the buffer, and record the draws in the buffer."""

        def recall() -> tuple[Array, Array, Slots]:
            used = jnp.repeat(replay, slots.buffer_index.shape[1])
            key_draw = jax.random.fold_in(key, _OWN)
            if self.decision.whole_updates:
                drawn, row = draw(key_draw, buffer, self.priority, rows, used, self.sequential)
            else:
                drawn, row = draw_distinct(key_draw, buffer, self.priority, rows, used)
            old = replayed(buffer, row.reshape(slots.buffer_index.shape), slots, weight=1.0)
            # Draws change only the buffer's timestamps and its clock, which counts draws and
            # insertions. The branch therefore returns only these two arrays of the buffer.
            return drawn.timestamp, drawn.clock, tree_where(replay, old, slots)

        timestamp, clock, slots = jax.lax.cond(
            any_over_seeds(replay.any()), recall, lambda: (buffer.timestamp, buffer.clock, slots)
        )
        return buffer._replace(timestamp=timestamp, clock=clock), slots

    def _edit(
        self, key: Key, state: PLRState, before: Slots, slots: Slots, mutant: Bool[Array, " N"]
    ) -> Slots:
        """Fill the `mutant` slots with mutants.

        With `parents="batch"`, the parents are the levels that the mutant slots held before this
        update. With the decision `Blocks`, the parents are instead the levels that this update has
        assigned to the block of slots that replays. With `parents="easiest"`, the parents come from
        the buffer.
        """
        if not self._edits:
            return slots
        held = slots if self.num_blocks > 1 else before

        # A function, so that the parents are gathered only inside the branch that edits.
        def parents() -> tuple[PyTree, Int[Array, "N R"]]:
            return self._parents(state, held)

        key_edit, num_edits = jax.random.fold_in(key, _EDIT), self.mutator.num_edits
        return edit_into(key_edit, self.env, parents, num_edits, slots, mutant, state.num_updates)

    def _has_parent(self, state: PLRState, before: Slots) -> Bool[Array, " N"]:
        # `mutator.reads` is non-empty if and only if parents="easiest".
        if self.mutator.reads:
            return jnp.tile((state.easiest >= 0).any(), before.origin.size)
        return (before.origin == REPLAY) | (self.num_blocks > 1)

    def _parents(self, state: PLRState, slots: Slots) -> tuple[PyTree, Int[Array, "N R"]]:
        """Return a parent for each queue position, [N, R, ...], and its depth [N, R]."""
        if self.mutator.parents == "batch":
            # With `Blocks`, shift by one block, so that the mutants (block 2) get the replayed
            # levels (block 1) as parents.
            shift = slots.buffer_index.shape[0] // 3 if self.num_blocks > 1 else 0
            return jax.tree.map(
                lambda x: jnp.roll(x, shift, axis=0), (slots.level, slots.level_info.lineage.depth)
            )
        # The mutants cycle through the easiest rows, which come before the padding of -1.
        num_known = jnp.maximum((state.easiest >= 0).sum(), 1)
        place = jnp.arange(slots.buffer_index.size) % num_known
        row = state.easiest[place].reshape(slots.buffer_index.shape)
        held = state.buffer.level, state.buffer.level_info.lineage.depth
        return jax.tree.map(lambda x: x[row], held)


def build(env: LevelEnv, **fields: Any) -> PLR:
    """Build PLR with new levels from the environment's base distribution."""
    return PLR(env, Random(env), **fields)


def tiny(env: LevelEnv) -> PLR:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return PLR(env, Random(env), Alternate(replay_prob=0.5), capacity=16)
