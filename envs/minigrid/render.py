"""Pictures of MiniGrid's worlds as plain arrays, drawn on the host with numpy."""

import numpy as np

from rlgen.envs.grid.draw import (
    AGENT,
    FREE,
    LINE,
    SEEN,
    TINTED,
    WALL,
    WALL_EDGE,
    average,
    fine_grid,
    floor,
    paint,
    tile_size,
    triangle,
)
from rlgen.envs.minigrid.level import (
    BALL,
    BOX,
    CLOSED_DOOR,
    KEY,
    NOWHERE,
    OPEN_DOOR,
    STRIDE,
    VIEW,
    Level,
    State,
    to_walls,
)

_COLOURS = (
    (214, 69, 61),
    (60, 168, 94),
    (62, 104, 214),
    (131, 62, 186),
    (224, 178, 32),
    (128,) * 3,
)
"""RGB values, in the order of `COLOURS`."""


def render(level: Level, state: State | None = None) -> np.ndarray:
    """Picture of a state of an episode, or of its start if `state` is None.

    The carried object is drawn as a small disc on the agent. If a state is given, the square in
    view is tinted, including the cells that walls and doors hide from the agent.

    Returns:
        uint8[H * tile, W * tile, 3].
    """
    walls = to_walls(level)[..., None]
    colour, edge = np.where(walls, WALL, FREE), np.where(walls, WALL_EDGE, LINE)
    tile = tile_size(*walls.shape[:2])
    if state is None:
        agent, direction = np.asarray(level.start), int(level.direction)
    else:
        agent, direction = np.array([state.x, state.y]), int(state.direction)
        window = _window(agent, direction)
        colour = colour.astype(float)
        colour[window] = (1 - TINTED) * colour[window] + TINTED * np.array(SEEN)
    image = floor(colour, edge, tile)
    for cell, code in _things(level, state):
        at = np.array([cell % STRIDE, cell // STRIDE])
        paint(image, at, _shape(code >> 3, tile), _COLOURS[code & 7])
    paint(image, agent, triangle(tile, direction), AGENT)
    held = _held(level, state)
    if held:
        u, v = fine_grid(tile)
        paint(image, agent, average(np.hypot(u, v) < 0.16, tile), _COLOURS[held & 7])
    return image.round().astype(np.uint8)


def _things(level: Level, state: State | None) -> list[tuple[int, int]]:
    """Cell and code of each door and object that is in a cell."""
    opened = 0 if state is None else int(state.open)
    locked = int(level.locked if state is None else state.locked)
    cells = level.object_cell if state is None else state.object_cell
    found = []
    for d, (cell, colour) in enumerate(zip(level.door_cell, level.door_colour, strict=True)):
        # LOCKED_DOOR follows CLOSED_DOOR.
        kind = OPEN_DOOR if opened >> d & 1 else CLOSED_DOOR + (locked >> d & 1)
        found.append((int(cell), 8 * kind + int(colour)))
    found += zip((int(cell) for cell in cells), _codes(level, state), strict=True)
    return [(cell, code) for cell, code in found if cell != NOWHERE and code]


def _codes(level: Level, state: State | None) -> list[int]:
    unpacked = 0 if state is None else int(state.unpacked)
    both = zip(level.object_code, level.content_code, strict=True)
    return [int(inside if unpacked >> k & 1 else shown) for k, (shown, inside) in enumerate(both)]


def _held(level: Level, state: State | None) -> int:
    """Code of the carried object; 0 if nothing is carried."""
    carried = 0 if state is None else int(state.carried)
    return sum(code for k, code in enumerate(_codes(level, state)) if carried >> k & 1)


def _shape(kind: int, tile: int) -> np.ndarray:
    """Fraction of each pixel of a tile that an object or door covers, in 0 .. 1."""
    u, v = fine_grid(tile)
    far = np.maximum(abs(u), abs(v))
    ring = np.hypot(u + 0.05, v + 0.18)
    stem = (abs(u + 0.05) < 0.06) & (v > -0.1) & (v < 0.38)
    teeth = (u > -0.05) & (u < 0.18) & ((abs(v - 0.14) < 0.05) | (abs(v - 0.32) < 0.05))
    frame = (far < 0.47) & (far > 0.36)
    inside = {
        KEY: ((ring < 0.18) & (ring > 0.08)) | stem | teeth,
        BALL: np.hypot(u, v) < 0.31,
        BOX: ((far < 0.38) & (far > 0.28)) | ((far < 0.38) & (abs(v) < 0.05)),
        OPEN_DOOR: (far < 0.47) & (u < -0.36),
        CLOSED_DOOR: frame | (np.hypot(u - 0.2, v) < 0.08),
    }
    # A locked door is a filled square with a slot.
    locked = (far < 0.47) & ~((abs(u - 0.12) < 0.12) & (abs(v) < 0.04))
    return average(inside.get(kind, locked), tile)


def _window(agent: np.ndarray, direction: int) -> tuple[slice, slice]:
    """The square in view, as slices of rows and columns."""
    half, reach = VIEW // 2, VIEW - 1
    before, behind = ((reach, 0), (0, reach))[direction < 2]  # cells up or left, down or right
    along, across = (before, behind), (half, half)
    x, y = (across, along) if direction % 2 else (along, across)
    spans = zip((agent[1], agent[0]), (y, x), strict=True)
    rows, columns = (slice(max(int(at) - a, 0), int(at) + b + 1) for at, (a, b) in spans)
    return rows, columns
