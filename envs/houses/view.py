"""Level, state and observation of a house: the cells in view and the cells seen so far.

Sets of cells are rows of bits, as in `rlgen.envs.grid.rows`. The view is a `Window` of 7x7 cells
around the agent, in which walls hide the cells behind them, as in `rlgen.envs.grid.occlusion`.
"""

from typing import NamedTuple, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int8, UInt32

from rlgen.envs.grid import occlusion as view
from rlgen.envs.grid.occlusion import SPLIT, STRIDE, VIEW, Window
from rlgen.envs.grid.rows import pack, unpack_rows


@no_type_check  # JAX also builds this class with axes or None in place of arrays
@struct.dataclass
class Level:
    """One house. The gymnax `params` of the environment."""

    walls: UInt32[Array, "*batch lines words"]
    num_free: Int[Array, "*batch"]  # cells that are not walls
    start: Int[Array, "*batch 2"]  # x, y of the agent
    max_steps_in_episode: Int[Array, "*batch"]
    size: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken
    seen: UInt32[Array, "*batch lines words"]  # free cells seen in this episode
    num_paid: Int[Array, "*batch"]  # cells rewarded so far; 0 without `pay_coverage`


class Obs(NamedTuple):
    """The cells in view and the agent's position."""

    walls: Window  # walls in sight
    seen: Window  # all cells in sight
    x: Int8[Array, "*batch"]
    y: Int8[Array, "*batch"]


def make_level(
    walls: Bool[ArrayLike, "S S"],
    start: Int[ArrayLike, "2"] | tuple[int, int],
    max_steps: Int[ArrayLike, ""],
) -> Level:
    """Build a level from a grid of walls `[y, x]`, without checks."""
    walls = jnp.asarray(walls)
    start, max_steps = (jnp.asarray(x, jnp.int32) for x in (start, max_steps))
    rows = pack(walls, outside=True)  # the margin is wall, so the agent cannot leave the square
    return Level(rows, (~walls).sum(dtype=jnp.int32), start, max_steps, walls.shape[0])


def walls_of(level: Level) -> Bool[Array, "S S"]:
    """Return the grid of walls, `[y, x]`."""
    return unpack_rows(jnp.asarray(level.walls), level.size, level.size)


def cells_seen(level: Level, state: State) -> Bool[Array, "S S"]:
    """Return the free cells seen in an episode, `[y, x]`."""
    return unpack_rows(jnp.asarray(state.seen), level.size, level.size)


def look(level: Level, x: Int[Array, ""], y: Int[Array, ""]) -> Obs:
    """Return the observation from a cell."""
    walls = view.window(level.walls, x, y)
    seen = view.sight(walls)
    return Obs(walls & seen, seen, x.astype(jnp.int8), y.astype(jnp.int8))


def remember(
    obs: Obs, seen: UInt32[Array, "lines words"], x: Int[Array, ""], y: Int[Array, ""]
) -> UInt32[Array, "lines words"]:
    """Add the free cells in sight to the set of cells that were seen earlier."""
    return seen | _place(obs.seen & ~obs.walls, x, y, seen.shape)


def num_cells(seen: UInt32[Array, "lines words"]) -> Int[Array, ""]:
    """Number of cells seen."""
    return jax.lax.population_count(seen.reshape(-1)).sum(dtype=jnp.int32)


def unpack(obs: Obs, size: int) -> dict[str, Float[Array, "..."]]:
    """Expand an observation with any leading axes to network inputs.

    Returns:
        `image`, float32[..., 7, 7, 2], which contains the walls in sight and all cells in sight,
        and `vector`, float32[..., 2], which contains x and y, scaled to [0, 1].
    """
    image = jnp.stack([view.bits(obs.walls), view.bits(obs.seen)], -1)
    place = jnp.stack([obs.x, obs.y], -1).astype(jnp.float32) / (size - 1)
    return {"image": image.astype(jnp.float32), "vector": place}


def _place(
    cells: Window, x: Int[Array, ""], y: Int[Array, ""], shape: tuple[int, ...]
) -> UInt32[Array, "lines words"]:
    """Convert a window's cells to rows of the grid.

    All words are computed with shifts. Under `vmap`, writing seven rows at the agent's position
    would be a scatter, which copies the array and is not fused.
    """
    # The array is flat, because axes of length two are slow.
    lines, words = shape
    at = jnp.arange(lines * words, dtype=jnp.uint32)
    # Row of the window for each line. Lines above the window wrap to large numbers, which are
    # masked below.
    line = at // words - y.astype(jnp.uint32)
    word = jnp.where(line < SPLIT, cells.upper, cells.lower)
    row = (word >> ((STRIDE * line) & 31)) & (2**VIEW - 1)
    row = jnp.where(line < VIEW, row, 0)
    # Bit of each word at which the row begins; negative if the row begins in an earlier word.
    ahead = x - 32 * (at % words).astype(jnp.int32)
    # The clips keep both shift amounts below the size of a word.
    left = row << jnp.clip(ahead, 0, 31).astype(jnp.uint32)
    right = row >> jnp.clip(-ahead, 0, 31).astype(jnp.uint32)
    return jnp.where(ahead >= 32, 0, jnp.where(ahead >= 0, left, right)).reshape(shape)
