"""Pictures of grid worlds, drawn on the host with pillow.

Objects with positive reward are green discs, and objects with negative reward are red discs. The
disc is larger if the absolute reward is larger. A dark ring marks objects that end the episode
with a probability above 0.5. The agent is a blue square.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from rlgen.envs.grid.draw import FREE, LINE, WALL
from rlgen.envs.gridworld.level import Level, State

GOOD, BAD, NEUTRAL, RING, AGENT = (
    (46, 160, 96),
    (214, 69, 61),
    (176, 174, 168),
    WALL,
    (46, 111, 178),
)
_SAMPLES = 4  # samples per pixel and axis; pictures are drawn enlarged and averaged


def draw(level: Level, state: State | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a level or, if a state is given, a state of an episode on the level.

    Without a state, the agent is at its start and all objects that have a cell are shown. The
    picture has at most about 420 pixels per side.
    """
    size = int(level.size)
    tile = int(np.clip(420 // size, 16, 32))
    fine = tile * _SAMPLES
    image = Image.new("RGB", (size * fine, size * fine), FREE)
    canvas = ImageDraw.Draw(image)
    for cell in np.flatnonzero(np.asarray(level.walls)):
        canvas.rectangle(_box(int(cell), size, fine, 0.5), fill=WALL)
    for i in range(1, size):
        canvas.line([(i * fine, 0), (i * fine, size * fine)], LINE, _SAMPLES)
        canvas.line([(0, i * fine), (size * fine, i * fine)], LINE, _SAMPLES)
    object_pos = np.asarray(level.object_pos if state is None else state.object_pos)
    present = -1 if state is None else int(state.present)  # -1 has all bits set
    for i in range(int(level.num_objects)):
        if object_pos[i] >= 0 and present >> i & 1:
            _object(canvas, level, i, _box(int(object_pos[i]), size, fine, _radius(level, i)))
    agent = int(level.start if state is None else state.pos)
    canvas.rounded_rectangle(_box(agent, size, fine, 0.27), fine // 8, AGENT)
    return np.asarray(image.reduce(_SAMPLES), np.uint8)


def _object(canvas: ImageDraw.ImageDraw, level: Level, i: int, box: list) -> None:
    kind = int(level.object_type[i])
    reward, ends = float(level.reward[kind]), float(level.terminate_prob[kind]) > 0.5
    colour = GOOD if reward > 0 else BAD if reward < 0 else NEUTRAL
    width = round((box[1][0] - box[0][0]) * 0.12)
    canvas.ellipse(box, colour, RING if ends else colour, width)


def _radius(level: Level, i: int) -> float:
    """Return the radius of an object's disc, as a fraction of the side of a cell."""
    return 0.26 + 0.16 * min(abs(float(level.reward[int(level.object_type[i])])), 1.0)


def _box(cell: int, size: int, fine: int, radius: float) -> list[tuple[float, float]]:
    """Return two opposite corners of a square around the centre of a cell."""
    row, column = divmod(cell, size)
    ends = ((0.5 - radius) * fine, (0.5 + radius) * fine - 1)
    return [(column * fine + end, row * fine + end) for end in ends]
