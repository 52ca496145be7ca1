"""Key corridor: fetch a ball from behind a locked door, whose key is on the opposite side.

A corridor runs between rooms on its left and right. The ball lies in a random room on the right,
behind the only locked door. The key of this door lies in a random room on the left. If the agent
picks up the ball, the episode ends with reward 1. The agent can pick up the ball only with empty
hands, so it has to drop the key first. The time limit is 30 times the square of `room_size`. The
time limit truncates the episode and never sets `terminated`.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", `MiniGrid-KeyCorridor`, with the
rules and the distribution of levels of MiniGrid. Differs from MiniGrid in three points. A level is
an argument of the environment's functions, the gymnax `params`. The observation is packed into 49
bytes, which `unpack` expands. The reward decreases with time only if `penalize_time` is set. In
Navix, by contrast, episodes of the key corridor end at a goal cell.
"""

from dataclasses import dataclass

from jaxtyping import Array, Float

from rlgen import levels as level_sets
from rlgen.envs.checks import check_ranges
from rlgen.envs.minigrid import corridor_generator, solver
from rlgen.envs.minigrid.base import MiniGridFamily
from rlgen.envs.minigrid.level import EVENTS, LONGEST, NOWHERE, Level, State
from rlgen.envs.minigrid.view import PackedObs
from rlgen.types import Solution

__all__ = ["EVENTS", "VARIANTS", "KeyCorridor", "Level", "PackedObs", "State", "build", "tiny"]

VARIANTS: dict[str, dict] = {
    f"s{size}r{rows}": {"room_size": size, "num_rows": rows}
    for size, rows in ((3, 1), (3, 2), (3, 3), (4, 3), (5, 3), (6, 3))
}
"""Fields of MiniGrid's key corridors, by variant."""


@dataclass(frozen=True)
class KeyCorridor(MiniGridFamily):
    """Family of key corridors of a fixed size. Equal instances share compiled functions.

    Attributes:
        room_size: Number of cells per side of a room, including the walls shared with neighbours.
        num_rows: Number of rooms on each side of the corridor.

    Raises:
        ValueError: A size is out of range, or the encoding is unknown.
    """

    room_size: int = 6
    num_rows: int = 3

    family = "key-corridor"
    variants = VARIANTS
    held_out = ("s3r3", "s4r3", "s5r3", "s6r3")

    def __post_init__(self):
        check_ranges(self, ("room_size", 3, (LONGEST - 1) // 3 + 1))
        most = (LONGEST - 1) // (self.room_size - 1)
        if not 1 <= self.num_rows <= min(most, 8):
            raise ValueError(
                f"KeyCorridor: num_rows={self.num_rows} is not in 1 .. {min(most, 8)}, the range "
                f"for room_size={self.room_size}; MiniGrid uses 1 .. 3"
            )
        super().__post_init__()

    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """Build a level from `num_draws()` numbers in [0, 1)."""
        limit = 30 * self.room_size**2
        return corridor_generator.level_of(uniform, self.room_size, self.num_rows, limit)

    def num_draws(self) -> int:
        """Number of uniform numbers that a level needs."""
        return corridor_generator.num_draws(self.num_rows)

    def solve(self, level: Level) -> Solution:
        """Compute the optimal solution, by an exact search.

        The result holds the length of the shortest solution and the return of this solution within
        the time limit.
        """
        return solver.solve(level, self.penalize_time)

    def num_positions(self) -> int:
        """Number of cells of the world, walls included."""
        return corridor_generator.plan(self.room_size, self.num_rows).walls.size

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level."""
        return {
            "optimal_steps": self.solve(level).steps,
            "num_doors": (level.door_cell != NOWHERE).sum(),
            # `object_cell` lists the key, then the ball; 32 is the stride of cell numbers.
            "key_row": level.object_cell[0] // 32 // (self.room_size - 1),
            "ball_row": level.object_cell[1] // 32 // (self.room_size - 1),
        }

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Corridors with rooms of other sizes; see `rlgen.evaluation.ladder.ladder`."""
        others = [size for size in (3, 4, 5, 6) if size != self.room_size]
        about = "with rooms of {} cells per side"
        return {
            f"s{n}r3": level_sets.DistributionShift("V2", about.format(n), f"s{n}r3")
            for n in others
        }


def build(**fields) -> KeyCorridor:
    """The environment with the given fields."""
    return KeyCorridor(**fields)


def tiny() -> KeyCorridor:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return KeyCorridor(room_size=3, num_rows=1)
