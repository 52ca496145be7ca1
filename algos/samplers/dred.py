"""DRED: replay of a finite set of levels, and by degrees of generated ones that were worth keeping.

An update that trains draws levels from a mixture over the set and the buffer; the next one only
looks at new levels, which enter the buffer if the agent has solved them. Without new levels it is
prioritised replay of the set.

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
"""Folded into keys that the source gets as they are."""


class Known(NamedTuple):
    """What the buffer keeps of each level beside its score; [K, ...] there."""

    score_state: PyTree  # the score's
    lineage: Lineage
    solved: Bool[Array, "*K"]  # at least once
    mean_return: Float[Array, "*K"]  # when it was last played to an end; -inf: never


class Trial(NamedTuple):
    """What came of the proposal in each slot, over all places of its queue."""

    score: Float[Array, " N"]
    solved: Bool[Array, " N"]
    mean_return: Float[Array, " N"]  # -inf if no episode was completed
    score_state: PyTree  # [N, ...]


class DREDState(NamedTuple):
    """What is known of the set and of the levels added to it, and the source's own state."""

    source: PyTree
    buffer: LevelBuffer  # the set in its first rows, for ever
    num_met: Int[Array, ""]  # levels of the set handed out for the first time; equal for all seeds
    num_updates: Int[Array, ""]
    explore_next: Bool[Array, ""]  # the last update replayed; equal for all seeds
    easiest: Int[Array, " P"]  # rows of the easiest levels of the last replay; -1 for none
    shift_gap: Float[Array, ""]  # as of the last update


@dataclass(frozen=True)
class Mixture:
    """P = (1 − ρ) [(1 − η) P_S + η P_S'] + ρ P_R, of which P_S and P_R know the data alone.

    P_S and P_S' are by rank: of the score among the levels of the set, and of the score, 0 where a
    level was never solved, among all. P_R is by staleness. η grows linearly over the run.

    Attributes:
        temperature: β of P_S; at 0.1 its best level has 0.999 of it.
        secondary_temperature: β of P_S'.
        staleness_coef: ρ.
        share_start: η in the first update.
        share_end: η in the last update.
        num_updates: over which η goes from the one to the other; the length of the run, unless set.
        stale: whether P_R is over the `data` or over `all` levels.

    Raises:
        ValueError: a field outside its range.
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
                    f"{name} must be positive, got {getattr(self, name)}; for the greediest "
                    "choice use a small one, such as 0.05"
                )
        check_numbers(self, "staleness_coef", "share_start", "share_end", least=0, most=1)
        if self.num_updates < 1:
            raise ValueError(f"num_updates must be at least 1, got {self.num_updates}")
        if self.stale not in ("data", "all"):
            raise ValueError(f"stale must be 'data' or 'all', got {self.stale!r}")

    def share(self, num_updates: Int[Array, ""]) -> Float[Array, ""]:
        """η, that many updates being done."""
        done = jnp.clip(num_updates / self.num_updates, 0.0, 1.0)
        return self.share_start + (self.share_end - self.share_start) * done

    def at(
        self, num_updates: Int[Array, ""], data: Bool[Array, " K"], solved: Bool[Array, " K"]
    ) -> "MixtureNow":
        """The distribution at some point of the run, of which row is of the set, which solved."""
        return MixtureNow(self, self.share(num_updates), data, solved)


class MixtureNow(NamedTuple):
    """P at one moment, of a buffer whose scores are the primary ones (`rlgen.buffer.Weighting`)."""

    mixture: Mixture
    share: Float[Array, ""]
    data: Bool[Array, " K"]
    solved: Bool[Array, " K"]

    def __call__(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """P, 0 outside `rows`."""
        return self.with_staleness(self.by_score(buffer, rows), buffer, rows)

    def by_score(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """(1 − η) P_S + η P_S'."""
        own = self.mixture
        primary = rank_weights(buffer.score, rows & self.data, own.temperature)
        grounded = jnp.where(self.solved, buffer.score, 0.0)
        secondary = rank_weights(grounded, rows, own.secondary_temperature)
        return (1 - self.share) * primary + self.share * secondary

    def with_staleness(
        self, by_score: Float[Array, " K"], buffer: LevelBuffer, rows: Bool[Array, " K"]
    ) -> Float[Array, " K"]:
        """P, of what `by_score` gave and the staleness of the moment."""
        own = self.mixture
        stale = staleness_weights(buffer, rows & self.data if own.stale == "data" else rows)
        return (1 - own.staleness_coef) * by_score + own.staleness_coef * stale


@dataclass(frozen=True)
class DRED(BufferedSampler):
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
        mixture: which levels are replayed.
        capacity: K, rows; those beyond M are for proposals.
        mutator: if it edits, proposals are mutants of levels just replayed, and there is no source.
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
        """Refuse fields of a `DRED` that are out of range or at odds.

        Raises:
            ValueError: with what is allowed instead.
        """
        num_data = len(self.data.level_set)
        needed = num_data + self.has_proposals
        if self.capacity < needed:
            raise ValueError(
                f"capacity={self.capacity} is below the {num_data} levels of the set"
                f"{' and a row for proposals' if self.has_proposals else ''}; set it to at least "
                f"{needed}"
            )
        if self._edits:
            require(
                self.env, LevelEnv.mutate_levels, "a curriculum that edits levels (num_edits > 0)"
            )
            if not isinstance(self.source, tuple):
                raise ValueError(
                    f"mutator.num_edits={self.mutator.num_edits} makes proposals by edits, and a "
                    "source is given too; set num_edits to 0 or source to ()"
                )
        if self.admit not in ("solved", "any"):
            raise ValueError(f"admit must be 'solved' or 'any', got {self.admit!r}")

    @property
    def reads(self) -> frozenset[str]:
        """Episodes, to tell which levels were solved, and what the source reads."""
        return super().reads | {"episodes"}

    @property
    def level_set(self) -> LevelSet:
        """The finite set."""
        return self.data.level_set

    @property
    def is_set_sampled(self) -> bool:
        """Whether the environment drew it."""
        return self.data.is_set_sampled

    @property
    def _edits(self) -> bool:
        return self.mutator.num_edits > 0

    @property
    def has_proposals(self) -> bool:
        """Whether there is anything beside the set."""
        return self._edits or not isinstance(self.source, tuple)

    @property
    def preparation(self) -> str:
        """What the source does at first."""
        return self._source.preparation

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from, in the long run."""
        del num_levels
        return 0.5 if self.has_proposals and not self.train_on_new else 1.0

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse what the source refuses; a buffer of fewer rows than levels will do."""
        self._source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "DRED":
        """The same, with the schedules of the mixture and of the source."""
        mixture = replace(self.mixture, num_updates=num_updates)
        if isinstance(self.source, tuple):
            return replace(self, mixture=mixture)
        return replace(self, mixture=mixture, source=self.source.spanning(num_updates))

    def init(self, key: Key, memory: PyTree) -> DREDState:
        """The set in the first rows, nothing known of it."""
        unseen = first_known(memory, self.level_info().lineage)
        zero, chosen = jnp.zeros((), jnp.int32), self.level_set
        empty = make_buffer(self.capacity, self.example_level(), unseen)
        rows = jnp.arange(self.capacity) < len(chosen)
        buffer = empty._replace(
            level=jax.tree.map(lambda x, y: x.at[: len(chosen)].set(y), empty.level, chosen.level),
            hash=empty.hash.at[: len(chosen)].set(chosen.hash),
            score=jnp.where(rows, 0.0, empty.score),  # to be drawn before anything is known of it
            size=zero + len(chosen),
        )
        none = self.mutator.none_easiest()
        source = self._source.init(key, memory)
        return DREDState(source, buffer, zero, zero, jnp.zeros((), bool), none, jnp.zeros(()))

    def example_level(self) -> PyTree:
        """The first level of the set."""
        return self.data.example_level()

    def propose(
        self, keys: Keys, state: DREDState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[DREDState, Slots]:
        """Levels of the buffer for all free slots, or levels to look at."""
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
        # Looking begins with the update after the first replay that follows the warm-up.
        explore_next = replay.any() & ~warms & self.has_proposals
        explore_next = jnp.where(free.any(), explore_next, state.explore_next)
        return state._replace(source=source, num_met=num_met, explore_next=explore_next), slots

    def take_in(
        self, state: DREDState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> DREDState:
        """Update the replayed rows, offer what was looked at to the buffer."""
        easiest = state.easiest
        if self.mutator.reads:
            easiest = easiest_rows(slots, score, outcome, self.mutator.num_parents)
        buffer = take_back(state.buffer, slots, score, outcome)
        trial = judge(slots, score, outcome, self.single_chance)
        buffer = self._admit(state, buffer, slots, trial, outcome.done)
        state = state._replace(buffer=buffer, easiest=easiest)
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
        return super().metrics(state) | told

    def lineage(self, state: DREDState, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Updates since each level was first met, and edits between it and the set."""
        return super().lineage(state, slots) | {"depth": slots.level_info.lineage.depth}

    @property
    def _source(self) -> Sampler:
        """Where proposals come from; the set, which is never asked, if there are none."""
        return self.data if isinstance(self.source, tuple) else self.source

    def _now(self, state: DREDState, buffer: LevelBuffer) -> MixtureNow:
        return self.mixture.at(state.num_updates, self._is_data(), buffer.level_info.solved)

    def _is_data(self) -> Bool[Array, " K"]:
        return jnp.arange(self.capacity) < len(self.level_set)

    def _unmet(self, state: DREDState, slots: Slots, free: Bool[Array, " N"]) -> Int[Array, "N R"]:
        """The next levels of the set, in a random order that is always the same, one a slot."""
        num_data = len(self.level_set)
        order = jnp.asarray(np.random.default_rng(0).permutation(num_data), jnp.int32)
        row = order[(state.num_met + jnp.cumsum(free) - 1) % num_data]
        return jnp.broadcast_to(row[:, None], slots.buffer_index.shape)

    def _draw(
        self, key: Key, state: DREDState, before: Slots, slots: Slots, free: Bool[Array, " N"]
    ) -> Int[Array, "N R"]:
        rows = observed(state.buffer) & ~held_rows(before, ~free, self.capacity)
        used = jnp.repeat(free, slots.buffer_index.shape[1])
        now = self._now(state, state.buffer)
        # The stamps of the draws are dropped: rows are stamped when they are played.
        return draw(key, state.buffer, now, rows, used, self.sequential)[1].reshape(
            slots.buffer_index.shape
        )

    def _propose_new(
        self, keys: Keys, state: DREDState, slots: Slots, explores: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """One proposal for each slot that `explores`, in all places of its queue."""
        if not self.has_proposals:
            return state.source, slots
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
        """Of edits: what each slot has just replayed, or the easiest of all that."""
        if self.mutator.parents == "batch":
            return lambda: (one.level, one.level_info.lineage.depth)

        def easiest() -> tuple[PyTree, Int[Array, "N 1"]]:
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
        """Offer the proposals that were played; a branch, as most updates have none."""
        if not self.has_proposals:
            return buffer
        offered = done & (slots.origin != REPLAY)
        grounded = jnp.where(trial.solved, trial.score, 0.0)
        worth = jnp.where(jnp.isfinite(trial.score), grounded, -jnp.inf)
        if self.admit == "solved":
            worth = jnp.where(worth > 0, worth, -jnp.inf)

        def admit() -> LevelBuffer:
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
        seen = state.buffer.level_info.mean_return
        data, known = self._is_data(), jnp.isfinite(seen)
        probability = jnp.where(known, self.replay_probability(state), 0.0)
        mean = jnp.where(data & known, seen, 0.0).sum() / jnp.maximum((data & known).sum(), 1)
        drawn = (probability * jnp.where(known, seen, 0.0)).sum()
        return drawn / jnp.maximum(probability.sum(), 1e-9) - mean


def first_known(memory: PyTree, lineage: Lineage) -> Known:
    """Of a level that was never played."""
    return Known(memory, lineage, jnp.zeros((), bool), jnp.full((), -jnp.inf))


def take_back(
    buffer: LevelBuffer, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
) -> LevelBuffer:
    """The buffer once it has taken in what came of the levels that it had given away.

    Rows are stamped if they were played. If a row was in several places, the last of those with a
    score counts, and it is solved if it was in any.
    """
    stats = outcome.episodes
    assert isinstance(stats, EpisodeStats)
    given = (outcome.done & (slots.origin == REPLAY))[:, None] & (slots.buffer_index >= 0)
    row = jnp.where(given, slots.buffer_index, buffer.score.size)  # out of bounds is dropped
    safe = jnp.where(given, slots.buffer_index, 0)
    held = jax.tree.map(lambda x: x[safe], buffer.level_info)
    solved = given & (stats.num_success > 0)
    mean = jnp.where(stats.num > 0, stats.mean_return, held.mean_return)
    known = Known(slots.score_state, slots.level_info.lineage, held.solved | solved, mean)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), known)
    buffer = update(buffer, slots.buffer_index.ravel(), score.ravel(), flat, given.ravel())
    played = given & _played(outcome, slots.buffer_index.shape)
    stamp = buffer.clock + jnp.cumsum(played.ravel()).reshape(played.shape)
    at = jnp.where(played, row, buffer.score.size)
    level_info = buffer.level_info._replace(
        solved=buffer.level_info.solved.at[row].max(solved, mode="drop")
    )
    return buffer._replace(
        level_info=level_info,
        timestamp=buffer.timestamp.at[at].max(stamp, mode="drop"),
        clock=buffer.clock + played.sum(),
    )


def judge(slots: Slots, score: Float[Array, "N R"], outcome: Outcome, single_chance: bool) -> Trial:
    """What came of the proposals, of which every slot has one in all its places.

    Scores and returns are means over the places that have any. The memory is that of the place with
    the best episode.

    Args:
        slots: as played.
        score: of each place.
        outcome: with episodes.
        single_chance: judge by the first place alone.
    """
    stats = outcome.episodes
    assert isinstance(stats, EpisodeStats)
    if single_chance:
        score, stats = jax.tree.map(lambda x: x[:, :1], (score, stats))
    scored = jnp.isfinite(score)
    mean = jnp.where(scored, score, 0.0).sum(1) / jnp.maximum(scored.sum(1), 1)
    num = stats.num.sum(1)
    mean_return = (stats.mean_return * stats.num).sum(1) / jnp.maximum(num, 1)
    best = stats.max_return.argmax(1)
    return Trial(
        score=jnp.where(scored.any(1), mean, -jnp.inf),
        solved=(stats.num_success > 0).any(1),
        mean_return=jnp.where(num > 0, mean_return, -jnp.inf),
        score_state=jax.tree.map(lambda x: x[jnp.arange(best.size), best], slots.score_state),
    )


def _played(outcome: Outcome, shape: tuple[int, ...]) -> Bool[Array, "N R"]:
    """Which places were reached within the update."""
    if not outcome.rollout:
        return jnp.ones(shape, bool)
    turn = outcome.rollout.level_index[0]
    here: Int[Array, "N R"] = jnp.broadcast_to(jnp.arange(shape[1])[None], shape)
    return (turn[:, :, None] == here[None]).any(0)


def build(env: LevelEnv, **fields: Any) -> DRED:
    """A finite set of sampled levels; proposals only if a `source` or a `mutator` is given."""
    return DRED(env, Fixed(env), **fields)


def tiny(env: LevelEnv) -> DRED:
    """The smallest instance, for tests of laws."""
    return DRED(env, Fixed(env, num_levels=6), Fixed(env, num_levels=9, seed=1), capacity=16)
