"""Sampling for learnability (SFL): scores many random levels and trains on the best of them.

The score is usually learnability, which is highest for levels that the agent solves half of the
time. Slots, queues and weights are explained in `rlgen.algos.samplers`.

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
"""Folded into `keys` for SFL's own draws. The source receives `keys` unchanged, so that the source
samples the same levels with and without SFL."""


class SFLState(NamedTuple):
    """The pool of levels, and the position in the cycle."""

    source: PyTree
    buffer: LevelBuffer  # best candidates of the current or, in training, the last collection
    num_updates: Int[Array, ""]  # equal for all seeds


class _Stage(NamedTuple):
    """Purpose of an update within the cycle; equal for all seeds."""

    position: Int[Array, ""]  # 0 .. length of the cycle - 1
    collecting: Bool[Array, ""]  # False while training
    turn: Int[Array, ""]  # number of earlier plays of the current batch; meaningless in training
    collection: Int[Array, ""]  # number of the update in which this cycle began
    batch: Int[Array, ""]  # number of the update in which the current batch was first played


@dataclass(frozen=True)
class SFL(BufferedSampler):
    """Alternates between collecting a pool of levels and training on this pool.

    While collecting, all slots play new levels, the candidates, with weight 0. Each batch of
    candidates is played for `scout_updates` updates. After that, the pool keeps the K best
    candidates of the collection so far. While training, some slots draw their levels uniformly from
    the pool, and the other slots play new levels from the source. All free slots get other levels
    in every training update. Each collection starts from an empty pool.

    A busy slot keeps its levels. If the slot of a candidate becomes free only after its batch has
    ended, the candidate is considered for the pool at that time. After the end of the collection,
    the candidate is no longer considered for the pool. If `scout_updates` is above 1, the score
    must accumulate over plays; otherwise only the last play would count.

    Attributes:
        env: Environment; its `level_hash` is stored with each level.
        source: Sampler of candidates and new levels.
        num_candidates: Number of candidates per collection, M, rounded up to whole batches.
        scout_updates: Number of updates in which each candidate is played. The 2,000 steps of
            Rutherford et al. are about 8 updates of 256 steps.
        capacity: Number of levels in the pool, K.
        train_updates: Number of training updates between two collections.
        sampled_share: Fraction ρ of the slots that train on the pool, rounded to whole slots.

    Raises:
        ValueError: If a field is outside its range.
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
                "pool of all candidates makes no selection, so lower capacity or raise "
                "num_candidates"
            )
        if not 0 <= self.sampled_share <= 1:
            raise ValueError(f"sampled_share must lie in [0, 1], got {self.sampled_share}")

    def check(self, num_levels: int, score: Score) -> None:
        """Check the size of the pool, and that the score accumulates over plays of a candidate.

        Raises:
            ValueError: If the pool has fewer rows than an update has levels, or if a candidate is
                played several times and only the last play would count.
        """
        if self.scout_updates > 1 and not score.accumulate:
            raise ValueError(
                f"scout_updates={self.scout_updates} plays each candidate more than once, but "
                f"{type(score).__name__} would use only the last play; set accumulate=True in the "
                "score, or scout_updates=1"
            )
        super().check(num_levels, score)

    def num_collecting(self, num_levels: int) -> int:
        """Number of updates in a collection that plays `num_levels` levels per update."""
        return -(-self.num_candidates // num_levels) * self.scout_updates

    def trained_updates(self, num_levels: int) -> float:
        """Fraction of the updates that train the student."""
        return self.train_updates / (self.num_collecting(num_levels) + self.train_updates)

    def init(self, key: Key, memory: PyTree) -> SFLState:
        """Return the initial state, with an empty pool."""
        buffer = empty_buffer(self.source, memory, self.capacity)
        return SFLState(self.source.init(key, memory), buffer, jnp.zeros((), jnp.int32))

    def propose(
        self, keys: Keys, state: SFLState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[SFLState, Slots]:
        """Fill the free slots with candidates or, in training, with pool levels and new levels."""
        stage = self._stage(state, slots.buffer_index.size)
        # Every collection starts from an empty pool.
        buffer = _emptied(state.buffer, stage.position == 0)
        in_batch = (slots.level_info.lineage.born >= stage.batch).all(-1)
        # Slots that keep their candidates for another play. A slot that was busy when the batch
        # began holds older levels and gets new candidates instead.
        again = free & stage.collecting & (stage.turn > 0) & in_batch
        # The first ρN slots train on the pool.
        trained = jnp.arange(free.size) < round(self.sampled_share * free.size)
        sampled = free & ~stage.collecting & trained & (buffer.size > 0)
        # The curriculum resets the score's memory of free slots with row -1. A candidate that is
        # played again therefore gets a non-negative row, its position in the batch. That row is
        # not used as an index of the buffer.
        place = jnp.arange(slots.buffer_index.size).reshape(slots.buffer_index.shape)
        slots = slots._replace(buffer_index=jnp.where(again[:, None], place, slots.buffer_index))
        weight = 1.0 - stage.collecting  # collecting trains nothing
        now = state.num_updates
        fresh = free & ~again & ~sampled
        source, slots = generate(self.source, keys, state.source, slots, fresh, weight, now)

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _OWN)
            # At least 1: `randint` needs a non-empty range even where no slot samples the pool.
            return jax.random.randint(key, slots.buffer_index.shape, 0, jnp.maximum(buffer.size, 1))

        slots = recall(buffer, choose, slots, sampled, weight)
        return SFLState(source, buffer, now), slots

    def take_in(
        self, state: SFLState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> SFLState:
        """Offer candidates to the pool after all their plays; the pool keeps the best of them."""
        stage = self._stage(state, slots.buffer_index.size)
        when = slots.level_info.lineage.born
        # True in the last turn of a batch, and for late candidates of an earlier batch.
        played_out = (stage.turn == self.scout_updates - 1) | (when < stage.batch)
        candidate = stage.collecting & outcome.done[:, None] & (when >= stage.collection)
        # No row needs protection: no slot plays a level of the pool before training begins.
        unprotected = jnp.zeros(self.capacity, bool)
        buffer = keep_best(
            self.env, state.buffer, slots, score, candidate & played_out, unprotected
        )
        return state._replace(buffer=buffer, num_updates=state.num_updates + 1)

    def metrics(self, state: SFLState) -> Metrics:
        """Return the number of levels in the pool, and the mean of the stored scores."""
        held, size = filled(state.buffer), state.buffer.size
        mean = state.buffer.score.mean(where=held)  # NaN for an empty pool
        return super().metrics(state) | {"pool_size": size, "pool_score": mean}

    def _stage(self, state: SFLState, num_levels: int) -> _Stage:
        now = same_for_all_seeds(state.num_updates)
        num_collecting = self.num_collecting(num_levels)
        position = now % (num_collecting + self.train_updates)
        # A collection consists of whole batches of `scout_updates` updates.
        turn = position % self.scout_updates
        return _Stage(position, position < num_collecting, turn, now - position, now - turn)


def build(env: LevelEnv, **fields: Any) -> SFL:
    """Build SFL with new levels from the environment's base distribution."""
    return SFL(env, Random(env), **fields)


def tiny(env: LevelEnv) -> SFL:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return SFL(env, Random(env), 16, scout_updates=2, capacity=8, train_updates=4)


def _emptied(buffer: LevelBuffer, empties: Bool[Array, ""]) -> LevelBuffer:
    """Return the buffer, or an empty buffer if `empties` is True."""
    # Levels and hashes stay in memory; rows beyond `size` count as empty.
    size = jnp.where(empties, 0, buffer.size)
    return buffer._replace(size=size, score=jnp.where(empties, -jnp.inf, buffer.score))
