"""Rooms: a chain of rooms surrounded by lava or walls; the goal is in the last room.

The actions are right, down, left, up and interact. The first four move the agent in the fixed
directions of the grid, and interact has no effect in this family. The agent observes the 7x7 cells
around it, but not its own position. If the agent reaches the goal, the episode ends with reward 1.
If the agent enters lava, the episode ends without reward. Doors are open, closed or jammed. A
closed door opens when the agent walks into it, which costs a step. A jammed door opens with
probability 1/3 each time that the agent walks into it.

The agent's position on one level carries little information about other levels. Because one episode
can cover a level, bonuses for novelty within the episode suffice to explore the level. If there are
few levels, bonuses from visit counts over all episodes suffice, too.

Source: MultiRoom-N-Lava of Samvelyan et al., 2021, "MiniHack the Planet", after Chevalier-Boisvert
et al., 2023, "Minigrid & Miniworld". Time limits are MiniHack's.
"""

from dataclasses import dataclass, replace
from typing import Literal

import jax.numpy as jnp

from rlgen.envs.checks import check_choices, check_ranges
from rlgen.envs.grid.rows import MAX_SIDE, nothing, pack
from rlgen.envs.rooms import chain_generator, suites
from rlgen.envs.rooms.base import RoomsFamily
from rlgen.envs.rooms.level import Level, State
from rlgen.envs.rooms.observation import PackedObs
from rlgen.levels import DistributionShift
from rlgen.types import Key

__all__ = ["VARIANTS", "Level", "PackedObs", "Rooms", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    "n2": {"num_rooms": 2, "max_room_size": 4},
    "n4": {"num_rooms": 4, "max_room_size": 5},
    "n6": {},
    "n10": {"num_rooms": 10},
    "n6-open": {"doors": "open"},
    "n10-open": {"num_rooms": 10, "doors": "open"},
    "n4-locked": {"num_rooms": 4, "max_room_size": 5, "doors": "locked"},
    "n6-solid": {"walls": "solid"},
    "n6-clock": {"clock": True},
    "n6-noise": {"noise": True},
}
"""Variants, named by the number of rooms and by the fields that differ from their defaults."""

LIMITS = {2: 40, 4: 120, 6: 240, 10: 360}
"""MiniHack's time limits, by number of rooms."""
MAX_ROOMS = 10
CROWDED = 0.8
"""Largest fraction of the grid that all rooms together may cover if they have average size."""


@dataclass(frozen=True)
class Rooms(RoomsFamily):
    """Family of chains of rooms.

    Attributes:
        num_rooms: Number of rooms in the chain.
        max_room_size: Largest side of a room in cells, walls included; the smallest side is 4.
        walls: Surroundings of the rooms: `lava`, which ends the episode when the agent enters it,
            or `solid` walls.
        doors: State of the doors: `open`, `closed` or `locked`. Locked doors are jammed doors,
            and no key opens them.
        size: Number of cells per side of the grid.
        max_steps: Time limit in steps. 0 means MiniHack's limit, or 40 steps per room if MiniHack
            has no task with this number of rooms.

    Raises:
        ValueError: A field is out of range; the message states the allowed range.
    """

    num_rooms: int = 6
    max_room_size: int = 10
    walls: Literal["lava", "solid"] = "lava"
    doors: Literal["open", "closed", "locked"] = "closed"
    size: int = 25
    max_steps: int = 0

    suite_fields = ("num_rooms", "max_room_size", "walls", "doors", "size", "max_steps")

    def __post_init__(self):
        self.check_options()
        least = chain_generator.MIN_ROOM
        check_ranges(
            self,
            ("num_rooms", 2, MAX_ROOMS),
            ("size", 2 * least - 1, MAX_SIDE),
            ("max_room_size", least, self.size - least + 1),
            ("max_steps", 0, 10**6),
        )
        check_choices(self, walls=("lava", "solid"), doors=("open", "closed", "locked"))
        usual = (least + self.max_room_size) / 2
        if self.num_rooms * usual**2 > CROWDED * self.size**2:
            raise ValueError(
                f"Rooms: num_rooms={self.num_rooms} of up to {self.max_room_size} cells per side "
                f"hardly fit into size={self.size}; use fewer or smaller rooms or a larger grid"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the grid, in cells."""
        return self.size, self.size

    @property
    def doors_closed(self) -> bool:
        """True if the doors start shut."""
        return self.doors != "open"

    @property
    def doors_jam(self) -> bool:
        """True if a shut door may stay shut when the agent walks into it."""
        return self.doors == "locked"

    def sample_level(self, key: Key) -> Level:
        """Sample a complete chain of rooms.

        The start is a random cell of the first room, and the goal a random cell of the last room.
        """
        shape = chain_generator.Shape(self.num_rooms, self.max_room_size, self.size)
        chain = chain_generator.sample_chain(key, shape)
        doors = chain.rooms.door[1:]  # the first room has no entry
        floor = chain_generator.floor_of(chain.rooms, self.size)
        row, column = jnp.arange(self.size)[None, :, None], jnp.arange(self.size)[None, None]
        floor |= jnp.any((row == doors[:, 1, None, None]) & (column == doors[:, 0, None, None]), 0)
        around, none = pack(~floor, outside=True), nothing(self.size)
        lava = self.walls == "lava"
        # A jammed door counts as closed, and `step_env` decides whether it opens.
        closed = 2 ** (self.num_rooms - 1) - 1 if self.doors_closed else 0
        return Level(
            none if lava else around,
            around if lava else none,
            doors,
            jnp.int32(closed),
            jnp.zeros(0, jnp.int32),
            jnp.zeros((0, 2), jnp.int32),
            chain.start,
            chain.goal,
            jnp.int32(self.max_steps or LIMITS.get(self.num_rooms, 40 * self.num_rooms)),
            self.size,
            self.size,
        )

    def suites(self) -> dict:
        """Return functions that build the suites, by name.

        `test` has this environment's fields; the levels of the other suites have 4, 6
        and 10 rooms.
        """
        members = {"test": self}
        for name in ("n4", "n6", "n10"):
            shape = {"max_room_size": 10, "size": 25, "max_steps": 0, **VARIANTS[name]}
            members[name] = replace(self, **{"num_rooms": 6, **shape})
        return suites.suites("rooms", members)

    def ladder(self) -> dict[str, DistributionShift]:
        """Levels with more rooms and with open doors; see `rlgen.evaluation.ladder.ladder`."""
        found = {}
        if self.num_rooms < 10 and self.size >= 25:
            found["n10"] = DistributionShift("V2", "of ten rooms", fields={"num_rooms": 10})
        if self.doors == "closed":
            found["open"] = DistributionShift("V3", "without doors", fields={"doors": "open"})
        return found


def build(**fields) -> Rooms:
    """The environment with the given fields."""
    return Rooms(**fields)


def tiny() -> Rooms:
    """Return two small rooms, for the tests in `tests/laws`."""
    return Rooms(num_rooms=2, max_room_size=4, size=9, max_steps=24)
