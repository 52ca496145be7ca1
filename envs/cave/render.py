"""Pictures of caves as NumPy arrays, drawn on the host."""

import numpy as np

from rlgen.envs.cave.level import LAVA, MOSS, Level, to_grid
from rlgen.envs.grid import draw as maze
from rlgen.envs.grid.bitboard import State

# Indexed by tile code: empty, wall, lava, moss.
COLOURS = np.array([maze.FREE, maze.WALL, (240, 110, 40), (205, 228, 184)])
EDGES = np.array([maze.LINE, maze.WALL_EDGE, (206, 78, 24), (178, 207, 155)])
GLOW, TUFT, GOAL, AGENT = (255, 209, 92), (112, 160, 84), (34, 113, 206), maze.AGENT


def level_image(level: Level) -> np.ndarray:
    """Picture of a level with the agent at its start, uint8[H * tile, W * tile, 3].

    The agent is drawn as a disc if its start direction is random.
    """
    return _draw(level, np.asarray(level.start), int(level.direction), highlight=False)


def render(level: Level, state: State, highlight: bool = True) -> np.ndarray:
    """Picture of a state of an episode; with `highlight` the cells in view are tinted.

    Returns:
        uint8[H * tile, W * tile, 3]. A cell has `tile` pixels per side: 32 if the grid has 13 x 13
        cells, and fewer in larger caves.
    """
    return _draw(level, np.array([state.x, state.y]), int(state.direction), highlight)


def _draw(level: Level, agent: np.ndarray, direction: int, highlight: bool) -> np.ndarray:
    grid = to_grid(level)
    tiles = np.asarray(grid.tiles)
    tile = maze.tile_size(*tiles.shape)
    seen = maze.window(agent, direction) if highlight else ()
    image = maze.floor(COLOURS[tiles], EDGES[tiles], tile, seen)
    for code, cover, colour in ((LAVA, _waves(tile), GLOW), (MOSS, _tufts(tile), TUFT)):
        for y, x in np.argwhere(tiles == code):
            maze.paint(image, np.array([x, y]), cover, colour)
    body = maze.triangle(tile, direction) if direction >= 0 else _disc(tile)
    maze.paint(image, np.asarray(grid.goal), maze.square(tile), GOAL)
    maze.paint(image, agent, body, AGENT)
    return image.round().astype(np.uint8)


def _waves(tile: int) -> np.ndarray:
    """Coverage of each pixel by two bright ripples, the pattern of lava."""
    u, v = maze.fine_grid(tile)
    ripple = 0.06 * np.sin(4 * np.pi * u)
    near = [abs(v - middle - ripple) < 0.05 for middle in (-0.17, 0.17)]
    return maze.average((near[0] | near[1]) & (abs(u) < 0.36), tile)


def _tufts(tile: int) -> np.ndarray:
    """Coverage of each pixel by a few dots, the pattern of moss."""
    u, v = maze.fine_grid(tile)
    dots = [(-0.24, -0.2, 0.08), (0.2, -0.26, 0.06), (0.04, 0.04, 0.09), (-0.18, 0.26, 0.06)]
    dots.append((0.26, 0.22, 0.08))
    inside = [np.hypot(u - x, v - y) < radius for x, y, radius in dots]
    return maze.average(np.any(inside, 0), tile)


def _disc(tile: int) -> np.ndarray:
    return maze.average(np.hypot(*maze.fine_grid(tile)) < 0.3, tile)
