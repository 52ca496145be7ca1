"""DRED: replay of a finite set of levels, and by degrees of generated ones that were worth keeping.

An update that trains draws levels from a mixture over the set and the buffer; the next one only
looks at new levels, which enter the buffer if the agent has solved them. Without new levels it is
prioritised replay of the set.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.branching import any_seed, same_for_all_seeds, where
from rlgen.buffer import Arrivals, LevelBuffer, draw, insert, make_buffer, observed
from rlgen.levels import LevelSet, hash_of
from rlgen.protocols import LevelEnv, Sampler, Score
from rlgen.types import REPLAY, Episodes, Key, Keys, Metrics, Outcome, PyTree, Slots

from ._finite import Known, Trial, check_fields, first_known, judge, take_back
from ._lineage import Note, easiest_rows
from ._mixture import Mixture, MixtureNow
from ._mutants import edit_into
from ._pool import first_note, generate, lineage_of, recall, source_metrics, tell_source
from .fixed import Fixed
from .random import Random

_DRAW, _EDIT = 0x44524400, 0x44524401
"""Folded into keys that the source gets as they are."""


class DREDState(NamedTuple):
    """What is known of the set and of the levels added to it, and the source's own state."""

    source: PyTree
    buffer: LevelBuffer  # the set in its first rows, for ever
    num_met: Int[Array, ""]  # levels of the set handed out for the first time; equal for all seeds
    num_updates: Int[Array, ""]
    looks_next: Bool[Array, ""]  # the last update replayed; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the easiest levels of the last replay; -1 for none
    shift_gap: Float[Array, ""]  # as of the last update


@dataclass(frozen=True)
class DRED:
    """A finite set in the first rows of a buffer, in the others the best of what is added to it.

    First every level of the set is met once. Then updates of replay, of weight 1, take turns with
    updates that look at proposals, of weight 0. A proposal is played again and again in its slot.
    It enters the buffer, in an empty row or the added one that is least likely to be drawn, if it
    was solved at least once and scores above 0 and above that row. The set's rows never change.

    A level counts as drawn when it is played, not when it is queued. Draws of one update do not
    see each other's staleness unless they are `sequential`.

    Attributes:
        env: whose hash tells levels apart, and which edits levels.
        data: the finite set, M levels.
        source: where proposals come from; `()` for none.
        score: what judges the levels.
        mixture: which levels are replayed.
        capacity: K, rows; those beyond M are for proposals.
        num_edits: if above 0, proposals are edits of levels just replayed, and there is no source.
        parents: of these edits, as for `PLR`: `batch`, or the `num_parents` that are `easiest`.
        num_parents: of `easiest`.
        admit: `solved` proposals alone, or `any`, an unsolved one having the score 0.
        train_in_warmup: whether levels of the set that are met for the first time are learned from;
            not as published.
        train_on_new: whether proposals are learned from; not as published.
        single_chance: whether the first place in a slot's queue alone decides about a proposal, as
            published, rather than all episodes played on it.
        sequential: whether draws and insertions are made one after the other, as published.

    Raises:
        ValueError: fields out of range or at odds, or a capacity below M.
    """

    env: LevelEnv
    data: Fixed
    score: Score = field(metadata={"config": False})  # the curriculum's own; has its paths there
    source: Sampler | tuple[()] = ()
    mixture: Mixture = field(default_factory=Mixture)
    capacity: int = 4000
    num_edits: int = 0
    parents: Literal["batch", "easiest"] = "batch"
    num_parents: int = 4
    admit: Literal["solved", "any"] = "solved"
    train_in_warmup: bool = True
    train_on_new: bool = False
    single_chance: bool = False
    sequential: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def level_set(self) -> LevelSet:
        """The finite set."""
        return self.data.level_set

    @property
    def has_proposals(self) -> bool:
        """Whether there is anything beside the set."""
        return self.num_edits > 0 or not isinstance(self.source, tuple)

    @property
    def preparation(self) -> str:
        """What the source does at first."""
        return getattr(self._source, "preparation", "")

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from, in the long run."""
        del num_levels
        return 0.5 if self.has_proposals and not self.train_on_new else 1.0

    def check(self, num_levels: int) -> None:
        """Refuse what the source refuses."""
        check = getattr(self.source, "check", None)
        if check is not None:
            check(num_levels)

    def init(self, key: Key) -> DREDState:
        """The set in the first rows, nothing known of it."""
        unseen = first_known(self.score, self.note().lineage)
        zero, chosen = jnp.zeros((), jnp.int32), self.level_set
        empty = make_buffer(self.capacity, self.blank(), unseen)
        rows = jnp.arange(self.capacity) < len(chosen)
        buffer = empty._replace(
            level=jax.tree.map(lambda x, y: x.at[: len(chosen)].set(y), empty.level, chosen.level),
            hash=empty.hash.at[: len(chosen)].set(chosen.hash),
            score=jnp.where(rows, 0.0, empty.score),  # to be drawn before anything is known of it
            size=zero + len(chosen),
        )
        none = jnp.full(self.num_parents, -1, jnp.int32)
        source = self._source.init(key)
        return DREDState(source, buffer, zero, zero, jnp.zeros((), bool), none, jnp.zeros(()))

    def blank(self) -> PyTree:
        """The first level of the set."""
        return self.data.blank()

    def note(self) -> Note:
        """Of a level without a past."""
        return first_note(self._source)

    def propose(
        self, keys: Keys, state: DREDState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[DREDState, Slots]:
        """Levels of the buffer for all free slots, or levels to look at."""
        looks = free & same_for_all_seeds(state.looks_next)
        warms = same_for_all_seeds(state.num_met) < len(self.level_set)
        before, replay = slots, free & ~looks
        source, slots = self._look(keys, state, slots, looks)
        weight = jnp.where(warms, float(self.train_in_warmup), 1.0)

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _DRAW)
            return jnp.where(
                warms, self._unmet(state, slots, free), self._draw(key, state, before, slots, free)
            )

        slots = recall(state.buffer, choose, slots, replay, weight)
        num_met = jnp.minimum(state.num_met + replay.sum(), len(self.level_set))
        # Looking begins with the update after the first replay that follows the warm-up.
        next_looks = replay.any() & ~warms & self.has_proposals
        looks_next = jnp.where(free.any(), next_looks, state.looks_next)
        return state._replace(source=source, num_met=num_met, looks_next=looks_next), slots

    def observe(
        self,
        keys: Keys,
        state: DREDState,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> DREDState:
        """Update the replayed rows, offer what was looked at to the buffer.

        Raises:
            ValueError: the student does not report its episodes.
        """
        if not isinstance(outcome.episodes, Episodes):
            raise ValueError("DRED needs a student that reports its episodes")
        source = tell_source(self._source, keys, state.source, slots, score, outcome)
        easiest = state.easiest
        if self.parents == "easiest":
            easiest = easiest_rows(slots, score, outcome, self.num_parents)
        buffer = take_back(state.buffer, slots, score, outcome)
        trial = judge(slots, score, outcome, self.single_chance)
        buffer = self._take_in(state, buffer, slots, trial, outcome.done)
        state = state._replace(source=source, buffer=buffer, easiest=easiest)
        return state._replace(num_updates=state.num_updates + 1, shift_gap=self._shift_gap(state))

    def replay_probability(self, state: DREDState) -> Float[Array, " K"]:
        """P of each row, now."""
        return self._now(state, state.buffer)(state.buffer, observed(state.buffer))

    def metrics(self, state: DREDState) -> Metrics:
        """How far sampling is from uniform on the set, and what that does to the return.

        `shift_gap` is the mean return under P less that over the set, of the returns that were last
        seen on each level.
        """
        probability = self.replay_probability(state)
        num_data = len(self.level_set)
        told = {
            "shift_gap": state.shift_gap,
            "generated_share": probability[num_data:].sum(),
            "generated_levels": state.buffer.size - num_data,
            "effective_levels": 1.0 / jnp.maximum((probability**2).sum(), 1e-9),
        }
        return source_metrics(self._source, state.source) | told

    def lineage(self, state: DREDState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Updates since each level was first met, and edits between it and the set."""
        return lineage_of(slots, state.num_updates) | {"depth": slots.note.lineage.depth}

    @property
    def _source(self) -> Sampler:
        """Where proposals come from; the set, which is never asked, if there are none."""
        return self.data if isinstance(self.source, tuple) else self.source

    def _now(self, state: DREDState, buffer: LevelBuffer) -> MixtureNow:
        return self.mixture.at(state.num_updates, self._is_data(), buffer.memory.solved)

    def _is_data(self) -> Bool[Array, " K"]:
        return jnp.arange(self.capacity) < len(self.level_set)

    def _unmet(self, state: DREDState, slots: Slots, free: Bool[Array, " N"]) -> Int[Array, "N R"]:
        """The next levels of the set, in a random order that is always the same, one a slot."""
        num_data = len(self.level_set)
        order = jnp.asarray(np.random.default_rng(0).permutation(num_data), jnp.int32)
        row = order[(state.num_met + jnp.cumsum(free) - 1) % num_data]
        return jnp.broadcast_to(row[:, None], slots.row.shape)

    def _draw(
        self, key: Key, state: DREDState, before: Slots, slots: Slots, free: Bool[Array, " N"]
    ) -> Int[Array, "N R"]:
        rows = observed(state.buffer) & ~_held(before, ~free, self.capacity)
        used = jnp.repeat(free, slots.row.shape[1])
        now = self._now(state, state.buffer)
        # The stamps of the draws are dropped: rows are stamped when they are played.
        return draw(key, state.buffer, now, rows, used, self.sequential)[1].reshape(slots.row.shape)

    def _look(
        self, keys: Keys, state: DREDState, slots: Slots, looks: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """One proposal for each slot that `looks`, in all places of its queue."""
        if not self.has_proposals:
            return state.source, slots
        narrow = jax.tree.map(lambda x: x[:, :1], (slots.level, slots.memory, slots.row))
        note = jax.tree.map(lambda x: x[:, :1], slots.note)
        one = slots._replace(level=narrow[0], memory=narrow[1], row=narrow[2], note=note)
        now = state.num_updates
        if self.num_edits > 0:
            key = jax.random.fold_in(keys.own, _EDIT)
            parents = self._parents(state, one)
            source = state.source
            new = edit_into(key, self.env, parents, self.num_edits, one, looks, now)
        else:
            weight = jnp.float32(self.train_on_new)
            source, new = generate(self._source, keys, state.source, one, looks, weight, now)
        wide = jax.tree.map(
            lambda x, y: jnp.broadcast_to(x, y.shape),
            (new.level, new.memory, new.row, new.note),
            (slots.level, slots.memory, slots.row, slots.note),
        )
        new = Slots(wide[0], wide[1], wide[2], new.origin, new.weight, wide[3])
        return source, where(looks, new, slots)

    def _parents(
        self, state: DREDState, one: Slots
    ) -> Callable[[], tuple[PyTree, Int[Array, "N 1"]]]:
        """Of edits: what each slot has just replayed, or the easiest of all that."""
        if self.parents == "batch":
            return lambda: (one.level, one.note.lineage.depth)

        def easiest() -> tuple[PyTree, Int[Array, "N 1"]]:
            num_known = jnp.maximum((state.easiest >= 0).sum(), 1)
            row = jnp.maximum(state.easiest[jnp.arange(one.row.size) % num_known], 0)[:, None]
            held = state.buffer.level, state.buffer.memory.lineage.depth
            return jax.tree.map(lambda x: x[row], held)

        return easiest

    def _take_in(
        self,
        state: DREDState,
        buffer: LevelBuffer,
        slots: Slots,
        trial: Trial,
        done: Bool[Array, " N"],
    ) -> LevelBuffer:
        """Offer the proposals that were played; a branch, as most updates have none."""
        if not self.has_proposals:
            return buffer
        offered = done & (slots.origin != REPLAY)
        grounded = jnp.where(trial.solved, trial.score, 0.0)
        worth = jnp.where(jnp.isfinite(trial.score), grounded, -jnp.inf)
        if self.admit == "solved":
            worth = jnp.where(worth > 0, worth, -jnp.inf)

        def take_in() -> LevelBuffer:
            level = jax.tree.map(lambda x: x[:, 0], slots.level)
            hashes = jax.vmap(lambda one: hash_of(self.env, one))(level)
            lineage = jax.tree.map(lambda x: x[:, 0], slots.note.lineage)
            known = Known(trial.memory, lineage, trial.solved, trial.mean_return)
            return insert(
                buffer,
                Arrivals(level, known, worth, hashes, offered),
                self._now(state, buffer),
                protected=self._is_data() | _held(slots, ~done, self.capacity),
                sequential=self.sequential,
            )

        return jax.lax.cond(any_seed(offered.any()), take_in, lambda: buffer)

    def _shift_gap(self, state: DREDState) -> Float[Array, ""]:
        seen = state.buffer.memory.mean_return
        data, known = self._is_data(), jnp.isfinite(seen)
        probability = jnp.where(known, self.replay_probability(state), 0.0)
        mean = jnp.where(data & known, seen, 0.0).sum() / jnp.maximum((data & known).sum(), 1)
        drawn = (probability * jnp.where(known, seen, 0.0)).sum()
        return drawn / jnp.maximum(probability.sum(), 1e-9) - mean


def _held(slots: Slots, busy: Bool[Array, " N"], capacity: int) -> Bool[Array, " K"]:
    """Rows whose levels busy slots are working on."""
    row = jnp.where(busy[:, None] & (slots.row >= 0), slots.row, capacity)
    return jnp.zeros(capacity, bool).at[row].set(True, mode="drop")


def build(env: LevelEnv, score: Score, **fields: Any) -> DRED:
    """A finite set of sampled levels, with random ones as proposals."""
    return DRED(env, Fixed(env), score, Random(env), **fields)


def tiny(env: LevelEnv) -> DRED:
    """The smallest instance, for tests of laws."""
    return DRED(env, Fixed(env, num_levels=6), L1ValueLoss(), Random(env), capacity=16)
