"""Caves as bit masks: the level type and its conversion from and to tiles.

Two sets of cells encode the four kinds of tile: `blocked` holds wall and lava, `marked` holds lava
and moss. Each set is packed like the walls of a maze (see `rlgen.envs.grid.bitboard`). A margin of
wall cells surrounds the cave.
"""

from typing import NamedTuple, no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Int, Integer, UInt32

from rlgen.envs.grid.bitboard import interior, pack_lines, unpack_rows, width_of

EMPTY, WALL, LAVA, MOSS = range(4)
KINDS = ("empty", "wall", "lava", "moss")
"""Name of each tile, indexed by code."""
ANY_DIRECTION = -1
"""Value of `Level.direction` if each episode draws its start direction uniformly."""


@no_type_check  # JAX also builds it with axes or None as fields, so field types are not checked
@struct.dataclass
class Level:
    """One cave, with all data that an episode depends on; the gymnax `params` of `Cave`."""

    blocked: UInt32[Array, "*batch lines words"]  # wall and lava; lines as in `bitboard.Level`
    marked: UInt32[Array, "*batch lines words"]  # lava and moss
    start: Int[Array, "*batch 2"]  # x, y of the agent
    direction: Int[Array, "*batch"]  # start direction: 0 right, 1 down, 2 left, 3 up, -1 random
    goal: Int[Array, "*batch 2"]  # x, y
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)


class Grid(NamedTuple):
    """A cave as an array of tiles."""

    tiles: Int[Array, "H W"]  # EMPTY, WALL, LAVA or MOSS
    start: Int[Array, "2"]  # x, y
    goal: Int[Array, "2"]  # x, y


def make_level(
    tiles: Integer[ArrayLike, "H W"],
    start: Integer[ArrayLike, "2"] | tuple[int, int],
    goal: Integer[ArrayLike, "2"] | tuple[int, int],
    max_steps: Int[ArrayLike, ""] = 250,
    direction: Int[ArrayLike, ""] = ANY_DIRECTION,
) -> Level:
    """Build a level from a grid of tiles, without checks (see `check_levels`).

    Args:
        tiles: EMPTY, WALL, LAVA or MOSS, indexed `tiles[y, x]` with y downwards. The tiles at start
            and goal become EMPTY.
        start: x, y of the agent.
        goal: x, y of the goal.
        max_steps: Env steps after which an episode is truncated.
        direction: Start direction, as in `Level`.
    """
    tiles = jnp.asarray(tiles)
    start, goal, max_steps, direction = (
        jnp.asarray(x, jnp.int32) for x in (start, goal, max_steps, direction)
    )
    height, width = tiles.shape
    tiles = jnp.where(_at(start, height, width) | _at(goal, height, width), EMPTY, tiles)
    blocked = pack_lines((tiles == WALL) | (tiles == LAVA))
    # The margin is wall and not lava, so it is blocked but not marked.
    marked = pack_lines((tiles == LAVA) | (tiles == MOSS), outside=False)
    return Level(blocked, marked, start, direction, goal, max_steps, height)


def to_grid(level: Level) -> Grid:
    """Convert a level back to tiles, start and goal; time limit and direction are left out."""
    height, width = size_of(level)
    blocked, marked = (
        unpack_rows(interior(lines, height), width) for lines in (level.blocked, level.marked)
    )
    tiles = jnp.where(blocked, jnp.where(marked, LAVA, WALL), jnp.where(marked, MOSS, EMPTY))
    return Grid(tiles.astype(jnp.int32), level.start, level.goal)


def size_of(level: Level) -> tuple[int, int]:
    """Return the height and width of a level, or of the levels of a batch."""
    return level.height, width_of(level.blocked, level.height)


def _at(cell: Int[Array, "2"], height: int, width: int) -> Bool[Array, "H W"]:
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
    return (column == cell[0]) & (row == cell[1])
