"""Rho rooms: one room with obstacles; a parameter sets how often levels share their goal.

The actions are right, down, left, up and interact. The first four move the agent in the fixed
directions of the grid, and interact has no effect in this family. The agent starts in the upper
left corner and observes the 7x7 cells around it, but not its own position. With probability
`sharing`, the goal is in the opposite corner; otherwise the goal is in a random cell. If the agent
reaches the goal, the episode ends with reward 1.

Two parameters, `sharing` and `coverage`, determine which exploration bonuses can work. If levels
often share their goal, novelty on one level is also informative on other levels, so bonuses from
visit counts over all episodes work. If the time limit lets one episode cover the room, bonuses from
visit counts within the episode work.

Source: rlgen's own, after the analysis of Henaff et al., 2023, "A Study of Global and Episodic
Bonuses for Exploration in Contextual MDPs".
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from rlgen.envs.checks import check_choices, check_ranges
from rlgen.envs.grid.rows import nothing, pack
from rlgen.envs.rooms import suites, wall_generator
from rlgen.envs.rooms.base import RoomsFamily
from rlgen.envs.rooms.level import Level, State
from rlgen.envs.rooms.observation import PackedObs
from rlgen.levels import DistributionShift, Suite, make_level_set
from rlgen.types import Key

__all__ = ["VARIANTS", "Level", "PackedObs", "RhoRooms", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "shared": {"sharing": 1.0},
    "unshared": {},
    "shared-short": {"sharing": 1.0, "coverage": 0.25},
    "unshared-short": {"coverage": 0.25},
    "fresh": {"layout": "fresh"},
}
"""Variants at the extremes of the family. In variants with `short` in their name, an episode is too
short to cover the room."""


@dataclass(frozen=True)
class RhoRooms(RoomsFamily):
    """Family of rooms with obstacles and a goal.

    Attributes:
        size: Number of cells per side of the room; everything around it is wall.
        layout: Layout of the obstacles: `fixed` is identical on all levels, `fresh` is random on
            each level.
        sharing: Probability that the goal is in the corner opposite the start. Otherwise the goal
            is in a uniformly random cell.
        coverage: Time limit as a multiple of the number of free cells.
        occlusion: If True, walls hide the cells behind them.

    Raises:
        ValueError: A field is out of range; the message states the allowed range.
    """

    size: int = 19
    layout: Literal["fixed", "fresh"] = "fixed"
    sharing: float = 0.0
    coverage: float = 1.0

    suite_fields = ("size", "coverage")
    doors_closed = False  # the family has no doors

    def __post_init__(self):
        self.check_options()
        check_choices(self, layout=("fixed", "fresh"))
        check_ranges(
            self,
            ("size", 3, 32),
            ("sharing", 0.0, 1.0),
            ("coverage", 0.1, 1000.0),
        )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid, in cells."""
        return self.size, self.size

    def sample_level(self, key: Key) -> Level:
        """Sample obstacles and a goal.

        With probability `sharing`, the goal is in the corner opposite the start. Otherwise the goal
        is in any free cell except the start.
        """
        key_layout, key_goal = jax.random.split(key)
        if self.layout == "fresh":
            walls = wall_generator.fresh_layout(key_layout, self.size)
        else:
            walls = jnp.asarray(wall_generator.fixed_layout(self.size))
        start = jnp.array(wall_generator.start_of(self.size), jnp.int32)
        shared = jnp.array(wall_generator.shared_goal(self.size), jnp.int32)
        # The first row of numbers decides whether the goal is in the shared corner. The other rows
        # hold a score per cell, by which `pick` chooses a cell.
        draws = jax.random.uniform(key_goal, (self.size + 1, self.size))
        anywhere = wall_generator.pick(draws[1:], ~walls & ~wall_generator.at(start, self.size))
        return self._level(walls, jnp.where(draws[0, 0] < self.sharing, shared, anywhere))

    def _level(self, walls: Bool[Array, "G G"], goal: Int[Array, "2"]) -> Level:
        start = jnp.array(wall_generator.start_of(self.size), jnp.int32)
        limit = jnp.round(self.coverage * (~walls).sum()).astype(jnp.int32)
        return Level(
            pack(walls, outside=True),
            nothing(self.size),
            jnp.zeros((0, 2), jnp.int32),
            jnp.int32(0),
            jnp.zeros(0, jnp.int32),
            jnp.zeros((0, 2), jnp.int32),
            start,
            goal,
            jnp.maximum(limit, 1),
            self.size,
            self.size,
        )

    def suites(self) -> dict[str, Callable[[], Suite]]:
        """Return functions that build the suites, by name.

        `all-goals` has one level for each possible goal in the fixed layout, so its levels also
        occur in training. In `fresh`, obstacles and goals are random.
        """
        fresh = replace(self, sharing=0.0, layout="fresh")
        return {
            "all-goals": partial(_all_goals, replace(self, sharing=0.0, layout="fixed")),
            **suites.suites("rho-rooms", {"fresh": fresh}),
        }

    def ladder(self) -> dict[str, DistributionShift]:
        """Levels with other goals or with other walls; see `rlgen.evaluation.ladder.ladder`."""
        found = {}
        if self.sharing > 0:
            found["unshared"] = DistributionShift(
                "V2", "with goals anywhere", fields={"sharing": 0.0}
            )
        if self.layout == "fixed":
            found["fresh"] = DistributionShift("V3", "each with different walls", "fresh")
        return found


def build(**fields) -> RhoRooms:
    """The environment with the given fields."""
    return RhoRooms(**fields)


def tiny() -> RhoRooms:
    """Return a small room, for the tests in `tests/laws`."""
    return RhoRooms(size=4, coverage=1.5)


def _all_goals(env: RhoRooms) -> Suite:
    walls = np.array(wall_generator.fixed_layout(env.size))
    x, y = wall_generator.start_of(env.size)
    free = ~walls
    free[y, x] = False
    goals = np.argwhere(free)[:, ::-1].astype(np.int32)  # x, y
    levels = jax.vmap(partial(env._level, jnp.asarray(walls)))(jnp.asarray(goals))
    names = tuple(f"goal-{x:02d}-{y:02d}" for x, y in goals)
    made = make_level_set(env, levels, names, split="seen", version=suites.VERSION)
    return Suite("rho-rooms/all-goals", env, made)
