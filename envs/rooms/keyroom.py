"""Key room: a room with a key and a smaller locked room that contains the goal.

The actions are right, down, left, up and interact. The first four move the agent in the fixed
directions of the grid. Interact picks up the key in the agent's cell. If the agent holds the key
and is next to the locked door, interact opens the door. The agent observes the 7x7 cells around it,
the event of the last step, such as bumping into a wall, and whether it holds the key. Reaching the
goal gives reward 1 and ends the episode.

An event, such as picking up the key, is equally useful for reaching the goal on every level.
Bonuses for new events can therefore use visit counts over all episodes. The usefulness of a
position differs between levels. Bonuses for new positions should therefore use visit counts within
one episode.

Source: the KeyRoom task of Samvelyan et al., 2021, "MiniHack the Planet". The time limit of
the variant `s10` and the size of the inner room are not published, so rlgen uses its own values.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.envs.checks import check_ranges
from rlgen.envs.grid.rows import MAX_SIDE, nothing, pack
from rlgen.envs.rooms import suites
from rlgen.envs.rooms.base import RoomsFamily
from rlgen.envs.rooms.level import Level, State
from rlgen.envs.rooms.observation import PackedObs
from rlgen.envs.rooms.wall_generator import at, pick
from rlgen.levels import DistributionShift
from rlgen.types import Key

__all__ = ["VARIANTS", "KeyRoom", "Level", "PackedObs", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "s5": {"size": 7, "inner": 2},
    "s10": {},
    "s15": {"size": 15, "inner": 5, "max_steps": 400},
}
"""Variants, named by the number of cells per side of the room. Only `s5` differs from its name: it
has side 7, so that the walls of the inner room fit."""


@dataclass(frozen=True)
class KeyRoom(RoomsFamily):
    """Family of rooms with a locked inner room.

    Attributes:
        size: Number of cells per side of the room; everything around it is wall.
        inner: Number of cells per side of the inner room, without its walls. The walls of the inner
            room also lie inside the outer room.
        max_steps: Time limit, in steps.

    Raises:
        ValueError: A field is out of range; the message states the allowed range.
    """

    size: int = 10
    inner: int = 3
    max_steps: int = 200

    suite_fields = ("size", "inner", "max_steps")

    def __post_init__(self):
        self.check_options()
        check_ranges(
            self,
            ("size", 4, MAX_SIDE),
            ("inner", 1, self.size - 3),  # leaves space for two walls and a path past one
            ("max_steps", 1, 10**6),
        )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid, in cells."""
        return self.size, self.size

    def sample_level(self, key: Key) -> Level:
        """Sample inner room, door, goal, key and agent, each at a uniformly distributed place."""
        # Five grids of random numbers. The first four hold scores of all cells, by which `pick`
        # chooses the cells of door, goal, agent and key. Two numbers of the last grid give the
        # corner of the inner room.
        draws = jax.random.uniform(key, (5, self.size, self.size))
        box = self.inner + 2
        corner = jnp.floor(draws[4, 0, :2] * (self.size - box + 1)).astype(jnp.int32)
        across, along = (_span(self.size, at, box) for at in corner)
        covered = along.all[:, None] & across.all[None]
        inside = along.inner[:, None] & across.inner[None]
        # The door is in a wall between the inner room and the outer room.
        sides = (along.free_end[:, None] & across.inner[None]) | (
            along.inner[:, None] & across.free_end[None]
        )
        door, goal = pick(draws[0], sides), pick(draws[1], inside)
        agent = pick(draws[2], ~covered)
        item = pick(draws[3], ~covered & ~at(agent, self.size))
        walls = covered & ~inside & ~at(door, self.size)
        return Level(
            pack(walls, outside=True),
            nothing(self.size),
            door[None],
            jnp.int32(0),
            jnp.ones(1, jnp.int32),
            item[None],
            agent,
            goal,
            jnp.int32(self.max_steps),
            self.size,
            self.size,
        )

    def suites(self) -> dict:
        """Return functions that build the suites, by name.

        `test` has this environment's fields, and `large` has MiniHack's largest room.
        """
        members = {"test": self, "large": replace(self, **VARIANTS["s15"])}
        return suites.suites("keyroom", members)

    def ladder(self) -> dict[str, DistributionShift]:
        """Levels with a larger room; see `rlgen.evaluation.ladder.ladder`."""
        return (
            {"large": DistributionShift("V2", "with the largest room", "large")}
            if self.size < 15
            else {}
        )


def build(**fields) -> KeyRoom:
    """The environment with the given fields."""
    return KeyRoom(**fields)


def tiny() -> KeyRoom:
    """Return a small room, for the tests in `tests/laws`."""
    return KeyRoom(size=5, inner=1, max_steps=24)


class _Span(NamedTuple):
    """Masks of the inner room's extent along one axis, [size]."""

    all: Bool[Array, " S"]  # with the walls of the inner room
    inner: Bool[Array, " S"]
    free_end: Bool[Array, " S"]  # the end walls that do not touch the outer wall


def _span(size: int, first: Int[Array, ""], box: int) -> _Span:
    place, last = jnp.arange(size), first + box - 1
    free_end = ((place == first) & (first > 0)) | ((place == last) & (last < size - 1))
    return _Span((place >= first) & (place <= last), (place > first) & (place < last), free_end)
