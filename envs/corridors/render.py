"""Pictures of stars of corridors as NumPy arrays, drawn on the host."""

import numpy as np

from rlgen.envs.grid.draw import AGENT, FREE, GOAL, LINE, SEEN, WALL

SIDE = 420  # side of the picture, in pixels
WIDEST = 22.0  # largest width of a corridor, in pixels


def star(length: int, rewarded: int, visited: list[bool], agent: tuple[int, int]) -> np.ndarray:
    """Draw the hub in the middle, the first corridor upwards and the others clockwise.

    Each cell is a dot.

    Args:
        length: Number of cells of a corridor.
        rewarded: Corridor whose end is drawn as the goal.
        visited: One flag per corridor, which is True if its end should be tinted as seen.
        agent: Corridor and depth of the agent; depth 0 is the hub.

    Returns:
        uint8[SIDE, SIDE, 3].
    """
    num = len(visited)
    angle = 2 * np.pi * np.arange(num) / num
    ray = np.stack([np.sin(angle), -np.cos(angle)], 1)  # x, y downwards
    step = (SIDE / 2 - WIDEST) / length
    # This width separates neighbouring corridors near the rim, and also the dots of a corridor.
    wide = min(WIDEST, 0.8 * np.pi * SIDE / 2 / num, max(1.2 * step, 8.0))
    image = np.full((SIDE, SIDE, 3), WALL, float)
    for m in range(num):
        _rod(image, np.zeros(2), ray[m] * step * length, wide / 2, FREE)
    _disc(image, np.zeros(2), 0.8 * wide, FREE)
    for m in range(num):
        for depth in range(1, length):
            _disc(image, ray[m] * step * depth, 0.12 * wide, LINE)
        end = GOAL if m == rewarded else SEEN if visited[m] else LINE
        _disc(image, ray[m] * step * length, 0.45 * wide, end)
    _disc(image, ray[agent[0]] * step * agent[1], 0.35 * wide, AGENT)
    return image.round().astype(np.uint8)


def _disc(image: np.ndarray, centre: np.ndarray, radius: float, colour: tuple) -> None:
    """Paint a disc with smooth edges, in place."""
    _rod(image, centre, centre, radius, colour)


def _rod(
    image: np.ndarray, start: np.ndarray, end: np.ndarray, radius: float, colour: tuple
) -> None:
    """Paint a thick line with round ends, in place.

    The points `start` and `end` are x, y relative to the centre of the image, with y downwards.
    """
    reach = radius + 1
    first = np.floor(np.minimum(start, end) - reach + SIDE / 2).astype(int).clip(0, SIDE)
    last = np.ceil(np.maximum(start, end) + reach + SIDE / 2).astype(int).clip(0, SIDE)
    part = image[first[1] : last[1], first[0] : last[0]]
    at_x, at_y = (np.arange(a, b) + 0.5 - SIDE / 2 for a, b in zip(first, last, strict=True))
    offset = np.stack(np.meshgrid(at_x, at_y), -1) - start
    line = end - start
    # Closest point of the segment to each pixel. A disc is a segment of length 0, for which 1e-9
    # prevents a division by 0.
    along = np.clip(offset @ line / max(line @ line, 1e-9), 0, 1)[..., None]
    distance = np.hypot(*np.moveaxis(offset - along * line, -1, 0))
    # The coverage falls from 1 to 0 over one pixel at the edge.
    cover = np.clip(radius + 0.5 - distance, 0, 1)[..., None]
    part[:] = (1 - cover) * part + cover * np.array(colour)
