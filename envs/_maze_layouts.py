"""Mazes of known families, drawn on the host: the same for ever, on every version of jax and numpy.

Each maze has a random stream of its own, the raw 64-bit words of PCG64, which numpy promises never
to change (its derived distributions may). So maze i of a family does not depend on how many are
made. The families are those of `minimax` (Jiang et al., 2023, "minimax: Efficient Baselines for
Autocurricula in JAX"), which took them over from MiniGrid and the code of Dennis et al., 2020.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

Cell = tuple[int, int]
RIGHT, DOWN = (1, 0), (0, 1)


class Layout(NamedTuple):
    """A maze before it is a level. Cells are x, y; walls are indexed y, x."""

    walls: np.ndarray  # bool[H, W]
    start: Cell
    direction: int  # 0 right, 1 down, 2 left, 3 up
    goal: Cell


def stream(seed: int, number: int) -> np.random.PCG64:
    """The random stream of one maze of a suite."""
    return np.random.PCG64([seed, number])


def corridors(size: int) -> Iterator[tuple[str, Layout]]:
    """Two combs of dead ends around a middle wall, the goal at the bottom of one of them.

    Size 13 has 10 dead ends, size 19 has 16; the agent starts left of the middle wall.
    """
    middle = size // 2
    walls = np.zeros((size, size), bool)
    walls[1:-1, 1:-1:2] = True
    walls[middle, 1:-1] = True
    for y in (middle - 1, middle + 1):
        for x in range(2, size - 2, 2):
            yield f"dead-end-{x}-{y}", Layout(walls, (0, middle), 0, (x, y))


def trivial() -> Iterator[tuple[str, Layout]]:
    """Open squares of 3, 5 and 7 cells a side, a short wall between agent and goal, in 13 x 13."""
    for size, name in ((3, "TrivialMaze"), (5, "TrivialMaze2"), (7, "TrivialMaze3")):
        walls = np.ones((13, 13), bool)
        walls[:size, :size] = False
        walls[size // 2 : size, size // 2] = True
        yield name, Layout(walls, (0, size - 1), 0, (size - 1, size - 1))


def four_rooms(bits: np.random.PCG64, size: int = 17) -> Layout:
    """Four rooms around a cross of walls with one door in each arm; agent and goal in the rooms."""
    middle = size // 2
    walls = np.zeros((size, size), bool)
    walls[middle], walls[:, middle] = True, True
    inside = ~walls
    for first in (0, middle + 1):
        walls[middle, first + _below(bits, middle)] = False
        walls[first + _below(bits, middle), middle] = False
    return Layout(walls, *_placed(bits, inside))


def crossing(bits: np.random.PCG64, size: int = 9, num_crossings: int = 5) -> Layout:
    """Full rows and columns of wall, with gaps along one random monotone path between corners."""
    odd = range(1, size - 1, 2)
    lines = [(axis, place) for axis in (0, 1) for place in odd]
    walls = np.zeros((size, size), bool)
    for _ in range(num_crossings):
        axis, place = lines.pop(_below(bits, len(lines)))
        walls[(place, slice(None)) if axis == 0 else (slice(None), place)] = True
    x, y, step, in_wall = 0, 0, RIGHT, False
    while (x, y) != (size - 1, size - 1):
        if not in_wall:  # a wall is crossed straight
            step = (RIGHT, DOWN)[_below(bits, 2)]
            at_border = x == size - 1 if step == RIGHT else y == size - 1
            step = (DOWN if step == RIGHT else RIGHT) if at_border else step
        x, y = x + step[0], y + step[1]
        in_wall = bool(walls[y, x])
        walls[y, x] = False
    return Layout(walls, (0, 0), 0, (size - 1, size - 1))


def perfect(bits: np.random.PCG64, size: int) -> Layout:
    """A spanning tree of the cells with even coordinates, made by a random depth-first walk."""
    walls = np.ones((size, size), bool)
    x, y = (2 * _below(bits, size // 2 + 1) for _ in range(2))
    walls[y, x] = False
    trail = [(x, y)]
    while trail:
        x, y = trail[-1]
        unseen = [
            (dx, dy)
            for dx, dy in (RIGHT, DOWN, (-1, 0), (0, -1))
            if 0 <= x + 2 * dx < size and 0 <= y + 2 * dy < size and walls[y + 2 * dy, x + 2 * dx]
        ]
        if not unseen:
            trail.pop()
            continue
        dx, dy = unseen[_below(bits, len(unseen))]
        walls[y + dy, x + dx] = walls[y + 2 * dy, x + 2 * dx] = False
        trail.append((x + 2 * dx, y + 2 * dy))
    return Layout(walls, *_placed(bits, ~walls))


def random_walls(bits: np.random.PCG64, num_walls: int, size: int = 13) -> Layout:
    """Walls drawn with replacement, then agent and goal on free cells; perhaps unsolvable."""
    walls = np.zeros(size * size, bool)
    walls[(bits.random_raw(num_walls) % np.uint64(size * size)).astype(int)] = True
    walls = walls.reshape(size, size)
    return Layout(walls, *_placed(bits, ~walls))


def _placed(bits: np.random.PCG64, free: np.ndarray) -> tuple[Cell, int, Cell]:
    """Start, direction and goal, uniform over the free cells."""
    cells = [(int(x), int(y)) for y, x in np.argwhere(free)]
    start, goal = (cells.pop(_below(bits, len(cells))) for _ in range(2))
    return start, _below(bits, 4), goal


def _below(bits: np.random.PCG64, bound: int) -> int:
    """Uniform in 0 .. bound - 1, but for a bias below bound / 2**64."""
    return int(bits.random_raw()) % bound
