"""Pictures of houses as plain arrays, drawn on the host with numpy."""

import numpy as np

from rlgen.envs.grid import draw as pictures
from rlgen.envs.grid.rows import MARGIN
from rlgen.envs.houses.view import Level, State, cells_seen, walls_of


def level_image(level: Level) -> np.ndarray:
    """Picture of a level with the agent at its start, uint8[H * tile, W * tile, 3]."""
    walls = np.asarray(walls_of(level))
    return _draw(walls, np.zeros_like(walls), np.asarray(level.start), window=False)


def render(level: Level, state: State) -> np.ndarray:
    """Picture of a state of an episode: seen cells are tinted, and the view is framed."""
    seen = np.asarray(cells_seen(level, state))
    return _draw(np.asarray(walls_of(level)), seen, np.array([state.x, state.y]), window=True)


def _draw(walls: np.ndarray, seen: np.ndarray, agent: np.ndarray, window: bool) -> np.ndarray:
    tile = pictures.tile_size(*walls.shape)
    tinted = (1 - pictures.TINTED) * np.array(pictures.FREE)
    tinted = tinted + pictures.TINTED * np.array(pictures.SEEN)
    colour = np.where(seen[..., None], tinted, pictures.FREE)
    colour = np.where(walls[..., None], pictures.WALL, colour)
    edge = np.where(walls[..., None], pictures.WALL_EDGE, pictures.LINE)
    image = pictures.floor(colour, edge, tile)
    if window:
        _frame(image, agent, tile)
    pictures.paint(image, agent, pictures.square(tile), pictures.AGENT)
    return image.round().astype(np.uint8)


def _frame(image: np.ndarray, agent: np.ndarray, tile: int) -> None:
    """Draw a frame around the cells in view, clipped to the picture."""
    left, top = np.maximum(agent - MARGIN, 0) * tile
    right, bottom = np.minimum((agent + MARGIN + 1) * tile, image.shape[1::-1]) - 1
    for rows in (top, bottom):
        image[rows, left : right + 1] = pictures.AGENT
    for columns in (left, right):
        image[top : bottom + 1, columns] = pictures.AGENT
