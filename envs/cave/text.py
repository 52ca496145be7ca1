"""Text format of caves.

`#` is a wall, `.` an empty cell, `~` lava, `"` moss and `G` the goal. The start of the agent is `S`
if the start direction is random. Otherwise the start is `>`, `v`, `<` or `^`, which shows the
direction.
"""

import numpy as np

from rlgen.envs.cave.level import ANY_DIRECTION, Level, make_level, to_grid

TILES = '.#~"'
"""Characters of EMPTY, WALL, LAVA and MOSS, indexed by code."""
STARTS = ">v<^S"  # indexed by direction; -1, a random direction, selects the last one


def to_text(level: Level) -> str:
    """Convert a cave to lines of characters."""
    grid = to_grid(level)
    rows = np.array(list(TILES))[np.asarray(grid.tiles)]
    (x, y), (goal_x, goal_y) = np.asarray(grid.start), np.asarray(grid.goal)
    rows[goal_y, goal_x] = "G"
    rows[y, x] = STARTS[int(level.direction)]
    return "\n".join("".join(row) for row in rows)


def from_text(text: str, height: int, width: int, max_steps: int = 250) -> Level:
    """Parse a cave from `height` lines of `width` characters each.

    Raises:
        ValueError: The text does not describe such a cave; the message states the reason.
    """
    rows = [row.strip() for row in text.strip("\n").split("\n")]
    if len(rows) != height or any(len(row) != width for row in rows):
        raise ValueError(
            f"the text should have {height} lines of {width} characters, the size of the "
            f"environment; found {len(rows)} lines of lengths {sorted({len(row) for row in rows})}"
        )
    unknown = sorted(set("".join(rows)) - set(TILES + STARTS + "G"))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {' '.join(TILES + STARTS)} G")
    cells = np.array([list(row) for row in rows])
    goal, start = _only(cells, "G", "goal (G)"), _only(cells, STARTS, "start (S > v < ^)")
    direction = STARTS.index(cells[start[1], start[0]])
    # No tile matches the characters of goal and start, so the sum there is 0, the code of EMPTY.
    tiles = sum(code * (cells == TILES[code]) for code in range(len(TILES)))
    return make_level(
        np.asarray(tiles, np.uint8),
        start,
        goal,
        max_steps,
        direction if direction < 4 else ANY_DIRECTION,
    )


def _only(cells: np.ndarray, kinds: str, what: str) -> tuple[int, int]:
    ys, xs = np.nonzero(np.isin(cells, list(kinds)))
    if len(xs) != 1:
        raise ValueError(f"expected exactly one {what}, found {len(xs)}")
    return int(xs[0]), int(ys[0])
