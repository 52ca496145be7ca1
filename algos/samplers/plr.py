"""Prioritised level replay: new levels, or old ones from which there was most to learn.

Sources: Jiang et al., 2021, "Prioritized Level Replay"; Jiang et al., 2021, "Replay-Guided
Adversarial Environment Design", algorithm 1 (robust PLR: no training on new levels).
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.scores.max_mc import MaxMC
from rlgen.branching import any_seed, same_for_all_seeds, where
from rlgen.buffer import (
    Arrivals,
    LevelBuffer,
    Priority,
    PriorityKind,
    draw,
    insert,
    make_buffer,
    observed,
    update,
)
from rlgen.levels import hash_of
from rlgen.protocols import LevelEnv, Sampler, Score
from rlgen.types import NEW, REPLAY, Key, Keys, PyTree, Slots

from .random import Random

_OWN = 0x504C5200
"""Folded into keys that the source gets as they are: alone or under PLR, it draws the same."""


class PLRState(NamedTuple):
    """What has been seen, and the source's own state."""

    source: PyTree
    buffer: LevelBuffer
    num_new: Int[Array, ""]  # new levels asked for so far, up to the capacity; equal for all seeds


@dataclass(frozen=True)
class PLR:
    """Replays levels of a buffer with some probability; takes new ones from another sampler.

    Whether to replay is decided once an update, for all slots and all seeds, and only the work
    that was decided for is done. Replay begins once `min_fill · capacity` levels have been taken
    from the source. (JaxUED waits for that many *rows*, which a family of few distinct levels
    never fills, and which differ between seeds.) A seed whose buffer is still empty by then goes
    on with new levels. Rows held by busy slots are neither drawn nor replaced.

    Attributes:
        env: whose hash tells levels apart.
        source: where new levels come from; it sees only the slots that it filled.
        score: what judges the levels; its memory is kept with each of them.
        capacity: K, rows.
        replay_prob: share of updates that replay; 0 is the source alone.
        temperature: β of the priorities.
        staleness_coef: ρ of the priorities.
        min_fill: share of the capacity to be taken in before replay begins.
        priority: `rank` or `proportional`; see `rlgen.buffer.Priority`.
        train_on_new: whether new levels have weight 1; `False` is robust PLR.
        sequential: draw and insert levels one after the other, as published; see `rlgen.buffer`.
        deduplicate: whether equal levels share a row.

    Raises:
        ValueError: a field outside its range, or proportional priorities of a score that may be
            negative.
    """

    env: LevelEnv
    source: Sampler
    score: Score = field(metadata={"config": False})  # the curriculum's own; has its paths there
    capacity: int = 4000
    replay_prob: float = 0.8
    temperature: float = 0.3
    staleness_coef: float = 0.3
    min_fill: float = 0.5
    priority: PriorityKind = "rank"
    train_on_new: bool = True
    sequential: bool = False
    deduplicate: bool = True

    def __post_init__(self):
        if self.capacity < 1:
            raise ValueError(f"capacity must be at least 1, got {self.capacity}")
        for name in ("replay_prob", "min_fill"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        self._priority()
        if self.priority == "proportional" and getattr(self.score, "may_be_negative", False):
            raise ValueError(
                f"priority='proportional' needs scores of 0 or more, and those of "
                f"{type(self.score).__name__} may be negative; use priority='rank'"
            )

    def check(self, num_levels: int) -> None:
        """Refuse a buffer that cannot take the levels of one update.

        Raises:
            ValueError: fewer rows than levels.
        """
        if self.capacity < num_levels:
            raise ValueError(
                f"capacity={self.capacity} is below the {num_levels} levels of one update; "
                f"set it to at least {num_levels}, or lower num_slots or num_queued"
            )
        check = getattr(self.source, "check", None)
        if check is not None:
            check(num_levels)

    def init(self, key: Key) -> PLRState:
        """An empty buffer."""
        buffer = make_buffer(self.capacity, self.blank(), self.score.memory())
        return PLRState(self.source.init(key), buffer, jnp.zeros((), jnp.int32))

    def blank(self) -> PyTree:
        """The source's blank level."""
        return self.source.blank()

    def propose(
        self, keys: Keys, state: PLRState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PLRState, Slots]:
        """Replayed levels for all free slots, or new ones for all."""
        wants_replay = self._decide(keys.shared, state)
        rows = observed(state.buffer) & ~self._held(slots, ~free)
        replay = free & wants_replay & rows.any()
        taken_in = state.num_new + jnp.where(wants_replay, 0, free.sum() * slots.row.shape[1])
        source, slots = self._generate(keys, state.source, slots, free & ~replay)
        buffer, slots = self._recall(keys.own, state.buffer, rows, slots, replay)
        return PLRState(source, buffer, jnp.minimum(taken_in, self.capacity)), slots

    def observe(
        self,
        keys: Keys,
        state: PLRState,
        slots: Slots,
        score: Float[Array, "N R"],
        done: Bool[Array, " N"],
    ) -> PLRState:
        """Update the replayed rows, offer the other levels to the buffer."""
        source = self.source.observe(keys, state.source, slots, score, done & (slots.origin == NEW))
        level, memory = jax.tree.map(
            lambda x: x.reshape(-1, *x.shape[2:]), (slots.level, slots.memory)
        )
        row, score = slots.row.ravel(), score.ravel()
        finished = jnp.repeat(done, slots.row.shape[1])
        buffer = update(state.buffer, row, score, memory, finished)
        hashes = jax.vmap(lambda one: hash_of(self.env, one))(level)
        buffer = insert(
            buffer,
            Arrivals(level, memory, score, hashes, valid=finished & (row < 0)),
            self._priority(),
            protected=self._held(slots, ~done),
            sequential=self.sequential,
            deduplicate=self.deduplicate,
        )
        return PLRState(source, buffer, state.num_new)

    def _decide(self, key: Key, state: PLRState) -> Bool[Array, ""]:
        """Whether to replay if possible: one answer for all slots and seeds."""
        warm = same_for_all_seeds(state.num_new) >= self.min_fill * self.capacity
        return warm & jax.random.bernoulli(jax.random.fold_in(key, _OWN), self.replay_prob)

    def _generate(
        self, keys: Keys, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """New levels from the source for the `fresh` slots; a branch, as they may be dear."""

        def generate() -> tuple[PyTree, Slots]:
            after, new = self.source.propose(keys, state, slots, fresh)
            new = new._replace(
                row=jnp.full_like(slots.row, -1),
                origin=jnp.full_like(slots.origin, NEW),
                weight=jnp.full_like(slots.weight, float(self.train_on_new)),
            )
            return where(fresh.any(), after, state), where(fresh, new, slots)

        return jax.lax.cond(any_seed(fresh.any()), generate, lambda: (state, slots))

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
            used = jnp.repeat(replay, slots.row.shape[1])
            key_draw = jax.random.fold_in(key, _OWN)
            drawn, row = draw(key_draw, buffer, self._priority(), rows, used, self.sequential)
            row = row.reshape(slots.row.shape)
            level, memory = jax.tree.map(lambda x: x[row], (buffer.level, buffer.memory))
            old = Slots(
                level,
                memory,
                row,
                origin=jnp.full_like(slots.origin, REPLAY),
                weight=jnp.ones_like(slots.weight),
            )
            return drawn.timestamp, drawn.clock, where(replay, old, slots)

        timestamp, clock, slots = jax.lax.cond(
            any_seed(replay.any()), recall, lambda: (buffer.timestamp, buffer.clock, slots)
        )
        return buffer._replace(timestamp=timestamp, clock=clock), slots

    def _held(self, slots: Slots, busy: Bool[Array, " N"]) -> Bool[Array, " K"]:
        """Rows whose levels busy slots are working on."""
        row = jnp.where(busy[:, None] & (slots.row >= 0), slots.row, self.capacity)
        return jnp.zeros(self.capacity, bool).at[row].set(True, mode="drop")

    def _priority(self) -> Priority:
        return Priority(self.priority, self.temperature, self.staleness_coef)


def build(env: LevelEnv, score: Score, **fields: Any) -> PLR:
    """PLR over an environment's base distribution."""
    return PLR(env, Random(env), score, **fields)


def tiny(env: LevelEnv) -> PLR:
    """The smallest instance, for tests of laws."""
    return PLR(env, Random(env), MaxMC(), capacity=16, replay_prob=0.5)
