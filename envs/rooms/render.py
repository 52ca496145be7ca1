"""Pictures of levels with lava, doors and keys as plain arrays, drawn on the host with numpy."""

import jax.numpy as jnp
import numpy as np

from rlgen.envs.grid import draw as maze
from rlgen.envs.grid.rows import MARGIN, unpack_rows
from rlgen.envs.rooms.level import Level, State, first_opened

LAVA, LAVA_EDGE = (240, 110, 40), (231, 98, 32)
DOOR, GOAL, AGENT = (150, 108, 66), maze.GOAL, maze.AGENT
COLOURS = ((34, 113, 206), (222, 178, 32), (150, 70, 170), (30, 160, 160))
"""Colours of the keys and of their doors."""


def level_image(level: Level) -> np.ndarray:
    """Picture of a level with the agent at its start, uint8[H * tile, W * tile, 3]."""
    return _draw(level, np.asarray(level.start), int(first_opened(level)), 0, False)


def render(level: Level, state: State, highlight: bool = True) -> np.ndarray:
    """Picture of a state of an episode; the 7x7 cells around the agent are tinted.

    Returns:
        uint8[H * tile, W * tile, 3]. The side of a tile is 16 pixels on a grid of 25 x 25 cells,
        and smaller on larger grids.
    """
    agent = np.array([state.x, state.y])
    return _draw(level, agent, int(state.opened), int(state.held), highlight)


def _draw(level: Level, agent: np.ndarray, opened: int, held: int, highlight: bool) -> np.ndarray:
    sides = level.height, level.width
    walls, lava = (
        np.asarray(unpack_rows(jnp.asarray(rows), *sides))[..., None]
        for rows in (level.walls, level.lava)
    )
    colour = np.where(walls, maze.WALL, np.where(lava, LAVA, maze.FREE))
    edge = np.where(walls, maze.WALL_EDGE, np.where(lava, LAVA_EDGE, maze.LINE))
    tile = maze.tile_size(*sides)
    image = maze.floor(colour, edge, tile, _window(agent) if highlight else ())
    colours = _colours_of_doors(level)
    for i, cell in enumerate(np.asarray(level.doors)):
        shape = _frame(tile) if opened >> i & 1 else _slab(tile)
        maze.paint(image, cell, shape, colours[i])
    for k, cell in enumerate(np.asarray(level.keys)):
        if not held >> k & 1:
            maze.paint(image, cell, _key(tile), COLOURS[k % len(COLOURS)])
    maze.paint(image, np.asarray(level.goal), maze.square(tile), GOAL)
    # If the agent has left the grid and entered the lava around the grid, it is not drawn.
    if 0 <= agent[0] < level.width and 0 <= agent[1] < level.height:
        maze.paint(image, agent, _disc(tile), AGENT)
    return image.round().astype(np.uint8)


def _colours_of_doors(level: Level) -> list[tuple]:
    """Colour of each door: the colour of its key, or `DOOR` for doors without a lock."""
    locks = [int(lock) for lock in np.asarray(level.locks)]
    keys = [[k for k, lock in enumerate(locks) if lock >> i & 1] for i in range(len(level.doors))]
    return [COLOURS[fitting[0] % len(COLOURS)] if fitting else DOOR for fitting in keys]


def _window(agent: np.ndarray) -> tuple[slice, slice]:
    x, y = (int(at) for at in agent)
    rows, columns = (slice(max(at - MARGIN, 0), max(at + MARGIN + 1, 0)) for at in (y, x))
    return rows, columns


def _slab(tile: int) -> np.ndarray:
    u, v = maze.fine_grid(tile)
    return maze.average(np.maximum(abs(u), abs(v)) < 0.42, tile)


def _frame(tile: int) -> np.ndarray:
    u, v = maze.fine_grid(tile)
    far = np.maximum(abs(u), abs(v))
    return maze.average((far < 0.46) & (far > 0.34), tile)


def _disc(tile: int) -> np.ndarray:
    return maze.average(np.hypot(*maze.fine_grid(tile)) < 0.32, tile)


def _key(tile: int) -> np.ndarray:
    """A ring, a shaft and two teeth."""
    u, v = maze.fine_grid(tile)
    ring = abs(np.hypot(u + 0.2, v) - 0.14) < 0.055
    shaft = (u > -0.08) & (u < 0.4) & (abs(v) < 0.05)
    teeth = (v > 0) & (v < 0.18) & ((abs(u - 0.2) < 0.04) | (abs(u - 0.34) < 0.04))
    return maze.average(ring | shaft | teeth, tile)
