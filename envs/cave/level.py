"""Caves as bit masks: the level, and conversion from and to tiles.

Two sets of cells, each packed as a maze's walls are, tell four kinds of tile apart: `blocked`
holds walls and lava, `marked` holds lava and moss. Around the cave lies wall.
"""

from typing import NamedTuple, no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Int, Integer, UInt32

from rlgen.envs.grid.bitboard import interior, pack_lines, unpack_rows, width_of

EMPTY, WALL, LAVA, MOSS = range(4)
KINDS = ("empty", "wall", "lava", "moss")
"""Names of the tiles, by code."""
ANY_DIRECTION = -1
"""The direction of a level in which each episode starts facing one of the four at random."""


@no_type_check  # JAX also builds it with axes or None for arrays: no check of the fields' types
@struct.dataclass
class Level:
    """One cave: all that an episode on it depends on. The gymnax `params` of the environment."""

    blocked: UInt32[Array, "*batch lines words"]  # walls and lava; lines as of a maze
    marked: UInt32[Array, "*batch lines words"]  # lava and moss
    start: Int[Array, "*batch 2"]  # x, y of the agent
    direction: Int[Array, "*batch"]  # of the agent: 0 right, 1 down, 2 left, 3 up, -1 any
    goal: Int[Array, "*batch 2"]  # x, y
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)


class Grid(NamedTuple):
    """A cave as people write it."""

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
    """The level of a grid of tiles; nothing is checked (see `check_levels`).

    Args:
        tiles: EMPTY, WALL, LAVA or MOSS; `tiles[y, x]`, y downwards. Under start and goal they
            become EMPTY.
        start: x, y of the agent.
        goal: x, y.
        max_steps: env steps after which an episode is cut off.
        direction: in which episodes start, as in `Level`.
    """
    tiles = jnp.asarray(tiles)
    start, goal, max_steps, direction = (
        jnp.asarray(x, jnp.int32) for x in (start, goal, max_steps, direction)
    )
    height, width = tiles.shape
    tiles = jnp.where(_at(start, height, width) | _at(goal, height, width), EMPTY, tiles)
    blocked = pack_lines((tiles == WALL) | (tiles == LAVA))
    marked = pack_lines((tiles == LAVA) | (tiles == MOSS), outside=False)
    return Level(blocked, marked, start, direction, goal, max_steps, height)


def to_grid(level: Level) -> Grid:
    """The inverse of `make_level`, but for the time limit and the direction."""
    height, width = size_of(level)
    blocked, marked = (
        unpack_rows(interior(lines, height), width) for lines in (level.blocked, level.marked)
    )
    tiles = jnp.where(blocked, jnp.where(marked, LAVA, WALL), jnp.where(marked, MOSS, EMPTY))
    return Grid(tiles.astype(jnp.int32), level.start, level.goal)


def size_of(level: Level) -> tuple[int, int]:
    """Height and width of a level, or of a batch of them, from its shapes."""
    return level.height, width_of(level.blocked, level.height)


def _at(cell: Int[Array, "2"], height: int, width: int) -> Bool[Array, "H W"]:
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]
    return (column == cell[0]) & (row == cell[1])
