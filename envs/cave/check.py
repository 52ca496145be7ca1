"""Validation of cave levels. Runs on the host."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np

from rlgen.envs.cave.level import KINDS, LAVA, WALL, Grid, Level, make_level, to_grid


@jax.jit
@jax.vmap
def _taken_apart(level: Level) -> tuple[Grid, Level]:
    """Return the tiles of a level and the level built again from those tiles."""
    grid = to_grid(level)
    return grid, make_level(*grid)


def check_levels(levels: Level, prefix: str = "") -> None:
    """Reject levels [M, ...] on which no episode can be played.

    Args:
        levels: Stacked levels, [M, ...].
        prefix: Start of the error message, such as the name of a file.

    Raises:
        ValueError: A level is not well-formed; the message names the first such level.
    """
    grid, again = _taken_apart(levels)
    check_tiles(prefix, *jax.tree.map(np.asarray, grid))
    # If the masks of a level were set by hand, their rows and columns may disagree, or the margin
    # may not be wall. The conversion to tiles and back then changes the level.
    same = np.ones(len(levels.start), bool)
    for name in ("blocked", "marked"):
        same &= np.asarray(getattr(again, name) == getattr(levels, name)).all((1, 2))
    limit, direction = (np.asarray(x) for x in (levels.max_steps_in_episode, levels.direction))
    _refuse(prefix, ~same, lambda i: "its bit masks disagree; build levels with make_level")
    _refuse(
        prefix, limit < 1, lambda i: f"its time limit is {limit[i]} steps; it must be at least 1"
    )
    unknown = (direction < -1) | (direction > 3)
    _refuse(prefix, unknown, lambda i: f"direction {direction[i]} is none of -1 (any) and 0 .. 3")


def check_tiles(prefix: str, tiles: np.ndarray, start: np.ndarray, goal: np.ndarray) -> None:
    """Reject levels with unknown tiles, or with a start or goal that the agent cannot stand on.

    Start and goal must be distinct cells of the grid that are neither wall nor lava. The function
    does not check that a path connects the two cells.

    Args:
        prefix: Start of the error message, such as the name of a file.
        tiles: Tile codes, [M, H, W].
        start: x, y of each start, [M, 2].
        goal: x, y of each goal, [M, 2].

    Raises:
        ValueError: A level is malformed; the message names the first such level.
    """
    _, height, width = tiles.shape
    unknown = (tiles < 0) | (tiles >= len(KINDS))
    codes = ", ".join(f"{code} {kind}" for code, kind in enumerate(KINDS))
    _refuse(
        prefix,
        unknown.any((1, 2)),
        lambda i: f"tile {tiles[i][unknown[i]][0]} is none of {codes}",
    )
    for what, cell in (("start", start), ("goal", goal)):
        outside = ((cell < 0) | (cell >= np.array([[width, height]]))).any(1)
        _refuse(prefix, outside, partial(_outside, what, cell, (width, height)))
        # Cells are (x, y), tiles are indexed [y, x].
        under = tiles[np.arange(len(cell)), cell[:, 1], cell[:, 0]]
        on = np.isin(under, (WALL, LAVA))
        _refuse(prefix, on, partial(_on, what, cell, under))
    same = (start == goal).all(1)
    _refuse(prefix, same, lambda i: f"start and goal are on the same cell, {_xy(start[i])}")


def _outside(what: str, cell: np.ndarray, size: tuple[int, int], i: int) -> str:
    return f"the {what} is at {_xy(cell[i])}, outside the {size[0]} x {size[1]} cave"


def _on(what: str, cell: np.ndarray, under: np.ndarray, i: int) -> str:
    return f"the {what} is on {KINDS[under[i]]}, at {_xy(cell[i])}"


def _xy(cell: np.ndarray) -> str:
    return f"({cell[0]}, {cell[1]})"


def _refuse(prefix: str, wrong: np.ndarray | np.bool, said: Callable[[int], str]) -> None:
    if np.any(wrong):
        i = int(np.argmax(wrong))
        raise ValueError(f"{prefix}level {i}: {said(i)}")
