"""Mazes as text, checks that levels are well-formed, and the parts of a maze.

`#` is a wall, `.` a free cell and `G` the goal. `>`, `v`, `<` or `^` is the agent, facing in that
direction. A file may hold several mazes separated by empty lines; a line `name: ...` before a maze
gives its name. Parsing and checks run on the host. `MazeCodec` runs inside jit; it splits a level
into the parts (`rlgen.codec`) that generative models work with.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.codec import Cells, Choice, Part, Place
from rlgen.envs.grid.bitboard import Level, make_level, to_grid

AGENT = ">v<^"


class NamedLevel(NamedTuple):
    """A maze read from a file."""

    name: str  # empty if none was given
    level: Level


def to_text(level: Level) -> str:
    """Return a maze as lines of characters."""
    grid = to_grid(level)
    rows = [["#" if wall else "." for wall in row] for row in np.asarray(grid.walls)]
    (x, y), (goal_x, goal_y) = np.asarray(grid.start), np.asarray(grid.goal)
    rows[goal_y][goal_x] = "G"
    rows[y][x] = AGENT[int(grid.direction)]
    return "\n".join("".join(row) for row in rows)


def from_text(text: str, height: int, width: int, max_steps: int = 250, line: int = 1) -> Level:
    """Parse a maze; if it is smaller than `height` by `width`, add walls on the right and below.

    Args:
        text: The maze; empty lines before and after it are ignored.
        height: Height of the level, in cells.
        width: Width of the level, in cells.
        max_steps: Time limit of the level, in steps.
        line: Line number of the start of `text` in its file, for error messages.

    Raises:
        ValueError: The text is malformed or too large; the message names the line.
    """
    body = text.strip("\n")
    line += len(text) - len(text.lstrip("\n"))
    rows = [row.strip() for row in body.split("\n")]
    _check_rows(rows, height, width, line)
    cells = np.full((height, width), "#")
    cells[: len(rows), : len(rows[0])] = [list(row) for row in rows]
    (goal,) = _positions(cells, "G", f"goal (G) in the maze that starts at line {line}")
    (start,) = _positions(cells, AGENT, f"agent ({AGENT}) in the maze that starts at line {line}")
    direction = AGENT.index(cells[start[1], start[0]])
    return make_level(jnp.asarray(cells == "#"), start, direction, goal, max_steps)


def read_mazes(text: str, height: int, width: int, max_steps: int = 250) -> list[NamedLevel]:
    """Parse all mazes of a text file, in order.

    Raises:
        ValueError: A maze is malformed or too large, the text has no maze, or a name has no maze
            right after it.
    """
    mazes = []
    for first, block in _blocks(text):
        names = [i for i, row in enumerate(block) if row.lower().startswith("name:")]
        if any(i > 0 for i in names):
            raise ValueError(f"line {first + names[-1]}: a name belongs before a maze, not in it")
        name = block[0][len("name:") :].strip() if names else ""
        rows = block[len(names) :]
        if not rows:
            raise ValueError(f"line {first}: the name {name!r} has no maze right after it")
        level = from_text("\n".join(rows), height, width, max_steps, first + len(names))
        mazes.append(NamedLevel(name, level))
    if not mazes:
        raise ValueError("no maze found; expected lines of # . G and one of > v < ^")
    return mazes


def _blocks(text: str) -> list[tuple[int, list[str]]]:
    """Blocks of adjacent non-empty lines, each with the line number of its first line."""
    rows = [row.strip() for row in text.splitlines()]
    starts = [i for i, row in enumerate(rows) if row and not (i and rows[i - 1])]
    ends = [next((i for i in range(s, len(rows)) if not rows[i]), len(rows)) for s in starts]
    return [(start + 1, rows[start:end]) for start, end in zip(starts, ends, strict=True)]


def check_levels(levels: Level, names: tuple[str, ...]) -> None:
    """Reject levels `[M, ...]` on which no episode can be played.

    Raises:
        ValueError: The agent or the goal is outside the maze or on a wall, both are on the same
            cell, the direction is unknown, the time limit is below 1, or the packed rows and
            columns of the walls disagree. The message names the level.
    """
    # `to_grid` reads only the rows; packing again exposes columns that disagree with the rows.
    grids = jax.jit(jax.vmap(to_grid))(levels)
    again = jax.jit(jax.vmap(lambda grid: make_level(*grid)))(grids)
    consistent = np.all(np.asarray(again.walls == levels.walls), axis=(1, 2))
    limits = np.asarray(levels.max_steps_in_episode)
    walls, starts, directions, goals = (np.asarray(x) for x in grids)
    for i, name in enumerate(names):
        wrong = _fault(walls[i], tuple(starts[i]), int(directions[i]), tuple(goals[i]))
        if limits[i] < 1:
            wrong = f"its time limit is {limits[i]} steps; at least 1 is needed"
        if not consistent[i]:
            wrong = "its packed rows and columns disagree; build levels with make_level"
        if wrong:
            raise ValueError(f"level {name!r}: {wrong}")


def check_level(level: Level, name: str = "level") -> None:
    """Reject a single level on which no episode can be played; see `check_levels`."""
    check_levels(jax.tree.map(lambda x: jnp.asarray(x)[None], level), (name,))


def _fault(walls: np.ndarray, start: tuple, direction: int, goal: tuple) -> str:
    height, width = walls.shape
    for what, (x, y) in (("agent", start), ("goal", goal)):
        if not (0 <= x < width and 0 <= y < height):
            return f"the {what} is at ({x}, {y}), outside the {width} x {height} maze"
        if walls[y, x]:
            return f"the {what} is on a wall, at ({x}, {y})"
    if start == goal:
        return f"agent and goal are on the same cell, ({start[0]}, {start[1]})"
    if not 0 <= direction <= 3:
        return f"direction {direction} is none of 0 (right), 1 (down), 2 (left), 3 (up)"
    return ""


def _check_rows(rows: list[str], height: int, width: int, line: int) -> None:
    if len(rows) > height or len(rows[0]) > width:
        raise ValueError(
            f"line {line}: the maze is {len(rows[0])} x {len(rows)} cells (width x height), larger "
            f"than the environment's {width} x {height}; build the environment with larger height= "
            "and width="
        )
    for number, row in enumerate(rows, start=line):
        unknown = sorted(set(row) - set("#.G" + AGENT))
        if unknown:
            raise ValueError(f"line {number}: {unknown[0]!r} is none of # . G > v < ^")
        if len(row) != len(rows[0]):
            raise ValueError(
                f"line {number}: {len(row)} cells, but the maze's first line has {len(rows[0])}"
            )


def _positions(cells: np.ndarray, kinds: str, what: str) -> list[tuple[int, int]]:
    ys, xs = np.nonzero(np.isin(cells, list(kinds)))
    if len(xs) != 1:
        raise ValueError(f"expected exactly one {what}, found {len(xs)}")
    return [(int(xs[0]), int(ys[0]))]


EMPTY, WALL = 0, 1  # values of the part `layout`


@dataclass(frozen=True)
class MazeCodec:
    """Converts mazes with a fixed size and time limit to parts and back.

    If a maze in a file has a wall under the start or the goal, `encode` removes that wall.
    """

    height: int
    width: int
    max_steps: int

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts of a level, in the order of generation."""
        cells = Cells("layout", (self.height, self.width), ("empty", "wall"), free=("empty",))
        goal = Place("goal", on="layout")
        return cells, goal, Place("start", "layout", apart_from=("goal",)), Choice("direction", 4)

    def encode(self, level: Level) -> dict[str, Array]:
        """Return the parts of one level, by name."""
        grid = to_grid(level)
        goal, start = (cell[1] * self.width + cell[0] for cell in (grid.goal, grid.start))
        # Start and goal are parts of the kind `Place`, which requires free cells of the layout.
        layout = grid.walls.reshape(-1).at[jnp.stack([goal, start])].set(False)
        layout = layout.reshape(grid.walls.shape).astype(jnp.int32)
        return {"layout": layout, "goal": goal, "start": start, "direction": grid.direction}

    def decode(self, values: dict[str, Array]) -> Level:
        """Build a level with the time limit `max_steps` from its parts."""
        goal, start = (self._cell(values[name]) for name in ("goal", "start"))
        walls = values["layout"] == WALL
        return make_level(walls, start, values["direction"], goal, self.max_steps)

    def _cell(self, place: Array) -> Array:
        return jnp.stack([place % self.width, place // self.width])
