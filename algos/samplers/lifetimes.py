"""Tasks for meta-learning: levels of another sampler, each with a lifetime.

A lifetime is the number of updates for which an agent trains on its level.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (each agent trains for a
number of updates on a level sampled for it); Jackson et al., 2024, "Discovering Temporally-Aware
Reinforcement Learning Algorithms" (log-uniform lifetimes).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.algos.samplers.random import Random
from rlgen.parallel.seeds import tree_where
from rlgen.protocols import LevelEnv, Sampler, Score
from rlgen.registry import has
from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Slots, Solution, Task

DEFAULT_LIFETIME = 250
"""Lifetime in updates for environments that do not define `lifetime()`."""

_OWN = 0x4C494645
"""Folded into a key to draw lifetimes. The source receives the keys unchanged, so that the source
samples the same levels with and without lifetimes."""


@dataclass(frozen=True)
class Lifetimes(Sampler):
    """Fills each free slot with a level of the source and an independent lifetime.

    Lifetimes are integers with a log-uniform distribution from `shortest` to `longest`: a lifetime
    of 10 to 20 is as likely as one of 100 to 200. The source receives the levels without lifetimes.

    Attributes:
        source: Sampler of the levels.
        shortest: Minimum lifetime in updates; 0 sets it to `longest`, so that all lifetimes are
            equal.
        longest: Maximum lifetime in updates; 0 uses the environment's `lifetime()`, or 250 if the
            environment does not define it.
        common: Draw the same lifetimes for all seeds of a run, so that the training loops of
            parallel seeds are equally long. Intended for students that train an agent for its whole
            lifetime in one update.

    Raises:
        ValueError: If a lifetime is negative, or `shortest` exceeds `longest`.
    """

    env: LevelEnv
    source: Sampler
    shortest: int = 0
    longest: int = 0
    common: bool = False

    def __post_init__(self):
        for name in ("shortest", "longest"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} must be 0 or more updates, got {getattr(self, name)}; use 0 for the "
                    "default"
                )
        shortest, longest = self.bounds
        if shortest > longest:
            raise ValueError(
                f"shortest={shortest} is above the longest lifetime, {longest}; lower shortest or "
                "raise longest"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """Minimum and maximum lifetime, both at least one update."""
        known = has(self.env, LevelEnv.lifetime)
        longest = self.longest or (int(self.env.lifetime()) if known else DEFAULT_LIFETIME)
        return self.shortest or longest, longest

    @property
    def mean_lifetime(self) -> float:
        """Expected lifetime in updates."""
        shortest, longest = self.bounds
        if shortest == longest:
            return float(longest)
        # `_draw` gives P(n) = log((n + 1) / n) / log((longest + 1) / shortest).
        every = np.arange(shortest, longest + 1)
        return float((every * np.diff(np.log(np.append(every, longest + 1)))).sum()) / np.log(
            (longest + 1) / shortest
        )

    @property
    def level_set(self) -> Any:
        """The finite set of the source; None if the source has no finite set."""
        return self.source.level_set

    @property
    def is_set_sampled(self) -> bool:
        """True if the source's finite set was sampled from the environment."""
        return self.source.is_set_sampled

    @property
    def makes_levels(self) -> bool:
        """True if the source makes levels."""
        return self.source.makes_levels

    @property
    def preparation(self) -> str:
        """Short description of the work in the source's `init`."""
        return self.source.preparation

    @property
    def reads(self) -> frozenset[str]:
        """Fields of the outcome that the source reads."""
        return self.source.reads

    def offers(self, capability: Callable) -> bool:
        """Return whether the source offers a capability."""
        return self.source.offers(capability)

    def check(self, num_levels: int, score: Score) -> None:
        """Check the source."""
        self.source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "Lifetimes":
        """Return a copy whose source has schedules for `num_updates` updates."""
        return replace(self, source=self.source.spanning(num_updates))

    def buffer(self, state: PyTree) -> Any:
        """Return the source's level buffer."""
        return self.source.buffer(state)

    def init(self, key: Key, memory: PyTree) -> PyTree:
        """Return the source's initial state."""
        return self.source.init(key, memory)

    def example_level(self) -> Task:
        """Return the source's example level, with the maximum lifetime."""
        return Task(self.source.example_level(), jnp.int32(self.bounds[1]))

    def level_info(self) -> PyTree:
        """Return the source's record of a new level."""
        return self.source.level_info()

    def propose(
        self, keys: Keys, state: PyTree, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Fill the free slots with levels of the source and new lifetimes."""
        before: Task = slots.level
        state, new = self.source.propose(keys, state, _of_source(slots), free)
        # `keys.shared` is equal for all seeds of a run, `keys.own` is not.
        key = jax.random.fold_in(keys.shared if self.common else keys.own, _OWN)
        drawn = self._draw(key, before.lifetime.shape)
        lifetime = tree_where(free, drawn, before.lifetime)
        return state, new._replace(level=Task(new.level, lifetime))

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Pass the results to the source, after removing the lifetimes from the levels."""
        return self.source.observe(keys, state, _of_source(slots), score, outcome)

    def metrics(self, state: PyTree) -> Metrics:
        """Return the source's metrics."""
        return self.source.metrics(state)

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """Return the lineage of the levels, as the source reports it."""
        return self.source.lineage(state, _of_source(slots))

    def trained_updates(self, num_levels: int) -> float:
        """Fraction of the updates that train the student, as the source reports it."""
        return self.source.trained_updates(num_levels)

    def replay_probability(self, state: PyTree) -> Float[Array, " K"]:
        """Replay probability of each row of the source's buffer."""
        return self.source.replay_probability(state)

    def _draw(self, key: Key, shape: tuple[int, ...]) -> Int[Array, "N R"]:
        shortest, longest = self.bounds
        if shortest == longest:
            return jnp.full(shape, longest, jnp.int32)
        # Round down a log-uniform real number in [shortest, longest + 1).
        low, high = jnp.log(float(shortest)), jnp.log(longest + 1.0)
        real = jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))
        # Rounding errors of exp and log can give a number just outside this interval.
        return jnp.clip(jnp.floor(real).astype(jnp.int32), shortest, longest)


@dataclass(frozen=True)
class TaskEnv(LevelEnv):
    """An environment whose levels are tasks, for samplers and scores that read levels.

    A task is a level and a lifetime. The lifetime affects only `sample_level` and `level_hash`. All
    other methods call the method of the wrapped environment with the task's level. These methods
    include the optional capabilities that solve or describe levels.
    """

    env: LevelEnv
    lifetime: int = 1  # lifetime of the tasks from `sample_level`; samplers set other lifetimes

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        return self.env.num_actions

    def sample_level(self, key: Key) -> Task:
        """Sample a level of the family, with the fixed `lifetime`."""
        return Task(self.env.sample_level(key), jnp.int32(self.lifetime))

    def observation_space(self, params: Task | None = None) -> spaces.Space:
        """Return the observation space of the task's level."""
        return self.env.observation_space(None if params is None else params.level)

    def reset_env(self, key: Key, params: Task) -> tuple[PyTree, PyTree]:
        """Start an episode on the task's level."""
        return self.env.reset_env(key, params.level)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""], params: Task
    ) -> tuple[PyTree, PyTree, Array, Array, dict]:
        """Take one step."""
        return self.env.step_env(key, state, action, params.level)

    def is_truncated(self, state: PyTree, params: Task) -> Bool[Array, ""]:
        """Return whether the episode has reached the time limit of the task's level."""
        return self.env.is_truncated(state, params.level)

    def level_hash(self, level: Task) -> UInt32[Array, "2"]:
        """Hash of level and lifetime; tasks with equal levels and lifetimes have equal hashes."""
        # Multiplication by a large odd constant spreads small lifetimes over all 32 bits.
        mixed = level.lifetime.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
        return self.env.level_hash(level.level) ^ jnp.stack([mixed, mixed ^ (mixed >> 16)])

    def offers(self, capability: Callable) -> bool:
        """Return whether both this class and the wrapped environment offer a capability."""
        return super().offers(capability) and self.env.offers(capability)

    @property
    def lowest_return(self) -> float:
        """Lower bound on the return of any episode in the wrapped environment."""
        return self.env.lowest_return

    def solve(self, level: Task) -> Solution:
        """Solve the task's level."""
        return self.env.solve(level.level)

    def level_features(self, level: Task) -> dict[str, Array]:
        """Return the features of the task's level."""
        return self.env.level_features(level.level)

    def level_image(self, level: Task) -> np.ndarray:
        """Return an image of the task's level."""
        return self.env.level_image(level.level)


def _of_source(slots: Slots) -> Slots:
    return slots._replace(level=slots.level.level)


def build(env: LevelEnv, shortest: int = 0, longest: int = 0) -> Lifetimes:
    """Build a sampler that adds lifetimes to levels from the environment's base distribution."""
    return Lifetimes(env, Random(env), shortest, longest)


def tiny(env: LevelEnv) -> Lifetimes:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return Lifetimes(env, Random(env), 2, 5)
