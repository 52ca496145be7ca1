"""Obstructed maze: fetch the blue ball from one of the rooms behind locked doors.

A locked door opens with the key of its colour. The key lies in the room in front of the door. In
variants with an `h` in their name, each key is hidden in a box. In variants with a `b`, a ball lies
in front of each locked door. The variants `1q`, `2q` and `full` have hidden keys and blocking
balls. The agent carries one object at a time. If the agent picks up the blue ball, the episode ends
with reward 1. The time limit truncates the episode and never sets `terminated`.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld", `MiniGrid-ObstructedMaze`, with the
rules and the distribution of levels of version 1, where keys are placed after the balls. Differs
from MiniGrid in three points. A level is an argument of the environment's functions, the gymnax
`params`. The observation is packed into 49 bytes, which `unpack` expands. The reward decreases with
time only if `penalize_time` is set.
"""

from dataclasses import dataclass

from jaxtyping import Array, Float

from rlgen import levels as level_sets
from rlgen.envs.checks import check_choices
from rlgen.envs.minigrid import obstructed_generator
from rlgen.envs.minigrid.base import MiniGridFamily
from rlgen.envs.minigrid.level import EVENTS, Level, State
from rlgen.envs.minigrid.obstructed_generator import ROOM_SIZE, nine_rooms, two_rooms
from rlgen.envs.minigrid.view import PackedObs

__all__ = ["EVENTS", "VARIANTS", "Level", "ObstructedMaze", "PackedObs", "State", "build", "tiny"]

_SIDE, _CENTRE = (2, 1), (1, 1)
_KINDS = {
    # Each kind has a plan and a number n; its time limit is 4 n ROOM_SIZE² steps.
    "1dl": (two_rooms(hidden=False, blocked=False), 2),
    "1dlh": (two_rooms(hidden=True, blocked=False), 2),
    "1dlhb": (two_rooms(hidden=True, blocked=True), 2),
    "2dl": (nine_rooms(1, _SIDE, hidden=False, blocked=False), 4),
    "2dlh": (nine_rooms(1, _SIDE, hidden=True, blocked=False), 4),
    "2dlhb": (nine_rooms(1, _SIDE, hidden=True, blocked=True), 4),
    "1q": (nine_rooms(1, _CENTRE, hidden=True, blocked=True), 5),
    "2q": (nine_rooms(2, _SIDE, hidden=True, blocked=True), 11),
    "full": (nine_rooms(4, _CENTRE, hidden=True, blocked=True), 25),
}
VARIANTS: dict[str, dict] = {name: {"kind": name} for name in _KINDS}
"""Kinds by name. In a name, `dl` stands for locked doors, `h` for hidden keys, `b` for blocked
doors and `q` for open quarters."""


@dataclass(frozen=True)
class ObstructedMaze(MiniGridFamily):
    """Family of obstructed mazes of one kind. Equal instances share compiled functions.

    Attributes:
        kind: Name of a variant, from `1dl` (two rooms) to `full` (nine rooms).

    Raises:
        ValueError: The kind or the encoding is unknown.
    """

    kind: str = "full"

    family = "obstructed-maze"
    variants = VARIANTS
    held_out = ("1dlhb", "2dlhb", "2q", "full")

    def __post_init__(self):
        check_choices(self, kind=tuple(_KINDS))
        super().__post_init__()

    def level_of(self, uniform: Float[Array, " n"]) -> Level:
        """Build a level from `num_draws()` numbers in [0, 1)."""
        plan, num_rooms = _KINDS[self.kind]
        return obstructed_generator.level_of(uniform, plan, 4 * num_rooms * ROOM_SIZE**2)

    def num_draws(self) -> int:
        """Number of uniform numbers that a level needs."""
        return obstructed_generator.num_draws(_KINDS[self.kind][0])

    def num_positions(self) -> int:
        """Number of cells of the world, walls included."""
        return _KINDS[self.kind][0].walls.size

    def level_features(self, level: Level) -> dict[str, Array]:
        """Scalars that describe a level; distances are in cells and ignore walls."""
        x, y = level.object_cell % 32, level.object_cell // 32
        num_locks = len(_KINDS[self.kind][0].locks)
        # Objects are the target, then the keys or their boxes, then the balls.
        far = abs(x - level.start[0]) + abs(y - level.start[1])
        return {"target_distance": far[0], "nearest_key": far[1 : 1 + num_locks].min()}

    def ladder(self) -> dict[str, level_sets.DistributionShift]:
        """Mazes of other kinds; see `rlgen.evaluation.ladder.ladder`."""
        others = [kind for kind in self.held_out if kind != self.kind]
        return {
            kind: level_sets.DistributionShift("V3", f"of the kind {kind}", kind) for kind in others
        }


def build(**fields) -> ObstructedMaze:
    """The environment with the given fields."""
    return ObstructedMaze(**fields)


def tiny() -> ObstructedMaze:
    """Return the smallest kind with boxes and blocking balls, for the tests in `tests/laws`."""
    return ObstructedMaze("1dlhb")
