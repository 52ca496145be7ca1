"""XLand-MiniGrid: worlds with rules of their own, and MiniGrid tasks (needs the extra `xland`).

    pip install "rlgen[xland]"

In the ruled worlds (`xland/r1-9x9` to `xland/r9-25x25`: the number of rooms and the size) a level
is a set of goal and rules and the key of a layout. Agents see neither goal nor rules: what pays has
to be found out. In MiniGrid's tasks (`xland/door-key-8x8`, `xland/memory-s16`) a level is the key
of a layout. Success pays 1 and ends the episode.

Source: Nikulin et al., 2024, "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in
JAX"; Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld: Modular & Customizable Reinforcement
Learning Environments for Goal-Oriented Tasks". Differs from the package in the rewards, which do
not shrink with time, in that the layout is the level's and not drawn at each reset, and in the
rulesets, which are none of the published benchmarks (see `xland_rulesets`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from rlgen import registry
from rlgen.envs.checks import check_ranges
from rlgen.envs.external import xland_adapter as package
from rlgen.envs.external.xland_rulesets import MAX_DEPTH, MAX_DISTRACTORS, Ruleset, sample_ruleset
from rlgen.levels import DistributionShift, Suite, make_level_set
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

__all__ = ["EXTRA", "VARIANTS", "Level", "Ruleset", "State", "XLand", "build", "tiny"]

EXTRA = package.EXTRA
"""The package that has to be installed before anything can be played."""
VARIANTS: dict[str, dict] = {task: {"task": task} for task in package.TASKS}
"""Worlds with rules and MiniGrid's tasks."""
NUM_KINDS, NUM_COLOURS = 13, 12  # of tiles
SUITES = {"heldout": (100, 930_001), "heldout-1k": (1000, 930_002)}  # levels and seed


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One world."""

    world: UInt32[Array, "*batch 2"]  # the data of the key that its layout grows from
    ruleset: Ruleset | tuple[()]  # () in MiniGrid's tasks, which have one each
    max_steps_in_episode: Int[Array, "*batch"]


State = PyTree
"""A moment of an episode: the package's state."""


@dataclass(frozen=True)
class XLand(LevelEnv):
    """Levels of one task.

    Attributes:
        task: which; a name in `VARIANTS`.
        max_depth: of ruled worlds: the most rules between what lies about and the goal.
        num_distractors: of ruled worlds: objects of no use; every two are the input of a rule.
        max_steps: time limit of an episode; 0 for the task's own.

    Raises:
        ValueError: an unknown task, or a number outside its range; and from reset, step and
            pictures, if the package xminigrid is missing.
    """

    task: str = "r1-9x9"
    max_depth: int = 1
    num_distractors: int = 2
    max_steps: int = 0

    def __post_init__(self):
        if self.task not in package.TASKS:
            hint = registry.did_you_mean(str(self.task), package.TASKS)
            raise ValueError(f"XLand: task={self.task!r} is unknown; {hint}")
        check_ranges(
            self,
            ("max_depth", 0, MAX_DEPTH),
            ("num_distractors", 0, MAX_DISTRACTORS),
            ("max_steps", 0, package.NEVER),
        )

    # What gymnax asks for.

    @property
    def name(self) -> str:
        """Name of the task in the package."""
        return package.TASKS[self.task].id

    @property
    def num_actions(self) -> int:
        """Forward, two turns, pick up, put down, toggle."""
        return 6

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """What lies before the agent, walls or not: kind and colour of each tile."""
        view = package.TASKS[self.task].view
        return spaces.Box(0, NUM_KINDS - 1, (view, view, 2), jnp.uint8)

    def reset_env(self, key: Key, params: Level) -> tuple[UInt8[Array, "V V 2"], State]:
        """The start of the level, the same each time."""
        return package.begin(self.task, params.world, params.ruleset)

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[UInt8[Array, "V V 2"], State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        step = package.step(self.task, state, jnp.asarray(action, jnp.int32))
        return step.obs, step.state, step.solved.astype(jnp.float32), step.is_over, {}

    def is_truncated(self, state: State, params: Level) -> Bool[Array, ""]:
        """At the time limit."""
        return state.step_num >= params.max_steps_in_episode

    # What makes it a family of levels.

    def sample_level(self, key: Key) -> Level:
        """A layout and, in ruled worlds, goal and rules."""
        key_world, key_rules = jax.random.split(key)
        ruleset = ()
        if self.task in package.RULED:
            ruleset = sample_ruleset(key_rules, self.max_depth, self.num_distractors)
        limit = self.max_steps or package.TASKS[self.task].max_steps
        return Level(jax.random.key_data(key_world), ruleset, jnp.int32(limit))

    def unpack(self, obs: UInt8[Array, "*B V V 2"]) -> dict[str, Float[Array, "*B V V 25"]]:
        """`image`: kinds and colours of tiles, each one-hot."""
        kind = jax.nn.one_hot(obs[..., 0], NUM_KINDS, dtype=jnp.float32)
        colour = jax.nn.one_hot(obs[..., 1], NUM_COLOURS, dtype=jnp.float32)
        return {"image": jnp.concatenate([kind, colour], axis=-1)}

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """An episode is solved when it paid: a wrong choice ends memory tasks, too."""
        return episode_return > 0

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """The cell that the agent is on, row by row."""
        y, x = state.agent.position
        return y * package.TASKS[self.task].width + x

    def num_positions(self) -> int:
        """Cells of the grid, walls included."""
        task = package.TASKS[self.task]
        return task.height * task.width

    def level_features(self, level: Level) -> dict[str, Int[Array, "*batch"]]:
        """Rules and objects of ruled worlds; none of MiniGrid's tasks."""
        if not level.ruleset:
            return {}
        rules, tiles = level.ruleset.rules, level.ruleset.tiles
        return {
            "num_rules": (rules[..., 0] > 0).sum(-1),
            "num_objects": (tiles[..., 0] > 0).sum(-1),
            "goal": level.ruleset.goal[..., 0].astype(jnp.int32),
        }

    def render(self, level: Level, state: State) -> UInt8[np.ndarray, "H W 3"]:
        """The grid, with what the agent sees in brighter colours. On the host."""
        return np.asarray(package.paint(self.task, state), np.uint8)

    def level_image(self, level: Level) -> UInt8[np.ndarray, "H W 3"]:
        """The start of the level. On the host."""
        return self.render(level, jax.jit(self.reset_env)(jax.random.key(0), level)[1])

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """`heldout` and `heldout-1k`: levels of keys of their own, of the same task."""
        return {name: functools.partial(_suite, self, name) for name in SUITES}

    def ladder(self) -> dict[str, DistributionShift]:
        """Of ruled worlds: a larger one, and one of longer chains of rules."""
        rooms = self.task.split("-")[0]
        larger = [task for task in package.RULED if task.split("-")[0] == rooms]
        larger = larger[larger.index(self.task) + 1 :][:1] if self.task in larger else []
        found = {
            task: DistributionShift("V2", f"of the task {task}", fields={"task": task})
            for task in larger
        }
        if self.task in package.RULED and self.max_depth < MAX_DEPTH:
            deeper = {"max_depth": self.max_depth + 1}
            found["deeper"] = DistributionShift("V3", "of longer chains of rules", fields=deeper)
        return found


def build(**fields) -> XLand:
    """The environment with the given fields."""
    return XLand(**fields)


def tiny() -> XLand:
    """A room with rules in short episodes, for tests of laws."""
    return XLand(num_distractors=0, max_steps=16)


def _suite(env: XLand, name: str) -> Suite:
    num, seed = SUITES[name]
    keys = jax.random.split(jax.random.key(seed), num)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    return Suite(f"xland/{name}", env, make_level_set(env, levels))
