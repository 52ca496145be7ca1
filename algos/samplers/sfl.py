"""Sampling for learnability: look at many random levels, train on those solved now and then.

Source: Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
Curriculum Discovery", algorithm 1 (SFL).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import (
    BufferedSampler,
    empty_buffer,
    generate,
    keep_best,
    recall,
)
from rlgen.buffer import LevelBuffer, filled
from rlgen.parallel.seeds import same_for_all_seeds
from rlgen.protocols import LevelEnv, Sampler, Score, check_numbers
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Slots

_OWN = 0x53464C00
"""Folded into keys that the source gets as they are: alone or under SFL, it draws the same."""


class SFLState(NamedTuple):
    """The pool, and where the cycle stands."""

    source: PyTree
    buffer: LevelBuffer  # the best candidates of this collection so far, or of the last one
    num_updates: Int[Array, ""]  # equal for all seeds


class _Stage(NamedTuple):
    """What an update is for; equal for all seeds."""

    position: Int[Array, ""]  # 0 .. length of the cycle - 1
    collecting: Bool[Array, ""]  # not training
    turn: Int[Array, ""]  # how often the batch of candidates has been played, while collecting
    collection: Int[Array, ""]  # the update in which this cycle began
    batch: Int[Array, ""]  # the update in which this batch of candidates was first played


@dataclass(frozen=True)
class SFL(BufferedSampler):
    """Turns of two kinds: collecting a pool of levels, and training on it.

    Collecting, all slots play candidates with weight 0, each batch of them for `scout_updates`
    updates, after which the K best so far are kept. Training, some slots draw their levels
    uniformly from that pool, and the others meet fresh levels of the source, all anew in every
    update. The pool of one collection owes nothing to that of the one before.

    A slot that is still busy keeps what it has. A candidate that ends its tenancy after its batch
    is considered then; after its collection, no more. Where a candidate is played more than once,
    the score must accumulate: one that does not would judge it by the last play alone.

    Attributes:
        env: whose hash goes with each level.
        source: where candidates and fresh levels come from.
        num_candidates: M, levels looked at in a collection, rounded up to whole batches.
        scout_updates: updates in which each candidate is played; the published 2,000 steps are
            about 8 of 256.
        capacity: K, levels that a collection keeps.
        train_updates: updates between two collections.
        sampled_share: ρ, share of the slots that train on the pool; rounded to whole slots.

    Raises:
        ValueError: a field outside its range.
    """

    env: LevelEnv
    source: Sampler
    num_candidates: int = 5000
    scout_updates: int = 8
    capacity: int = 1000
    train_updates: int = 50
    sampled_share: float = 0.5

    def __post_init__(self):
        check_numbers(self, "num_candidates", "scout_updates", "capacity", "train_updates", least=1)
        if self.capacity > self.num_candidates:
            raise ValueError(
                f"capacity={self.capacity} is more than num_candidates={self.num_candidates}; a "
                "pool of all candidates selects nothing, so lower the one or raise the other"
            )
        if not 0 <= self.sampled_share <= 1:
            raise ValueError(f"sampled_share must lie in [0, 1], got {self.sampled_share}")

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse a pool of fewer rows than the levels of one update, and a forgetful score.

        Raises:
            ValueError: with the size that is needed; or a score that would judge by the last play
                alone.
        """
        if self.scout_updates > 1 and not score.accumulate:
            raise ValueError(
                f"scout_updates={self.scout_updates} plays a candidate more than once, and "
                f"{type(score).__name__} would judge it by the last play alone; set the "
                "score's accumulate=True, or scout_updates=1"
            )
        super().check(num_levels, score)

    def num_collecting(self, num_levels: int) -> int:
        """Updates of a collection, `num_levels` being met in each."""
        return -(-self.num_candidates // num_levels) * self.scout_updates

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from."""
        return self.train_updates / (self.num_collecting(num_levels) + self.train_updates)

    def init(self, key: Key, memory: PyTree) -> SFLState:
        """An empty pool, before the first collection."""
        buffer = empty_buffer(self.source, memory, self.capacity)
        return SFLState(self.source.init(key, memory), buffer, jnp.zeros((), jnp.int32))

    def propose(
        self, keys: Keys, state: SFLState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[SFLState, Slots]:
        """Candidates for all free slots, or levels of the pool for some and new ones for others."""
        stage = self._stage(state, slots.buffer_index.size)
        buffer = _emptied(state.buffer, stage.position == 0)
        in_batch = (slots.level_info.lineage.born >= stage.batch).all(-1)
        again = free & stage.collecting & (stage.turn > 0) & in_batch
        trained = jnp.arange(free.size) < round(self.sampled_share * free.size)
        sampled = free & ~stage.collecting & trained & (buffer.size > 0)
        # A row, so that the memory goes on: a candidate's place among those of its batch.
        place = jnp.arange(slots.buffer_index.size).reshape(slots.buffer_index.shape)
        slots = slots._replace(buffer_index=jnp.where(again[:, None], place, slots.buffer_index))
        weight = 1.0 - stage.collecting
        now = state.num_updates
        fresh = free & ~again & ~sampled
        source, slots = generate(self.source, keys, state.source, slots, fresh, weight, now)

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _OWN)
            return jax.random.randint(key, slots.buffer_index.shape, 0, jnp.maximum(buffer.size, 1))

        slots = recall(buffer, choose, slots, sampled, weight)
        return SFLState(source, buffer, now), slots

    def take_in(
        self, state: SFLState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> SFLState:
        """Keep the best of the candidates that have been played as often as they are to be."""
        stage = self._stage(state, slots.buffer_index.size)
        when = slots.level_info.lineage.born
        played_out = (stage.turn == self.scout_updates - 1) | (when < stage.batch)
        candidate = stage.collecting & outcome.done[:, None] & (when >= stage.collection)
        unprotected = jnp.zeros(self.capacity, bool)  # no slot plays a level of this pool yet
        buffer = keep_best(
            self.env, state.buffer, slots, score, candidate & played_out, unprotected
        )
        return state._replace(buffer=buffer, num_updates=state.num_updates + 1)

    def metrics(self, state: SFLState) -> Metrics:
        """How many levels the pool has, and their mean score when they were collected."""
        held, size = filled(state.buffer), state.buffer.size
        mean = jnp.where(held, state.buffer.score, 0.0).sum() / jnp.maximum(size, 1)
        return super().metrics(state) | {"pool_size": size, "pool_score": mean}

    def _stage(self, state: SFLState, num_levels: int) -> _Stage:
        now = same_for_all_seeds(state.num_updates)
        num_collecting = self.num_collecting(num_levels)
        position = now % (num_collecting + self.train_updates)
        turn = position % self.scout_updates
        return _Stage(position, position < num_collecting, turn, now - position, now - turn)


def build(env: LevelEnv, **fields: Any) -> SFL:
    """SFL over an environment's base distribution."""
    return SFL(env, Random(env), **fields)


def tiny(env: LevelEnv) -> SFL:
    """The smallest instance, for tests of laws."""
    return SFL(env, Random(env), 16, scout_updates=2, capacity=8, train_updates=4)


def _emptied(buffer: LevelBuffer, empties: Bool[Array, ""]) -> LevelBuffer:
    """The buffer without its rows, if it `empties`."""
    size = jnp.where(empties, 0, buffer.size)
    return buffer._replace(size=size, score=jnp.where(empties, -jnp.inf, buffer.score))
