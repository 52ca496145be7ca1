"""NCC: the curriculum as a distribution over levels that climbs the gradient of their scores.

Source: Monette et al., 2025, "An Optimisation Framework for Unsupervised Environment Design"; the
step sizes are those of Li et al., 2023, "TiAda: A Time-scale Adaptive Algorithm for Nonconvex
Minimax Optimization".
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
    held_rows,
    keep_best,
    recall,
    remembered,
)
from rlgen.buffer import LevelBuffer, filled, observed, update
from rlgen.parallel.seeds import same_for_all_seeds
from rlgen.protocols import LevelEnv, Sampler
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Slots

_OWN = 0x4E434300
"""Folded into keys that the source gets as they are: alone or under NCC, it draws the same."""

_EXPONENT = 0.4  # TiAda's β, of the player who maximises
_FIRST = 0.1  # what the sum of squares begins with, as released


class Adversary(NamedTuple):
    """A distribution over K levels, and what its steps have been like."""

    y: Float[Array, " K"]
    squares: Float[Array, " K"]  # summed squares of its gradients; all equal for joint steps


class NCCState(NamedTuple):
    """The levels, the distribution over them, and where the cycle stands."""

    source: PyTree
    buffer: LevelBuffer
    adversary: Adversary
    num_updates: Int[Array, ""]  # equal for all seeds


class _Stage(NamedTuple):
    """What an update is for; equal for all seeds."""

    position: Int[Array, ""]
    sweeping: Bool[Array, ""]
    training: Bool[Array, ""]
    ascends: Bool[Array, ""]  # the last before training


@dataclass(frozen=True)
class NCC(BufferedSampler):
    """Cycles: every level is scored again, the distribution takes one step, and training follows.

    A *sweep* plays all K rows in order with weight 0, and new candidates in place of rows that are
    still empty; the first one fills the buffer so. `num_fresh_updates` of candidates follow, which
    replace the rows of lowest score where they are better and inherit their probability. Then y
    takes a projected gradient step up yᵀs + η H(y), and `train_updates` updates draw all their
    levels from it.

    A row of which a sweep learned nothing keeps its score; one that never had any counts as the
    lowest known. A slot that is busy passes its turn, and its rows are not replaced. Without any
    row, training goes on with new levels.

    Differs from the released code in that training draws from the new distribution, not the one
    before the step, in that the learner keeps its own optimiser (there it takes TiAda's steps as
    well), and in that the step goes up: there the update is negated before it is added.

    Attributes:
        env: whose hash goes with each level.
        source: where levels come from.
        capacity: K, rows.
        entropy_coef: η; 0 puts all that the floor leaves on the best level.
        step_size: of the gradient step; divided by (summed squares of gradients)^0.4.
        floor: least probability of a level; below 1 / K.
        per_level: whether each row divides by its own sum of squares, as the released code does.
            By default all divide by one sum, of the gradient within the simplex (its mean taken
            off), so that steps settle where yᵀs + η H(y) is highest and do not depend on what is
            added to all scores.
        num_fresh_updates: updates with new candidates after each sweep.
        train_updates: updates between two sweeps.

    Raises:
        ValueError: a field outside its range.
    """

    env: LevelEnv
    source: Sampler
    capacity: int = 4000
    entropy_coef: float = 0.05
    step_size: float = 0.1
    floor: float = 1e-5
    per_level: bool = False
    num_fresh_updates: int = 1
    train_updates: int = 1

    def __post_init__(self):
        for name, least in (("capacity", 1), ("num_fresh_updates", 0), ("train_updates", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.entropy_coef >= 0:
            raise ValueError(f"entropy_coef must be at least 0, got {self.entropy_coef}")
        if not self.step_size > 0:
            raise ValueError(f"step_size must be positive, got {self.step_size}")
        if not 0 < self.floor * self.capacity < 1:
            raise ValueError(
                f"floor must lie between 0 and 1 / capacity = {1 / self.capacity:.3g}, got "
                f"{self.floor}; a good one is a small part of that, such as "
                f"{0.04 / self.capacity:.1g}"
            )

    def num_sweeping(self, num_levels: int) -> int:
        """Updates of a sweep, `num_levels` being met in each."""
        return -(-self.capacity // num_levels)

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from."""
        judged = self.num_sweeping(num_levels) + self.num_fresh_updates
        return self.train_updates / (judged + self.train_updates)

    def init(self, key: Key, memory: PyTree) -> NCCState:
        """An empty buffer and a uniform distribution."""
        buffer = empty_buffer(self.source, memory, self.capacity)
        uniform, first = jnp.full(self.capacity, 1 / self.capacity), jnp.full(self.capacity, _FIRST)
        adversary = Adversary(uniform, first)
        return NCCState(self.source.init(key, memory), buffer, adversary, jnp.zeros((), jnp.int32))

    def propose(
        self, keys: Keys, state: NCCState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[NCCState, Slots]:
        """The next rows of a sweep, new candidates, or levels drawn from the distribution."""
        stage, buffer = self._stage(state, slots.buffer_index.size), state.buffer
        place = jnp.arange(slots.buffer_index.size).reshape(slots.buffer_index.shape)
        swept = stage.position * slots.buffer_index.size + place
        replays = (stage.sweeping & (swept[:, 0] < buffer.size)) | stage.training
        replay = free & replays & (buffer.size > 0)
        weight = 1.0 * stage.training
        source, slots = generate(
            self.source, keys, state.source, slots, free & ~replay, weight, state.num_updates
        )

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _OWN)
            likely = jnp.where(filled(buffer), state.adversary.y, 0.0)
            drawn = jax.random.choice(key, self.capacity, slots.buffer_index.shape, p=likely)
            return jnp.where(stage.training, drawn, jnp.clip(swept, 0, buffer.size - 1))

        slots = recall(buffer, choose, slots, replay, weight)
        return state._replace(source=source), slots

    def take_in(
        self, state: NCCState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> NCCState:
        """New scores for known rows, better levels for poor ones, and once a cycle a step of y."""
        stage = self._stage(state, slots.buffer_index.size)
        row = slots.buffer_index.ravel()
        finished = jnp.repeat(outcome.done, slots.buffer_index.shape[1])
        memory = remembered(slots)[1]
        buffer = update(state.buffer, row, score.ravel(), memory, finished)
        offered = outcome.done[:, None] & (slots.buffer_index < 0)
        busy = held_rows(slots, ~outcome.done, self.capacity)
        buffer = keep_best(self.env, buffer, slots, score, offered, protected=busy)
        adversary = jax.lax.cond(
            stage.ascends,
            lambda: self.ascend(state.adversary, known_scores(buffer)),
            lambda: state.adversary,
        )
        num_updates = state.num_updates + 1
        return state._replace(buffer=buffer, adversary=adversary, num_updates=num_updates)

    def ascend(self, adversary: Adversary, score: Float[Array, " K"]) -> Adversary:
        """One projected gradient step up yᵀs + η H(y); the scores are finite."""
        gradient = score - self.entropy_coef * (jnp.log(adversary.y) + 1.0)
        if self.per_level:
            squares = adversary.squares + gradient**2
        else:
            gradient = gradient - gradient.mean()
            squares = adversary.squares + (gradient**2).sum()
        step = self.step_size * gradient * squares**-_EXPONENT
        return Adversary(project(adversary.y + step, self.floor), squares)

    def metrics(self, state: NCCState) -> Metrics:
        """How spread the distribution is, and the mean score under it."""
        y = state.adversary.y
        own = {
            "level_entropy": -(y * jnp.log(y)).sum(),  # nats
            "level_prob_max": y.max(),
            "level_score": y @ known_scores(state.buffer),
        }
        return super().metrics(state) | own

    def _stage(self, state: NCCState, num_levels: int) -> _Stage:
        now, sweep = same_for_all_seeds(state.num_updates), self.num_sweeping(num_levels)
        before = sweep + self.num_fresh_updates
        position = now % (before + self.train_updates)
        return _Stage(position, position < sweep, position >= before, position == before - 1)


def known_scores(buffer: LevelBuffer) -> Float[Array, " K"]:
    """Scores of all rows; where nothing is known, the lowest that is (0 if none is)."""
    known = observed(buffer)
    lowest = jnp.where(known, buffer.score, jnp.inf).min()
    return jnp.where(known, buffer.score, jnp.where(known.any(), lowest, 0.0))


def project(x: Float[Array, " K"], floor: float = 0.0) -> Float[Array, " K"]:
    """The distribution nearest to `x` in which nothing is less likely than `floor`.

    The minimiser of ‖y − x‖² over {y: Σ y = 1, y_i ≥ floor} is max(x_i − θ, floor), and θ follows
    from the sorted entries. Adding a constant to all of `x` changes nothing.

    Args:
        x: any finite numbers.
        floor: at least 0 and at most 1 / K; at 1 / K only the uniform distribution is left.

    Source: Duchi et al., 2008, "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", figure 1; the floor by shifting the simplex.
    """
    mass = 1.0 - floor * x.size  # what is left to give away above the floor
    x = x - x.max()  # so that sums of large numbers do not swallow the differences
    descending = -jnp.sort(-x)
    excess = jnp.cumsum(descending) - mass
    rank = jnp.arange(1, x.size + 1)
    # How many entries stay above the floor; at least one, also where no mass is left for it.
    above = jnp.maximum((descending * rank > excess).sum(), 1)
    threshold = excess[above - 1] / above
    return jnp.maximum(x - threshold, 0.0) + floor


def build(env: LevelEnv, **fields: Any) -> NCC:
    """NCC over an environment's base distribution."""
    return NCC(env, Random(env), **fields)


def tiny(env: LevelEnv) -> NCC:
    """The smallest instance, for tests of laws."""
    return NCC(env, Random(env), capacity=12, floor=1e-3, train_updates=2)
