"""Tasks: what a meta-learner's agent lives through, a level and the length of its life."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.levels import hash_of
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree


class Task(NamedTuple):
    """The level of a meta-learner's curriculum; [N, R, ...] in its slots."""

    level: PyTree  # of the environment
    lifetime: Int[Array, "*B"]  # updates for which an agent is trained on it


def plain_level(level: PyTree) -> PyTree:
    """The environment's level, whether or not it is part of a task."""
    return level.level if isinstance(level, Task) else level


@dataclass(frozen=True)
class TaskEnv:
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
        return hash_of(self.env, level.level) ^ jnp.stack([mixed, mixed ^ (mixed >> 16)])

    def __getattr__(self, name: str) -> Any:
        """`solve` and the like, of the task's level."""
        if name not in ("solve", "level_features", "level_image", "lowest_return"):
            raise AttributeError(name)
        own = getattr(self.env, name)
        return (lambda task: own(task.level)) if callable(own) else own
