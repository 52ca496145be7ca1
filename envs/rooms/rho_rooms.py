"""Rho rooms: one room with obstacles, in which goals are shared by levels as far as one likes.

Moves right, down, left and up, as the map lies, and one action, interact, without use here. The
agent starts in the first corner and sees the 7x7 cells around it, not where they are. The goal is
in the opposite corner with probability `sharing`, else anywhere. Reaching it pays 1 and ends the
episode.

Two numbers decide which bonuses can work: with much sharing, what was new once is of use on other
levels, and counts over all episodes work; with a time limit that lets one episode cover the room,
counts within the episode do.

Source: rlgen's own, after the analysis of Henaff et al., 2023, "A Study of Global and Episodic
Bonuses for Exploration in Contextual MDPs".
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax
import jax.numpy as jnp

from rlgen.envs.checks import check_choices, check_ranges
from rlgen.envs.grid.rows import nothing, pack
from rlgen.envs.rooms import rock_generator, suites
from rlgen.envs.rooms.base import RoomsFamily
from rlgen.envs.rooms.level import Level, State
from rlgen.envs.rooms.observation import PackedObs
from rlgen.levels import DistributionShift
from rlgen.types import Key

__all__ = ["VARIANTS", "Level", "PackedObs", "RhoRooms", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "shared": {"sharing": 1.0},
    "unshared": {},
    "shared-short": {"sharing": 1.0, "coverage": 0.25},
    "unshared-short": {"coverage": 0.25},
    "fresh": {"layout": "fresh"},
}
"""The ends of the family; `short` is for time limits that do not let an episode cover the room."""


@dataclass(frozen=True)
class RhoRooms(RoomsFamily):
    """Goals in a room with obstacles.

    Attributes:
        size: cells a side of the room; what is around it is wall.
        layout: of the obstacles: `fixed`, the same on all levels, or `fresh`, another on each.
        sharing: probability of the goal to be in the corner opposite the start, else uniform.
        coverage: time limit as a multiple of the number of free cells.
        occlusion: whether walls hide what is behind them.

    Raises:
        ValueError: a field outside its range; the message says what is allowed.
    """

    size: int = 19
    layout: Literal["fixed", "fresh"] = "fixed"
    sharing: float = 0.0
    coverage: float = 1.0

    doors_closed = False  # there is none

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
        """Height and width of the grid."""
        return self.size, self.size

    def sample_level(self, key: Key) -> Level:
        """The goal in its corner or anywhere but at the start, and obstacles, fixed or fresh."""
        key_layout, key_goal = jax.random.split(key)
        if self.layout == "fresh":
            rock = rock_generator.fresh_layout(key_layout, self.size)
        else:
            rock = jnp.asarray(rock_generator.fixed_layout(self.size))
        start = jnp.array(rock_generator.start_of(self.size), jnp.int32)
        shared = jnp.array(rock_generator.shared_goal(self.size), jnp.int32)
        draws = jax.random.uniform(key_goal, (self.size + 1, self.size))
        anywhere = rock_generator.pick(draws[1:], ~rock & ~rock_generator.at(start, self.size))
        goal = jnp.where(draws[0, 0] < self.sharing, shared, anywhere)
        limit = jnp.round(self.coverage * (~rock).sum()).astype(jnp.int32)
        return Level(
            pack(rock, outside=True),
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

    def suites(self) -> dict:
        """`test` is of the environment's own fields; the others share no goal, or no obstacle."""
        members = {
            "test": self,
            "unshared": replace(self, sharing=0.0),
            "fresh": replace(self, sharing=0.0, layout="fresh"),
        }
        return suites.suites("rho-rooms", members)

    def ladder(self) -> dict[str, DistributionShift]:
        """Other places of the goal, and other rooms; see `rlgen.evaluation.ladder.ladder`."""
        found = {}
        if self.sharing > 0:
            found["unshared"] = DistributionShift(
                "V2", "that share nothing", fields={"sharing": 0.0}
            )
        if self.layout == "fixed":
            found["fresh"] = DistributionShift("V3", "with walls of their own", "fresh")
        return found


def build(**fields) -> RhoRooms:
    """The environment with the given fields."""
    return RhoRooms(**fields)


def tiny() -> RhoRooms:
    """A small room, for tests of laws."""
    return RhoRooms(size=4, coverage=1.5)
