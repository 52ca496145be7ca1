"""Pictures of mazes as NumPy arrays, drawn on the host."""

from typing import TypeVar

import numpy as np

from rlgen.envs.grid.bitboard import LEFT, MARGIN, UP, VIEW, Level, State, to_grid

FREE, LINE, WALL = (250, 249, 246), (229, 227, 221), (84, 88, 97)
WALL_EDGE, GOAL, AGENT, SEEN = (66, 70, 78), (46, 160, 96), (214, 69, 61), (255, 221, 120)
TINTED = 0.55  # fraction of the colour `SEEN` in the colour of a cell in view
L = TypeVar("L")
S = TypeVar("S")
_SAMPLES = 4  # samples per pixel and axis; shapes are drawn enlarged and averaged


def level_image(level: Level) -> np.ndarray:
    """Picture of a level with the agent at its start, uint8[H * tile, W * tile, 3]."""
    grid = to_grid(level)
    return _draw(level, np.asarray(grid.start), int(grid.direction), highlight=False)


def render(level: Level, state: State, highlight: bool = True) -> np.ndarray:
    """Picture of a state of an episode; with `highlight` the cells in view are tinted.

    Returns:
        uint8[H * tile, W * tile, 3]. A cell has `tile` pixels per side: 32 if the grid has 13 x 13
        cells, and fewer in larger mazes.
    """
    return _draw(level, np.array([state.x, state.y]), int(state.direction), highlight)


def level_first(
    level: L | S, state: S | L, level_type: type[L], state_type: type[S]
) -> tuple[L, S]:
    """Return the two arguments of `render` as (level, state), in whichever order they are given."""
    if isinstance(level, state_type):
        level, state = state, level
    assert isinstance(level, level_type) and isinstance(state, state_type)
    return level, state


def tile_size(height: int, width: int) -> int:
    """Return the side of a cell in pixels: 420 divided by the longer side, limited to 4 .. 32."""
    return int(np.clip(420 // max(height, width), 4, 32))


def _draw(level: Level, agent: np.ndarray, direction: int, highlight: bool) -> np.ndarray:
    grid = to_grid(level)
    walls = np.asarray(grid.walls)[..., None]
    colour, edge = np.where(walls, WALL, FREE), np.where(walls, WALL_EDGE, LINE)
    tile = tile_size(*walls.shape[:2])
    image = floor(colour, edge, tile, window(agent, direction) if highlight else ())
    paint(image, np.asarray(grid.goal), square(tile), GOAL)
    paint(image, agent, triangle(tile, direction), AGENT)
    return image.round().astype(np.uint8)


def floor(colour: np.ndarray, edge: np.ndarray, tile: int, seen: tuple = ()) -> np.ndarray:
    """Draw all cells of a grid, but no objects, float[H * tile, W * tile, 3].

    Args:
        colour: Colour of each cell, [H, W, 3].
        edge: Colour of the lines to the right of each cell and below it, [H, W, 3].
        tile: Side of a cell in pixels.
        seen: Part of the grid that is tinted, as returned by `window`; with `()` nothing is tinted.
    """
    shade = colour.astype(float)
    if seen:
        shade[seen] = (1 - TINTED) * shade[seen] + TINTED * np.array(SEEN)
    image = shade.repeat(tile, 0).repeat(tile, 1)
    if tile >= 8:  # lines would dominate smaller cells
        position = np.arange(max(image.shape)) % tile == tile - 1
        position[0] = True  # the picture also begins with a line
        lines = position[: image.shape[0], None] | position[None, : image.shape[1]]
        image = np.where(lines[..., None], edge.repeat(tile, 0).repeat(tile, 1), image)
    return image


def window(agent: np.ndarray, direction: int) -> tuple[slice, slice]:
    """Return the part of the maze in view, as slices of rows and columns."""

    def span(at: int, ahead: int) -> slice:
        # `ahead` is the step along this axis: 1 or -1 along the line of sight, 0 across it.
        half = VIEW // 2
        first, last = {1: (at, at + MARGIN), -1: (at - MARGIN, at)}.get(
            ahead, (at - half, at + half)
        )
        return slice(max(first, 0), last + 1)

    sign = -1 if direction in (LEFT, UP) else 1
    turned = direction % 2 == 1
    return (
        span(int(agent[1]), sign if turned else 0),
        span(int(agent[0]), 0 if turned else sign),
    )


def paint(image: np.ndarray, cell: np.ndarray, cover: np.ndarray, colour: tuple) -> None:
    """Blend a colour into the cell x, y of a picture, in place, with opacity `cover`."""
    tile = len(cover)
    x, y = int(cell[0]) * tile, int(cell[1]) * tile
    part = image[y : y + tile, x : x + tile]
    part[:] = (1 - cover[..., None]) * part + cover[..., None] * np.array(colour)


def square(tile: int) -> np.ndarray:
    """Return the fraction of each pixel that a rounded square covers, [tile, tile]."""
    u, v = fine_grid(tile)
    return average(np.maximum(abs(u), abs(v)) + 0.25 * np.hypot(u, v) < 0.52, tile)


def triangle(tile: int, direction: int) -> np.ndarray:
    """Return the fraction of each pixel that a triangle pointing in `direction` covers."""
    u, v = fine_grid(tile)
    inside = (u > -0.34) & (abs(v) < 0.5 * (0.46 - u))
    return np.rot90(average(inside, tile), -direction)


def fine_grid(tile: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions u (right) and v (down) of samples in a tile, from -0.5 to 0.5.

    `average` reduces functions of these positions to pixels.
    """
    at = (np.arange(tile * _SAMPLES) + 0.5) / (tile * _SAMPLES) - 0.5
    return np.meshgrid(at, at)


def average(fine: np.ndarray, tile: int) -> np.ndarray:
    """Average samples of a shape to the covered fraction of each pixel, [tile, tile] in 0 .. 1."""
    return fine.reshape(tile, _SAMPLES, tile, _SAMPLES).astype(float).mean((1, 3))
