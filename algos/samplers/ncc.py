"""NCC: trains on a distribution over levels that gradient ascent moves towards high scores.

Slots, queues and weights are explained in `rlgen.algos.samplers`.

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
"""Folded into `keys` for NCC's own draws. The source receives `keys` unchanged, so that the source
samples the same levels with and without NCC."""

_EXPONENT = 0.4  # TiAda's β, the exponent of the maximising player
_FIRST = 0.1  # initial sum of squared gradients, as in the code of Monette et al.


class Adversary(NamedTuple):
    """A distribution over K levels, and the statistics of its adaptive step size."""

    y: Float[Array, " K"]  # probability of each row
    squares: Float[Array, " K"]  # sums of squared gradients; equal for all rows unless `per_level`


class NCCState(NamedTuple):
    """The level buffer, the distribution over its rows, and the position in the cycle."""

    source: PyTree
    buffer: LevelBuffer
    adversary: Adversary
    num_updates: Int[Array, ""]  # equal for all seeds


class _Stage(NamedTuple):
    """Purpose of an update within the cycle; equal for all seeds."""

    position: Int[Array, ""]  # number of the update within the cycle
    sweeping: Bool[Array, ""]
    training: Bool[Array, ""]
    ascends: Bool[Array, ""]  # True in the last update before training, when y takes its step


@dataclass(frozen=True)
class NCC(BufferedSampler):
    """Repeats a cycle: scores all levels, updates a distribution over levels, and trains on draws.

    The cycle begins with a *sweep*, which plays all K rows of the buffer in order with weight 0. In
    place of empty rows, the sweep plays new levels, the candidates, so that the first sweep fills
    the buffer. After the sweep, `num_fresh_updates` updates play only candidates. If a candidate
    scores higher than the row with the lowest score, the candidate replaces this row and inherits
    the row's probability. Then the distribution y takes a projected gradient ascent step on yᵀs + η
    H(y), where s are the scores and H is the entropy. Finally, `train_updates` updates train on
    levels drawn from y.

    If a sweep gives no score for a row, the row keeps its old score. For a row that never had a
    score, the lowest known score is used. A busy slot skips its turn in the sweep, and rows whose
    levels are in busy slots are not replaced. If the buffer is empty, the training updates play new
    levels.

    Three points differ from the code of Monette et al. Here, training draws from the distribution
    after the step; their code uses the distribution before the step. Here, the learner keeps its
    usual optimiser; their learner takes TiAda steps. Here, the step is an ascent; their code
    negates the update before adding it.

    Attributes:
        env: Environment; its `level_hash` is stored with each level.
        source: Sampler of new levels.
        capacity: Number of levels in the distribution, K.
        entropy_coef: Entropy coefficient η. With η = 0, the optimal y puts all probability above
            `floor` on the level with the highest score.
        step_size: Step size before the division by (sum of squared gradients)^0.4.
        floor: Minimum probability of a level; below 1 / K.
        per_level: Compute the step size of each level from the squared gradients of this level
            alone, as the code of Monette et al. does. By default, the mean of the gradient is
            subtracted first, so that the sum of y does not change, and all levels share one sum of
            squares. The steps then converge to the maximum of yᵀs + η H(y), and a constant added to
            all scores has no effect.
        num_fresh_updates: Number of updates with new candidates after each sweep.
        train_updates: Number of training updates between two sweeps.

    Raises:
        ValueError: If a field is outside its range.
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
                f"{self.floor}; use a small fraction of 1 / capacity, such as "
                f"{0.04 / self.capacity:.1g}"
            )

    def num_sweeping(self, num_levels: int) -> int:
        """Number of updates in a sweep that plays `num_levels` levels per update."""
        # Division rounded up.
        return -(-self.capacity // num_levels)

    def trained_updates(self, num_levels: int) -> float:
        """Fraction of the updates that train the student."""
        judged = self.num_sweeping(num_levels) + self.num_fresh_updates
        return self.train_updates / (judged + self.train_updates)

    def init(self, key: Key, memory: PyTree) -> NCCState:
        """Return the initial state, with an empty buffer and the uniform distribution."""
        buffer = empty_buffer(self.source, memory, self.capacity)
        uniform, first = jnp.full(self.capacity, 1 / self.capacity), jnp.full(self.capacity, _FIRST)
        adversary = Adversary(uniform, first)
        return NCCState(self.source.init(key, memory), buffer, adversary, jnp.zeros((), jnp.int32))

    def propose(
        self, keys: Keys, state: NCCState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[NCCState, Slots]:
        """Fill the free slots with the next rows of the sweep, new candidates, or draws from y."""
        stage, buffer = self._stage(state, slots.buffer_index.size), state.buffer
        place = jnp.arange(slots.buffer_index.size).reshape(slots.buffer_index.shape)
        # Row that each queue position is due to play in the sweep, [N, R].
        swept = stage.position * slots.buffer_index.size + place
        # In a sweep, a slot whose turn is past the last filled row plays new candidates. New
        # candidates have weight 1 only if the buffer is empty when training begins.
        replays = (stage.sweeping & (swept[:, 0] < buffer.size)) | stage.training
        replay = free & replays & (buffer.size > 0)
        weight = 1.0 * stage.training
        source, slots = generate(
            self.source, keys, state.source, slots, free & ~replay, weight, state.num_updates
        )

        def choose() -> Int[Array, "N R"]:
            key = jax.random.fold_in(keys.own, _OWN)
            # Empty rows are masked, so p need not sum to 1; `choice` samples in proportion to p.
            likely = jnp.where(filled(buffer), state.adversary.y, 0.0)
            drawn = jax.random.choice(key, self.capacity, slots.buffer_index.shape, p=likely)
            # A queue that extends past the last filled row repeats that row.
            return jnp.where(stage.training, drawn, jnp.clip(swept, 0, buffer.size - 1))

        slots = recall(buffer, choose, slots, replay, weight)
        return state._replace(source=source), slots

    def take_in(
        self, state: NCCState, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
    ) -> NCCState:
        """Update the scores, insert better candidates, and once per cycle update y."""
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
        """Take one projected gradient ascent step on yᵀs + η H(y); all scores must be finite."""
        # ∂/∂y_i (yᵀs − η Σ y log y) = s_i − η (log y_i + 1); y_i ≥ floor > 0 keeps the log finite.
        gradient = score - self.entropy_coef * (jnp.log(adversary.y) + 1.0)
        if self.per_level:
            squares = adversary.squares + gradient**2
        else:
            gradient = gradient - gradient.mean()
            squares = adversary.squares + (gradient**2).sum()
        # TiAda: the step size decays with the accumulated squared gradients.
        step = self.step_size * gradient * squares**-_EXPONENT
        return Adversary(project(adversary.y + step, self.floor), squares)

    def metrics(self, state: NCCState) -> Metrics:
        """Return the entropy and the maximum of the distribution y, and the mean score under y."""
        y = state.adversary.y
        own = {
            "level_entropy": -(y * jnp.log(y)).sum(),  # nats
            "level_prob_max": y.max(),
            "level_score": y @ known_scores(state.buffer),
        }
        return super().metrics(state) | own

    def _stage(self, state: NCCState, num_levels: int) -> _Stage:
        # Order within a cycle: sweep, new candidates, training.
        now, sweep = same_for_all_seeds(state.num_updates), self.num_sweeping(num_levels)
        before = sweep + self.num_fresh_updates
        position = now % (before + self.train_updates)
        return _Stage(position, position < sweep, position >= before, position == before - 1)


def known_scores(buffer: LevelBuffer) -> Float[Array, " K"]:
    """Return finite scores for all rows.

    A row without a score gets the lowest known score. If no row has a score, all rows get 0.
    """
    known = observed(buffer)
    lowest = jnp.where(known, buffer.score, jnp.inf).min()
    return jnp.where(known, buffer.score, jnp.where(known.any(), lowest, 0.0))


def project(x: Float[Array, " K"], floor: float = 0.0) -> Float[Array, " K"]:
    """Project `x` onto the distributions whose probabilities are all at least `floor`.

    The minimiser of ‖y − x‖² over {y: Σ y = 1, y_i ≥ floor} is max(x_i − θ, floor), and θ follows
    from the sorted entries. Adding a constant to all entries of `x` does not change the result.

    Args:
        x: Finite numbers.
        floor: Minimum probability, from 0 to 1 / K; at 1 / K the result is uniform.

    Source: Duchi et al., 2008, "Efficient Projections onto the l1-Ball for Learning in High
    Dimensions", figure 1. For the floor, the simplex is shifted.
    """
    mass = 1.0 - floor * x.size  # probability to distribute above the floor
    x = x - x.max()  # avoids loss of precision in the sums if all entries are large
    descending = -jnp.sort(-x)
    # If the j largest entries stay above the floor, θ = excess_j / j.
    excess = jnp.cumsum(descending) - mass
    rank = jnp.arange(1, x.size + 1)
    # Number of entries above the floor; at least one, even if the mass is 0.
    above = jnp.maximum((descending * rank > excess).sum(), 1)
    threshold = excess[above - 1] / above
    return jnp.maximum(x - threshold, 0.0) + floor


def build(env: LevelEnv, **fields: Any) -> NCC:
    """Build NCC with new levels from the environment's base distribution."""
    return NCC(env, Random(env), **fields)


def tiny(env: LevelEnv) -> NCC:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return NCC(env, Random(env), capacity=12, floor=1e-3, train_updates=2)
