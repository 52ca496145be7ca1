"""Pictures of mazes as plain arrays, drawn on the host with numpy."""

import numpy as np

from rlgen.envs._maze_bits import LEFT, MARGIN, UP, VIEW, Level, State, to_grid

FREE, LINE, WALL = (250, 249, 246), (229, 227, 221), (84, 88, 97)
WALL_EDGE, GOAL, AGENT, SEEN = (66, 70, 78), (46, 160, 96), (214, 69, 61), (255, 221, 120)
_SAMPLES = 4  # a side: shapes are drawn this much larger and averaged, for smooth edges


def level_image(level: Level) -> np.ndarray:
    """Picture of a level with the agent at its start, uint8[H * tile, W * tile, 3]."""
    grid = to_grid(level)
    return _draw(level, np.asarray(grid.start), int(grid.direction), highlight=False)


def render(level: Level, state: State, highlight: bool = True) -> np.ndarray:
    """Picture of a moment of an episode; the cells in view are tinted.

    Returns:
        uint8[H * tile, W * tile, 3]; a tile is 32 pixels for the usual 13 x 13, less if larger.
    """
    return _draw(level, np.array([state.x, state.y]), int(state.direction), highlight)


def tile_size(height: int, width: int) -> int:
    """Pixels a cell, such that a picture is about 420 pixels a side at most, or a cell 4."""
    return int(np.clip(420 // max(height, width), 4, 32))


def _draw(level: Level, agent: np.ndarray, direction: int, highlight: bool) -> np.ndarray:
    grid = to_grid(level)
    walls = np.asarray(grid.walls)
    tile = tile_size(*walls.shape)
    seen = np.zeros_like(walls)
    if highlight:
        seen[_window(agent, direction)] = True
    tinted = 0.55
    colour = np.where(walls[..., None], WALL, FREE).astype(float)
    colour = np.where(seen[..., None], (1 - tinted) * colour + tinted * np.array(SEEN), colour)
    image = colour.repeat(tile, 0).repeat(tile, 1)
    if tile >= 8:
        edge = np.where(walls[..., None], WALL_EDGE, LINE).repeat(tile, 0).repeat(tile, 1)
        position = np.arange(max(image.shape)) % tile == tile - 1
        position[0] = True
        lines = position[: image.shape[0], None] | position[None, : image.shape[1]]
        image = np.where(lines[..., None], edge, image)
    goal_x, goal_y = np.asarray(grid.goal)
    _paint(image, (goal_x, goal_y), _square(tile), GOAL)
    _paint(image, (agent[0], agent[1]), _triangle(tile, direction), AGENT)
    return image.round().astype(np.uint8)


def _window(agent: np.ndarray, direction: int) -> tuple[slice, slice]:
    """The part of the maze in view, as rows and columns."""

    def span(at: int, ahead: int) -> slice:
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


def _paint(image: np.ndarray, cell: tuple, cover: np.ndarray, colour: tuple) -> None:
    tile = len(cover)
    x, y = int(cell[0]) * tile, int(cell[1]) * tile
    part = image[y : y + tile, x : x + tile]
    part[:] = (1 - cover[..., None]) * part + cover[..., None] * np.array(colour)


def _square(tile: int) -> np.ndarray:
    """How much of each pixel of a tile a rounded square covers, in 0 .. 1."""
    u, v = _fine(tile)
    return _average(np.maximum(abs(u), abs(v)) + 0.25 * np.hypot(u, v) < 0.52, tile)


def _triangle(tile: int, direction: int) -> np.ndarray:
    """The same of a triangle that points to the right, turned clockwise `direction` times."""
    u, v = _fine(tile)
    inside = (u > -0.34) & (abs(v) < 0.5 * (0.46 - u))
    return np.rot90(_average(inside, tile), -direction)


def _fine(tile: int) -> tuple[np.ndarray, np.ndarray]:
    at = (np.arange(tile * _SAMPLES) + 0.5) / (tile * _SAMPLES) - 0.5
    return np.meshgrid(at, at)


def _average(fine: np.ndarray, tile: int) -> np.ndarray:
    return fine.reshape(tile, _SAMPLES, tile, _SAMPLES).astype(float).mean((1, 3))
