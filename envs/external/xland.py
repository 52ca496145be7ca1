"""XLand-MiniGrid: worlds with random rules, and MiniGrid tasks (needs the extra `xland`).

    pip install "rlgen[xland]"

In the worlds with rules (`xland/r1-9x9` to `xland/r9-25x25`, named by number of rooms and size) a
level consists of a goal, a set of rules and the random key of a layout. Agents observe neither goal
nor rules and must discover by trial which outcome is rewarded. In the MiniGrid tasks (such as
`xland/door-key-8x8` and `xland/memory-s16`) a level is the random key of a layout. Solving the task
gives reward 1 and ends the episode.

Source: Nikulin et al., 2024, "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in
JAX"; Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld: Modular & Customizable Reinforcement
Learning Environments for Goal-Oriented Tasks". Differs from the package xminigrid in three points.
Rewards do not decrease with time. The layout is part of the level and is not drawn at each reset.
The rulesets are not those of the benchmarks of Nikulin et al. (see `xland_rulesets`).
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
"""Name of the package that must be installed before a level can be played."""
VARIANTS: dict[str, dict] = {task: {"task": task} for task in package.TASKS}
"""Fields of each task, which is a world with rules or a MiniGrid task."""
NUM_KINDS, NUM_COLOURS = 13, 12  # number of kinds and number of colours of a tile
SUITES = {"heldout": (100, 930_001), "heldout-1k": (1000, 930_002)}  # number of levels, and seed


@no_type_check  # JAX also builds it with fields that are not arrays
@struct.dataclass
class Level:
    """One world: its layout and, if it has rules, its ruleset."""

    world: UInt32[Array, "*batch 2"]  # data of the key from which the layout is generated
    ruleset: Ruleset | tuple[()]  # () in MiniGrid tasks, whose rules are fixed
    max_steps_in_episode: Int[Array, "*batch"]


State = PyTree
"""State of an episode, in the format of the package."""


@dataclass(frozen=True)
class XLand(LevelEnv):
    """Family of the levels of one task.

    Attributes:
        task: Name of the task, a key of `VARIANTS`.
        max_depth: In worlds with rules, the maximum number of chained rules between the initial
            objects and the goal.
        num_distractors: In worlds with rules, the number of objects that the goal does not need.
            These objects are grouped in pairs, and each pair is the input of one rule.
        max_steps: Time limit of an episode in env steps; 0 selects the limit of the task.

    Raises:
        ValueError: The task is unknown or a number is out of its range. Reset, step and render
            raise this error if the package xminigrid is not installed.
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

    # Methods required by gymnax.

    @property
    def name(self) -> str:
        """Name of the task in the package."""
        return package.TASKS[self.task].id

    @property
    def num_actions(self) -> int:
        """Six: forward, two turns, pick up, put down, toggle."""
        return 6

    def observation_space(self, params: Level | None = None) -> spaces.Box:
        """Kind and colour of each tile in a square view ahead of the agent.

        Walls do not hide the tiles behind them.
        """
        view = package.TASKS[self.task].view
        return spaces.Box(0, NUM_KINDS - 1, (view, view, 2), jnp.uint8)

    def reset_env(self, key: Key, params: Level) -> tuple[UInt8[Array, "V V 2"], State]:
        """Start an episode on a level; deterministic."""
        return package.begin(self.task, params.world, params.ruleset)

    def step_env(
        self, key: Key, state: State, action: Int[Array, ""] | int | float, params: Level
    ) -> tuple[UInt8[Array, "V V 2"], State, Float[Array, ""], Bool[Array, ""], dict]:
        """One step: `(obs, state, reward, terminated, info)`."""
        step = package.step(self.task, state, jnp.asarray(action, jnp.int32))
        return step.obs, step.state, step.solved.astype(jnp.float32), step.is_over, {}

    def is_truncated(self, state: State, params: Level) -> Bool[Array, ""]:
        """True at the time limit of the level."""
        return state.step_num >= params.max_steps_in_episode

    # Methods of a level family.

    def sample_level(self, key: Key) -> Level:
        """Sample a layout and, in worlds with rules, a goal and rules."""
        key_world, key_rules = jax.random.split(key)
        ruleset = ()
        if self.task in package.RULED:
            ruleset = sample_ruleset(key_rules, self.max_depth, self.num_distractors)
        limit = self.max_steps or package.TASKS[self.task].max_steps
        return Level(jax.random.key_data(key_world), ruleset, jnp.int32(limit))

    def unpack(self, obs: UInt8[Array, "*B V V 2"]) -> dict[str, Float[Array, "*B V V 25"]]:
        """Return `image`, which contains kind and colour of each tile as one-hot vectors."""
        kind = jax.nn.one_hot(obs[..., 0], NUM_KINDS, dtype=jnp.float32)
        colour = jax.nn.one_hot(obs[..., 1], NUM_COLOURS, dtype=jnp.float32)
        return {"image": jnp.concatenate([kind, colour], axis=-1)}

    def success(
        self, episode_return: Float[Array, "..."], terminated: Bool[Array, "..."]
    ) -> Bool[Array, "..."]:
        """True if the return is positive; in memory tasks a wrong choice has return 0."""
        return episode_return > 0

    def position(self, state: State, level: Level) -> Int[Array, ""]:
        """Cell of the agent, counted row by row."""
        y, x = state.agent.position
        return y * package.TASKS[self.task].width + x

    def num_positions(self) -> int:
        """Number of cells of the grid, walls included."""
        task = package.TASKS[self.task]
        return task.height * task.width

    def level_features(self, level: Level) -> dict[str, Int[Array, "*batch"]]:
        """Numbers of rules and objects, and kind of goal; `{}` for MiniGrid tasks."""
        if not level.ruleset:
            return {}
        # Rows of zeros are padding.
        rules, tiles = level.ruleset.rules, level.ruleset.tiles
        return {
            "num_rules": (rules[..., 0] > 0).sum(-1),
            "num_objects": (tiles[..., 0] > 0).sum(-1),
            "goal": level.ruleset.goal[..., 0].astype(jnp.int32),
        }

    def render(self, level: Level, state: State) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of the grid with the agent's view highlighted, drawn on the host."""
        return np.asarray(package.paint(self.task, state), np.uint8)

    def level_image(self, level: Level) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of the start of a level, drawn on the host."""
        return self.render(level, jax.jit(self.reset_env)(jax.random.key(0), level)[1])

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Suites of this task: `heldout` (100 levels) and `heldout-1k`, each from a fixed seed."""
        return {name: functools.partial(_suite, self, name) for name in SUITES}

    def ladder(self) -> dict[str, DistributionShift]:
        """Shifts for worlds with rules: the next larger size, and longer chains of rules."""
        rooms = self.task.split("-")[0]
        larger = [task for task in package.RULED if task.split("-")[0] == rooms]
        larger = larger[larger.index(self.task) + 1 :][:1] if self.task in larger else []
        found = {
            task: DistributionShift("V2", f"of the task {task}", fields={"task": task})
            for task in larger
        }
        if self.task in package.RULED and self.max_depth < MAX_DEPTH:
            deeper = {"max_depth": self.max_depth + 1}
            found["deeper"] = DistributionShift("V3", "with longer chains of rules", fields=deeper)
        return found


def build(**fields) -> XLand:
    """Build the environment with the given fields."""
    return XLand(**fields)


def tiny() -> XLand:
    """Return an instance with one room, rules and short episodes, for the tests in `tests/laws`."""
    return XLand(num_distractors=0, max_steps=16)


def _suite(env: XLand, name: str) -> Suite:
    num, seed = SUITES[name]
    keys = jax.random.split(jax.random.key(seed), num)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    return Suite(f"xland/{name}", env, make_level_set(env, levels))
