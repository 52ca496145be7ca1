"""Key room: in a room lies a key, and a smaller locked room with the goal in it.

Moves right, down, left and up, as the map lies; interact picks up the key of the agent's cell and
opens the locked door beside it. The agent sees the 7x7 cells around it, what happened last, and
whether it holds the key. Reaching the goal pays 1 and ends the episode.

What happens is of the same use on every level, and where it happens is not: bonuses for new events
may remember all episodes, those for new positions only the present one.

Source: the KeyRoom task of Samvelyan et al., 2021, "MiniHack the Planet". The size of the inner
room and the time limit of the 10 x 10 room are rlgen's own, as they are not published.
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
from rlgen.envs.rooms.rock_generator import at, pick
from rlgen.levels import DistributionShift
from rlgen.types import Key

__all__ = ["VARIANTS", "KeyRoom", "Level", "PackedObs", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "s5": {"size": 7, "inner": 2},
    "s10": {},
    "s15": {"size": 15, "inner": 5, "max_steps": 400},
}
"""By the size of the room; `s5` has 7 cells a side, so that the inner room's walls find place."""


@dataclass(frozen=True)
class KeyRoom(RoomsFamily):
    """Rooms with a locked room inside.

    Attributes:
        size: cells a side of the room; what is around it is wall.
        inner: cells a side of the inner room, without its walls, which lie inside the room, too.
        max_steps: time limit.

    Raises:
        ValueError: a field outside its range; the message says what is allowed.
    """

    size: int = 10
    inner: int = 3
    max_steps: int = 200

    def __post_init__(self):
        self.check_options()
        check_ranges(
            self,
            ("size", 4, MAX_SIDE),
            ("inner", 1, self.size - 3),  # its walls, and a way past at least one of two
            ("max_steps", 1, 10**6),
        )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid."""
        return self.size, self.size

    def sample_level(self, key: Key) -> Level:
        """The inner room, its door, goal, key and agent anywhere where they can be."""
        draws = jax.random.uniform(key, (5, self.size, self.size))
        box = self.inner + 2
        corner = jnp.floor(draws[4, 0, :2] * (self.size - box + 1)).astype(jnp.int32)
        across, along = (_span(self.size, at, box) for at in corner)
        covered = along.all[:, None] & across.all[None]
        inside = along.inner[:, None] & across.inner[None]
        # A door is where a wall has the inner room on one side and the outer one on the other.
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
        """`test` is of the environment's own fields; `large` has MiniHack's largest room."""
        members = {"test": self, "large": replace(self, **VARIANTS["s15"])}
        return suites.suites("keyroom", members)

    def ladder(self) -> dict[str, DistributionShift]:
        """A larger room; see `rlgen.evaluation.ladder.ladder`."""
        return (
            {"large": DistributionShift("V2", "of the largest room", "large")}
            if self.size < 15
            else {}
        )


def build(**fields) -> KeyRoom:
    """The environment with the given fields."""
    return KeyRoom(**fields)


def tiny() -> KeyRoom:
    """A small room, for tests of laws."""
    return KeyRoom(size=5, inner=1, max_steps=24)


class _Span(NamedTuple):
    """Where the inner room lies along an axis, [size]."""

    all: Bool[Array, " S"]  # its walls included
    inner: Bool[Array, " S"]
    free_end: Bool[Array, " S"]  # its walls at either end, but where they touch the outer wall


def _span(size: int, first: Int[Array, ""], box: int) -> _Span:
    place, last = jnp.arange(size), first + box - 1
    free_end = ((place == first) & (first > 0)) | ((place == last) & (last < size - 1))
    return _Span((place >= first) & (place <= last), (place > first) & (place < last), free_end)
