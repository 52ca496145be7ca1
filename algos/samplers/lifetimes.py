"""Tasks for meta-learning: another sampler's levels, each with a lifetime.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (agents live for a number
of updates on a level drawn for them); Jackson et al., 2024, "Discovering Temporally-Aware
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
"""Updates, in environments that do not say for how long an agent is trained in them."""

_OWN = 0x4C494645
"""Folded into a key that the source gets as it is: alone or here, it draws the same."""


@dataclass(frozen=True)
class Lifetimes(Sampler):
    """Fills each free slot with a level of the source and an independent lifetime.

    Lifetimes are whole numbers, log-uniform from `shortest` to `longest`: 10 to 20 is as likely as
    100 to 200. The source sees the levels alone and never learns of lifetimes.

    Attributes:
        source: where the levels come from.
        shortest: fewest updates that an agent lives for; 0 for `longest`, so that all live as long.
        longest: most updates; 0 for the environment's own `lifetime()`, or 250 if it has none.
        common: draw the same lifetimes for all seeds of a run, so that side by side no seed's loop
            waits for another's; for students that live whole lives in one update.

    Raises:
        ValueError: a negative lifetime, or the shortest above the longest.
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
                    f"{name} must be 0 or more updates, got {getattr(self, name)}; 0 leaves the "
                    "choice to the environment"
                )
        shortest, longest = self.bounds
        if shortest > longest:
            raise ValueError(
                f"shortest={shortest} is above the longest lifetime, {longest}; set longest too"
            )

    @property
    def bounds(self) -> tuple[int, int]:
        """The shortest and the longest lifetime, both of at least one update."""
        known = has(self.env, LevelEnv.lifetime)
        longest = self.longest or (int(self.env.lifetime()) if known else DEFAULT_LIFETIME)
        return self.shortest or longest, longest

    @property
    def mean_lifetime(self) -> float:
        """Expected number of updates of a life."""
        shortest, longest = self.bounds
        if shortest == longest:
            return float(longest)
        every = np.arange(shortest, longest + 1)
        return float((every * np.diff(np.log(np.append(every, longest + 1)))).sum()) / np.log(
            (longest + 1) / shortest
        )

    @property
    def level_set(self) -> Any:
        """The levels of a source that is a finite set; None of another."""
        return self.source.level_set

    @property
    def is_set_sampled(self) -> bool:
        """The source's."""
        return self.source.is_set_sampled

    @property
    def preparation(self) -> str:
        """The source's."""
        return self.source.preparation

    @property
    def reads(self) -> frozenset[str]:
        """What the source reads."""
        return self.source.reads

    def offers(self, capability: Callable) -> bool:
        """What the source offers."""
        return self.source.offers(capability)

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse what the source refuses."""
        self.source.check(num_levels, score)

    def spanning(self, num_updates: int) -> "Lifetimes":
        """The same, with the source's schedules."""
        return replace(self, source=self.source.spanning(num_updates))

    def buffer(self, state: PyTree) -> Any:
        """The source's."""
        return self.source.buffer(state)

    def init(self, key: Key, memory: PyTree) -> PyTree:
        """The source's."""
        return self.source.init(key, memory)

    def example_level(self) -> Task:
        """The source's blank level, with the longest lifetime."""
        return Task(self.source.example_level(), jnp.int32(self.bounds[1]))

    def level_info(self) -> PyTree:
        """The source's."""
        return self.source.level_info()

    def propose(
        self, keys: Keys, state: PyTree, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Levels of the source, and new lifetimes, for the free slots."""
        before: Task = slots.level
        state, new = self.source.propose(keys, state, _of_source(slots), free)
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
        """The source observes its levels."""
        return self.source.observe(keys, state, _of_source(slots), score, outcome)

    def metrics(self, state: PyTree) -> Metrics:
        """The source's."""
        return self.source.metrics(state)

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Int[Array, "N R"]]:
        """The source's."""
        return self.source.lineage(state, _of_source(slots))

    def trained_updates(self, num_levels: int) -> float:
        """The source's."""
        return self.source.trained_updates(num_levels)

    def replay_probability(self, state: PyTree) -> Float[Array, " K"]:
        """The source's."""
        return self.source.replay_probability(state)

    def _draw(self, key: Key, shape: tuple[int, ...]) -> Int[Array, "N R"]:
        shortest, longest = self.bounds
        if shortest == longest:
            return jnp.full(shape, longest, jnp.int32)
        # Each whole number n gets the interval from n to n + 1 of a log-uniform real number.
        low, high = jnp.log(float(shortest)), jnp.log(longest + 1.0)
        real = jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))
        return jnp.clip(jnp.floor(real).astype(jnp.int32), shortest, longest)


@dataclass(frozen=True)
class TaskEnv(LevelEnv):
    """An environment whose levels are tasks, for samplers and scores that look into levels.

    Everything but the lifetime is the environment's own. Optional abilities that tell levels apart
    or judge them are passed on where the environment has them.
    """

    env: LevelEnv
    lifetime: int = 1  # of the tasks that `sample_level` makes; samplers give their own

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        return self.env.num_actions

    def sample_level(self, key: Key) -> Task:
        """A level of the family, with the one lifetime."""
        return Task(self.env.sample_level(key), jnp.int32(self.lifetime))

    def observation_space(self, params: Task | None = None) -> spaces.Space:
        """The level's."""
        return self.env.observation_space(None if params is None else params.level)

    def reset_env(self, key: Key, params: Task) -> tuple[PyTree, PyTree]:
        """Start of an episode."""
        return self.env.reset_env(key, params.level)

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""], params: Task
    ) -> tuple[PyTree, PyTree, Array, Array, dict]:
        """One step."""
        return self.env.step_env(key, state, action, params.level)

    def is_truncated(self, state: PyTree, params: Task) -> Bool[Array, ""]:
        """At the level's time limit."""
        return self.env.is_truncated(state, params.level)

    def level_hash(self, level: Task) -> UInt32[Array, "2"]:
        """Equal for equal levels with equal lifetimes."""
        mixed = level.lifetime.astype(jnp.uint32) * jnp.uint32(0x9E3779B1)
        return self.env.level_hash(level.level) ^ jnp.stack([mixed, mixed ^ (mixed >> 16)])

    def offers(self, capability: Callable) -> bool:
        """Of the level's capabilities those that make sense of a task."""
        return super().offers(capability) and self.env.offers(capability)

    @property
    def lowest_return(self) -> float:
        """The level's."""
        return self.env.lowest_return

    def solve(self, level: Task) -> Solution:
        """Of the task's level."""
        return self.env.solve(level.level)

    def level_features(self, level: Task) -> dict[str, Array]:
        """Of the task's level."""
        return self.env.level_features(level.level)

    def level_image(self, level: Task) -> np.ndarray:
        """Of the task's level."""
        return self.env.level_image(level.level)


def _of_source(slots: Slots) -> Slots:
    return slots._replace(level=slots.level.level)


def build(env: LevelEnv, shortest: int = 0, longest: int = 0) -> Lifetimes:
    """Fresh levels of the environment's base distribution, each with a lifetime."""
    return Lifetimes(env, Random(env), shortest, longest)


def tiny(env: LevelEnv) -> Lifetimes:
    """The smallest instance, for tests of laws."""
    return Lifetimes(env, Random(env), 2, 5)
