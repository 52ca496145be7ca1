"""DRED: replays a finite set of levels and, increasingly, generated levels that the agent solved.

The first rows of a level buffer contain the finite set. The other rows are for new levels, which a
generative model or random edits propose. Updates that train the agent on levels of the buffer
alternate with updates that only evaluate proposals. If the agent solves a proposal, the proposal is
inserted into the buffer. Without proposals, the method is prioritised level replay of the set.
Slots, queues and weights are explained in `rlgen.algos.samplers`.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.replay.pool import (
    BufferedSampler,
    Lineage,
    Mutator,
    easiest_rows,
    edit_into,
    generate,
    held_rows,
    recall,
)
from rlgen.buffer import (
    Arrivals,
    LevelBuffer,
    draw,
    insert,
    make_buffer,
    observed,
    rank_weights,
    staleness_weights,
    update,
)
from rlgen.levels import LevelSet
from rlgen.parallel.seeds import any_over_seeds, same_for_all_seeds, tree_where
from rlgen.protocols import LevelEnv, Sampler, Score, check_numbers
from rlgen.registry import require
from rlgen.types import REPLAY, EpisodeStats, Key, Keys, Metrics, Outcome, PyTree, Slots

_DRAW, _EDIT = 0x44524400, 0x44524401
"""Constants that are folded into `keys` for DRED's own draws. The source of proposals receives
`keys` unchanged."""


class Known(NamedTuple):
    """Record that the buffer keeps of each level, in addition to the score.

    In the buffer, each field is [K].
    """

    score_state: PyTree  # the score's memory of the level
    lineage: Lineage
    solved: Bool[Array, "*K"]  # True if the agent solved the level at least once
    # Mean return in the last update in which an episode was completed on the level. The value is
    # -inf if no episode was ever completed on the level.
    mean_return: Float[Array, "*K"]


class Trial(NamedTuple):
    """Results of the proposals; each slot played one proposal at all positions of its queue."""

    score: Float[Array, " N"]
    solved: Bool[Array, " N"]
    mean_return: Float[Array, " N"]  # -inf if no episode was completed
    score_state: PyTree  # [N, ...]


class DREDState(NamedTuple):
    """The buffer with the set and the levels added to it, counters, and the source's state."""

    source: PyTree
    buffer: LevelBuffer  # its first M rows always hold the set
    num_met: Int[Array, ""]  # number of levels of the set assigned so far; equal for all seeds
    num_updates: Int[Array, ""]
    explore_next: Bool[Array, ""]  # True if proposals are evaluated next; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the P easiest levels of the last replay, padded with -1
    shift_gap: Float[Array, ""]  # see `DRED.metrics`; after the last update


@dataclass(frozen=True)
class Mixture:
    """Replay distribution P = (1 − ρ) [(1 − η) P_S + η P_S'] + ρ P_R.

    P_S gives each level of the set a probability that depends on the rank of its score in the set.
    P_S' gives each level of the buffer a probability that depends on the rank of its score in the
    buffer, where the score of a level that was never solved counts as 0. P_R is proportional to
    staleness, which grows while a level is not played. By default, P_R is 0 outside the set. η
    changes linearly over the run.

    Attributes:
        temperature: Temperature β of P_S. At 0.1, P_S of the level with the highest score is 0.999.
        secondary_temperature: Temperature β of P_S'.
        staleness_coef: Weight ρ of the staleness term P_R.
        share_start: Weight η of P_S' in the first update.
        share_end: Weight η of P_S' in the last update.
        num_updates: Number of updates over which η changes; set to the length of the run when
            training starts.
        stale: Levels that P_R covers: `data` for the levels of the set, or `all`.

    Raises:
        ValueError: If a field is outside its range.
    """

    temperature: float = 0.1
    secondary_temperature: float = 1.0
    staleness_coef: float = 0.3
    share_start: float = 0.0
    share_end: float = 1.0
    num_updates: int = 1000
    stale: Literal["data", "all"] = "data"

    def __post_init__(self):
        for name in ("temperature", "secondary_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be positive, got {getattr(self, name)}; for a nearly greedy "
                    "choice use a small value, such as 0.05"
                )
        check_numbers(self, "staleness_coef", "share_start", "share_end", least=0, most=1)
        if self.num_updates < 1:
            raise ValueError(f"num_updates must be at least 1, got {self.num_updates}")
        if self.stale not in ("data", "all"):
            raise ValueError(f"stale must be 'data' or 'all', got {self.stale!r}")

    def share(self, num_updates: Int[Array, ""]) -> Float[Array, ""]:
        """Return η after a number of updates."""
        done = jnp.clip(num_updates / self.num_updates, 0.0, 1.0)
        return self.share_start + (self.share_end - self.share_start) * done

    def at(
        self, num_updates: Int[Array, ""], data: Bool[Array, " K"], solved: Bool[Array, " K"]
    ) -> "MixtureNow":
        """Return the distribution after a number of updates.

        Args:
            num_updates: Number of updates done.
            data: Mask of the rows that belong to the set.
            solved: Mask of the rows whose level was solved at least once.
        """
        return MixtureNow(self, self.share(num_updates), data, solved)


class MixtureNow(NamedTuple):
    """The replay distribution P of one update, as a `rlgen.buffer.Weighting`; see `Mixture`.

    P_S uses the scores in the buffer. P_S' uses 0 in place of the score of an unsolved level.
    """

    mixture: Mixture
    share: Float[Array, ""]  # η
    data: Bool[Array, " K"]  # rows of the set
    solved: Bool[Array, " K"]  # rows solved at least once

    def __call__(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return P, which is 0 outside `rows`."""
        return self.with_staleness(self.by_score(buffer, rows), buffer, rows)

    def by_score(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """Return (1 − η) P_S + η P_S'."""
        own = self.mixture
        primary = rank_weights(buffer.score, rows & self.data, own.temperature)
        grounded = jnp.where(self.solved, buffer.score, 0.0)
        secondary = rank_weights(grounded, rows, own.secondary_temperature)
        return (1 - self.share) * primary + self.share * secondary

    def with_staleness(
        self, by_score: Float[Array, " K"], buffer: LevelBuffer, rows: Bool[Array, " K"]
    ) -> Float[Array, " K"]:
        """Return P, given the result of `by_score` and the current staleness in the buffer."""
        own = self.mixture
        stale = staleness_weights(buffer, rows & self.data if own.stale == "data" else rows)
        return (1 - own.staleness_coef) * by_score + own.staleness_coef * stale


@dataclass(frozen=True)
class DRED(BufferedSampler):
    """Keeps a finite set in the first rows of a buffer and the best proposals in the other rows.

    In the warm-up, every level of the set is played once. After the warm-up, two kinds of update
    alternate. A replay update draws levels from the buffer and trains the student on these levels.
    An evaluation update plays proposed levels with weight 0, so that the student does not train.

    In an evaluation update, each slot plays one proposal at all positions of its queue. A proposal
    can be inserted into the buffer if it was solved at least once and its score is above 0. (The
    field `admit` can lift this condition.) As long as the buffer has empty rows, the proposal is
    inserted into an empty row. After that, the proposal is compared with the generated level that
    has the lowest replay probability. If the proposal has the higher score, it replaces this level.
    The rows of the set are never replaced.

    The staleness of a level is reset when the level is played, not when it is queued. By default
    all draws of one update use the staleness from before the update. With `sequential`, each draw
    uses the staleness after the previous draw.

    Attributes:
        env: Environment, which edits levels, and hashes levels to find equal ones.
        data: Finite training set of M levels.
        source: Sampler of proposals, or `()` if edits propose levels or no levels are proposed.
        mixture: Replay probability of each level.
        capacity: Number of rows of the level buffer, K; the rows after the first M are for
            proposals.
        mutator: Settings for edits. If `num_edits` is above 0, proposals are mutants of levels of
            the last replay, and `source` must be `()`.
        admit: Proposals that may be inserted. `solved` admits only solved proposals. `any` admits
            unsolved proposals too, with a score of 0.
        train_in_warmup: Train on the levels of the set in the warm-up; Garcin et al. do not.
        train_on_new: Train on proposals; Garcin et al. do not.
        single_chance: Evaluate a proposal only by the episodes at the first position of the slot's
            queue, as in the code of Garcin et al. By default, all episodes on the proposal count.
        sequential: Draw and insert levels one after the other, as in the code of Garcin et al.

    Raises:
        ValueError: If a field is out of range, if two fields are incompatible, or if the capacity
            is too small for the set and a proposal.
    """

    env: LevelEnv
    data: Fixed
    source: Sampler | tuple[()] = ()
    mixture: Mixture = field(default_factory=Mixture)
    capacity: int = 4000
    mutator: Mutator = field(default_factory=lambda: Mutator(num_edits=0))
    admit: Literal["solved", "any"] = "solved"
    train_in_warmup: bool = True
    train_on_new: bool = False
    single_chance: bool = False
    sequential: bool = False

    def __post_init__(self):
        self._check_fields()

    def _check_fields(self) -> None:
        """Check that the fields are in range and consistent.

        Raises:
            ValueError: If a field is out of range or inconsistent with another field.
        """
        num_data = len(self.data.level_set)
        needed = num_data + self.has_proposals
        if self.capacity < needed:
            raise ValueError(
                f"capacity={self.capacity} is below the {num_data} levels of the set"
                f"{' plus a row for proposals' if self.has_proposals else ''}; set it to at least "
                f"{needed}"
            )
        if self._edits:
            require(
                self.env, LevelEnv.mutate_levels, "a curriculum that edits levels (num_edits > 0)"
            )
            if not isinstance(self.source, tuple):
                raise ValueError(
                    f"mutator.num_edits={self.mutator.num_edits} creates proposals by edits, but a "
                    "source is also given; set num_edits to 0 or source to ()"
                )
        if self.admit not in ("solved", "any"):
            raise ValueError(f"admit must be 'solved' or 'any', got {self.admit!r}")

    @property
    def reads(self) -> frozenset[str]:
        """Fields of the outcome that are read: `episodes`, and the fields that the source reads."""
        return super().reads | {"episodes"}

    @property
    def level_set(self) -> LevelSet:
        """The finite training set."""
        return self.data.level_set

    @property
    def is_set_sampled(self) -> bool:
        """True if the set was sampled from the environment."""
        return self.data.is_set_sampled

    @property
    def _edits(self) -> bool:
        return self.mutator.num_edits > 0

    @property
    def has_proposals(self) -> bool:
        """True if new levels are proposed, by a source or by edits."""
        return self._edits or not isinstance(self.source, tuple)

    @property
    def preparation(self) -> str:
        """Short description of the work in the source's `init`."""
        return self._source.preparation

    def trained_updates(self, num_levels: int) -> float:
        """Long-run fraction of the updates that train the student."""
        del num_levels
        # Replay updates alternate with updates that evaluate proposals.
        return 0.5 if self.has_proposals and not self.train_on_new else 1.0

    def check(self, num_levels: int, score: Score) -> None:
        """Check the source.

        Unlike in the base class, the buffer may have fewer rows than an update has levels.
        """
        self._source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "DRED":
        """Return a copy whose mixture and source have schedules for `num_updates` updates."""
        mixture = replace(self.mixture, num_updates=num_updates)
        if isinstance(self.source, tuple):
            return replace(self, mixture=mixture)
        return replace(self, mixture=mixture, source=self.source.spanning(num_updates))

    def init(self, key: Key, memory: PyTree) -> DREDState:
        """Return a state whose buffer holds the set in its first rows, without results."""
        unseen = first_known(memory, self.level_info().lineage)
        zero, chosen = jnp.zeros((), jnp.int32), self.level_set
        empty = make_buffer(self.capacity, self.example_level(), unseen)
        rows = jnp.arange(self.capacity) < len(chosen)
        buffer = empty._replace(
            level=jax.tree.map(lambda x, y: x.at[: len(chosen)].set(y), empty.level, chosen.level),
            hash=empty.hash.at[: len(chosen)].set(chosen.hash),
            # Only rows with a finite score can be drawn; 0 makes the set available at once.
            score=jnp.where(rows, 0.0, empty.score),
            size=zero + len(chosen),
        )
        none = self.mutator.none_easiest()
        source = self._source.init(key, memory)
        return DREDState(source, buffer, zero, zero, jnp.zeros((), bool), none, jnp.zeros(()))

    def example_level(self) -> PyTree:
        """Return the first level of the set."""
        return self.data.example_level()

    def propose(
        self, keys: Keys, state: DREDState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[DREDState, Slots]:
        """Fill the free slots with levels of the buffer, or with proposals to evaluate."""
        # Marked as equal for all seeds, so that the branches stay branches under vmap over seeds.
        explores = free & same_for_all_seeds(state.explore_next)
        warms = same_for_all_seeds(state.num_met) < len(self.level_set)
        before, replay = slots, free & ~explores
        source, slots = self._propose_new(keys, state, slots, explores)
        weight = jnp.where(warms, float(self.train_in_warmup), 1.0)

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _DRAW)
            return jnp.where(
                warms, self._unmet(state, slots, free), self._draw(key, state, before, slots, free)
            )

        slots = recall(state.buffer, choose, slots, replay, weight)
        num_met = jnp.minimum(state.num_met + replay.sum(), len(self.level_set))
        # The first evaluation of proposals follows the first replay after the warm-up.
        explore_next = replay.any() & ~warms & self.has_proposals
        # An update without free slots does not count as one of the alternating updates.
        explore_next = jnp.where(free.any(), explore_next, state.explore_next)
        return state._replace(source=source, num_met=num_met, explore_next=explore_next), slots

    def take_in(
        self, state: DREDState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> DREDState:
        """Update the replayed rows and offer the evaluated proposals to the buffer."""
        easiest = state.easiest
        if self.mutator.reads:
            easiest = easiest_rows(slots, score, outcome, self.mutator.num_parents)
        buffer = take_back(state.buffer, slots, score, outcome)
        trial = judge(slots, score, outcome, self.single_chance)
        buffer = self._admit(state, buffer, slots, trial, outcome.done)
        state = state._replace(buffer=buffer, easiest=easiest)
        return state._replace(num_updates=state.num_updates + 1, shift_gap=self._shift_gap(state))

    def replay_probability(self, state: DREDState) -> Float[Array, " K"]:
        """Replay probability P of each row."""
        return self._now(state, state.buffer)(state.buffer, observed(state.buffer))

    def metrics(self, state: DREDState) -> Metrics:
        """Return measures of the shift from the set to the replay distribution P.

        `shift_gap` is the mean return under P minus the mean return over the set; both means use
        the last return recorded on each level. It is NaN until an episode on a level of the set was
        completed. `generated_share` is the probability of generated levels under P, and
        `generated_levels` is their number in the buffer. `effective_levels` is the effective number
        of levels under P, 1 / Σ P².
        """
        probability = self.replay_probability(state)
        num_data = len(self.level_set)
        told = {
            "shift_gap": state.shift_gap,
            "generated_share": probability[num_data:].sum(),
            "generated_levels": state.buffer.size - num_data,
            "effective_levels": 1.0 / jnp.maximum((probability**2).sum(), 1e-9),
        }
        return super().metrics(state) | told

    def lineage(self, state: DREDState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Age of each level in updates, and its depth, the number of generations of edits."""
        return super().lineage(state, slots) | {"depth": slots.level_info.lineage.depth}

    @property
    def _source(self) -> Sampler:
        """The sampler of proposals, or `data` if no source is given.

        `propose` of `data` is never called.
        """
        return self.data if isinstance(self.source, tuple) else self.source

    def _now(self, state: DREDState, buffer: LevelBuffer) -> MixtureNow:
        return self.mixture.at(state.num_updates, self._is_data(), buffer.level_info.solved)

    def _is_data(self) -> Bool[Array, " K"]:
        return jnp.arange(self.capacity) < len(self.level_set)

    def _unmet(self, state: DREDState, slots: Slots, free: Bool[Array, " N"]) -> Int[Array, "N R"]:
        """Return the next levels of the set for the warm-up, in a fixed random order."""
        num_data = len(self.level_set)
        # numpy draws the order at trace time, so that it is a constant of the program and equal for
        # all seeds. Each free slot gets one level, at all positions of the slot's queue.
        order = jnp.asarray(np.random.default_rng(0).permutation(num_data), jnp.int32)
        row = order[(state.num_met + jnp.cumsum(free) - 1) % num_data]
        return jnp.broadcast_to(row[:, None], slots.buffer_index.shape)

    def _draw(
        self, key: Key, state: DREDState, before: Slots, slots: Slots, free: Bool[Array, " N"]
    ) -> Int[Array, "N R"]:
        rows = observed(state.buffer) & ~held_rows(before, ~free, self.capacity)
        used = jnp.repeat(free, slots.buffer_index.shape[1])
        now = self._now(state, state.buffer)
        # The timestamps from `draw` are dropped, because `take_back` stamps the rows played.
        return draw(key, state.buffer, now, rows, used, self.sequential)[1].reshape(
            slots.buffer_index.shape
        )

    def _propose_new(
        self, keys: Keys, state: DREDState, slots: Slots, explores: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Fill the whole queue of each slot in the mask `explores` with copies of one proposal."""
        if not self.has_proposals:
            return state.source, slots
        # Slots with a queue of one level, [N, 1, ...], so that the source makes one proposal per
        # slot.
        narrow = jax.tree.map(
            lambda x: x[:, :1], (slots.level, slots.score_state, slots.buffer_index)
        )
        note = jax.tree.map(lambda x: x[:, :1], slots.level_info)
        one = slots._replace(
            level=narrow[0], score_state=narrow[1], buffer_index=narrow[2], level_info=note
        )
        now = state.num_updates
        if self._edits:
            key = jax.random.fold_in(keys.own, _EDIT)
            parents = self._parents(state, one)
            source = state.source
            new = edit_into(key, self.env, parents, self.mutator.num_edits, one, explores, now)
        else:
            weight = jnp.float32(self.train_on_new)
            source, new = generate(self._source, keys, state.source, one, explores, weight, now)
        # Repeat the proposal along the queue, [N, 1, ...] -> [N, R, ...].
        wide = jax.tree.map(
            lambda x, y: jnp.broadcast_to(x, y.shape),
            (new.level, new.score_state, new.buffer_index, new.level_info),
            (slots.level, slots.score_state, slots.buffer_index, slots.level_info),
        )
        new = Slots(wide[0], wide[1], wide[2], new.origin, new.weight, wide[3])
        return source, tree_where(explores, new, slots)

    def _parents(
        self, state: DREDState, one: Slots
    ) -> Callable[[], tuple[PyTree, Int[Array, "N 1"]]]:
        """Return a function for the parents: the last level of each slot, or the easiest levels."""
        if self.mutator.parents == "batch":
            return lambda: (one.level, one.level_info.lineage.depth)

        def easiest() -> tuple[PyTree, Int[Array, "N 1"]]:
            # The mutants cycle through the known easiest rows; the clip at 0 keeps the index valid
            # if no row is known.
            num_known = jnp.maximum((state.easiest >= 0).sum(), 1)
            row = jnp.maximum(state.easiest[jnp.arange(one.buffer_index.size) % num_known], 0)[
                :, None
            ]
            held = state.buffer.level, state.buffer.level_info.lineage.depth
            return jax.tree.map(lambda x: x[row], held)

        return easiest

    def _admit(
        self,
        state: DREDState,
        buffer: LevelBuffer,
        slots: Slots,
        trial: Trial,
        done: Bool[Array, " N"],
    ) -> LevelBuffer:
        """Offer the evaluated proposals to the buffer; a replay update offers none."""
        if not self.has_proposals:
            return buffer
        offered = done & (slots.origin != REPLAY)
        # Grounded score: 0 unless the proposal was solved. `insert` ignores levels with -inf.
        grounded = jnp.where(trial.solved, trial.score, 0.0)
        worth = jnp.where(jnp.isfinite(trial.score), grounded, -jnp.inf)
        if self.admit == "solved":
            worth = jnp.where(worth > 0, worth, -jnp.inf)

        def admit() -> LevelBuffer:
            # All positions of a slot's queue hold the same proposal: [N, R, ...] -> [N, ...].
            level = jax.tree.map(lambda x: x[:, 0], slots.level)
            hashes = jax.vmap(self.env.level_hash)(level)
            lineage = jax.tree.map(lambda x: x[:, 0], slots.level_info.lineage)
            known = Known(trial.score_state, lineage, trial.solved, trial.mean_return)
            return insert(
                buffer,
                Arrivals(level, known, worth, hashes, offered),
                self._now(state, buffer),
                protected=self._is_data() | held_rows(slots, ~done, self.capacity),
                sequential=self.sequential,
            )

        return jax.lax.cond(any_over_seeds(offered.any()), admit, lambda: buffer)

    def _shift_gap(self, state: DREDState) -> Float[Array, ""]:
        # Only levels with a completed episode count; P is renormalised over these levels.
        seen = state.buffer.level_info.mean_return
        data, known = self._is_data(), jnp.isfinite(seen)
        probability = jnp.where(known, self.replay_probability(state), 0.0)
        mean = seen.mean(where=data & known)  # NaN without a completed episode on the set
        drawn = (probability * jnp.where(known, seen, 0.0)).sum()
        return drawn / jnp.maximum(probability.sum(), 1e-9) - mean


def first_known(memory: PyTree, lineage: Lineage) -> Known:
    """Return the record of a level that was never played."""
    return Known(memory, lineage, jnp.zeros((), bool), jnp.full((), -jnp.inf))


def take_back(
    buffer: LevelBuffer, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
) -> LevelBuffer:
    """Update the buffer with the results of the replayed levels.

    If a row was played, its timestamp is updated. If a row was queued at several positions, its new
    score is that of the last position with a score. In this case, one position at which the level
    was solved suffices to mark the level as solved.
    """
    stats = outcome.episodes
    assert isinstance(stats, EpisodeStats)
    given = (outcome.done & (slots.origin == REPLAY))[:, None] & (slots.buffer_index >= 0)
    row = jnp.where(given, slots.buffer_index, buffer.score.size)  # out of bounds is dropped
    safe = jnp.where(given, slots.buffer_index, 0)  # for gathers, where -1 would wrap around
    held = jax.tree.map(lambda x: x[safe], buffer.level_info)
    solved = given & (stats.num_success > 0)
    mean = jnp.where(stats.num > 0, stats.mean_return, held.mean_return)
    known = Known(slots.score_state, slots.level_info.lineage, held.solved | solved, mean)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), known)
    buffer = update(buffer, slots.buffer_index.ravel(), score.ravel(), flat, given.ravel())
    played = given & _played(outcome, slots.buffer_index.shape)
    # Every queue position that was played advances the buffer's clock by one. If a row was played
    # more than once, `max` keeps the latest time.
    stamp = buffer.clock + jnp.cumsum(played.ravel()).reshape(played.shape)
    at = jnp.where(played, row, buffer.score.size)
    # `update` uses only one position per row and skips positions without a score. The `max` in the
    # next line is a logical or over all positions of a row.
    level_info = buffer.level_info._replace(
        solved=buffer.level_info.solved.at[row].max(solved, mode="drop")
    )
    return buffer._replace(
        level_info=level_info,
        timestamp=buffer.timestamp.at[at].max(stamp, mode="drop"),
        clock=buffer.clock + played.sum(),
    )


def judge(slots: Slots, score: Float[Array, "N R"], outcome: Outcome, single_chance: bool) -> Trial:
    """Evaluate the proposals; each slot played one proposal at all positions of its queue.

    The score of a proposal is the mean over the positions that have a score. The mean return is
    taken over all completed episodes. The score's memory is taken from the position with the
    highest episode return.

    Args:
        slots: Slots as played.
        score: Score of each queue position.
        outcome: Outcome with episodes.
        single_chance: Evaluate only the first position.
    """
    stats = outcome.episodes
    assert isinstance(stats, EpisodeStats)
    if single_chance:
        score, stats = jax.tree.map(lambda x: x[:, :1], (score, stats))
    scored = jnp.isfinite(score)
    mean = jnp.where(scored, score, 0.0).sum(1) / jnp.maximum(scored.sum(1), 1)
    num = stats.num.sum(1)
    # Mean over episodes: per-position means weighted by their number of episodes.
    total = jnp.where(stats.num > 0, stats.mean_return * stats.num, 0.0).sum(1)
    mean_return = total / jnp.maximum(num, 1)
    best = stats.max_return.argmax(1)
    return Trial(
        score=jnp.where(scored.any(1), mean, -jnp.inf),
        solved=(stats.num_success > 0).any(1),
        mean_return=jnp.where(num > 0, mean_return, -jnp.inf),
        score_state=jax.tree.map(lambda x: x[jnp.arange(best.size), best], slots.score_state),
    )


def _played(outcome: Outcome, shape: tuple[int, ...]) -> Bool[Array, "N R"]:
    """Return a mask of the queue positions that were reached within the update."""
    if not outcome.rollout:
        return jnp.ones(shape, bool)
    turn = outcome.rollout.level_index[0]  # [T, N], of member 0
    here: Int[Array, "N R"] = jnp.broadcast_to(jnp.arange(shape[1])[None], shape)
    return (turn[:, :, None] == here[None]).any(0)


def build(env: LevelEnv, **fields: Any) -> DRED:
    """Build DRED over sampled levels; pass a `source` or a `mutator` to add proposals."""
    return DRED(env, Fixed(env), **fields)


def tiny(env: LevelEnv) -> DRED:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return DRED(env, Fixed(env, num_levels=6), Fixed(env, num_levels=9, seed=1), capacity=16)
