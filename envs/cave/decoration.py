"""Decoration of a wall layout with a goal, moss near the goal, lava far from it, and a start.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", whose levels are decorated in this manner.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

EMPTY, WALL, LAVA, MOSS = range(4)
DEPTH = 3
"""Largest Manhattan distance of lava from the nearest wall cell that touches a free cell."""


class Share(NamedTuple):
    """Amount of moss or lava, and how strictly its placement follows a ranking of the cells.

    Cells are ranked by their distance from the goal (see `decorate`).

    Attributes:
        low: Smallest fraction of the candidate cells that become moss or lava, 0 .. 1. A level
            draws its fraction uniformly from [low, high).
        high: Largest fraction of the candidate cells that become moss or lava, 0 .. 1.
        temperature: T. The candidate of rank k, counted from 1, is drawn with probability
            proportional to k^(-1/T).
    """

    low: float
    high: float
    temperature: float = 1.0


class Cave(NamedTuple):
    """One level in the format of plain files (see `files`)."""

    tiles: UInt8[np.ndarray, "H W"]
    start: Int[np.ndarray, "2"]  # x, y
    goal: Int[np.ndarray, "2"]  # x, y


def decorate(
    rng: np.random.Generator, walls: Bool[np.ndarray, "H W"], moss: Share, lava: Share
) -> Cave:
    """Decorate the largest connected part of a layout; the other parts become wall.

    The goal is drawn uniformly from the free cells. Moss is drawn from the other free cells, which
    are ranked by distance to the goal, nearest first. Lava replaces wall cells, so it never blocks
    a path. The candidates for lava are the wall cells within Manhattan distance `DEPTH` of a wall
    cell that touches a free cell. These candidates are ranked by `wall_distances`, farthest first.
    The start is drawn uniformly from the free cells at the median distance from the goal.

    Args:
        rng: Random generator, consumed.
        walls: True on wall cells, [H, W].
        moss: Fraction of the free cells that becomes moss.
        lava: Fraction of the candidate wall cells that becomes lava.
    """
    walls = ~largest_part(~walls)
    tiles = np.where(walls, WALL, EMPTY).astype(np.uint8)
    free = np.argwhere(~walls)
    goal = free[rng.integers(len(free))]
    distance = distances(~walls, goal)
    # No value is -1, because all free cells are connected. Only the value of the goal is 0.
    known = distance[tuple(free.T)]
    others = free[known > 0]
    nearest_first = others[np.argsort(distance[tuple(others.T)], kind="stable")]
    tiles[tuple(_draw(rng, nearest_first, moss).T)] = MOSS
    behind = wall_distances(distance)
    candidates = np.argwhere(behind >= 0)
    farthest_first = candidates[np.argsort(-behind[tuple(candidates.T)], kind="stable")]
    tiles[tuple(_draw(rng, farthest_first, lava).T)] = LAVA
    # If the median lies between two distances, int() rounds it down to a distance that occurs.
    half_way = others[distance[tuple(others.T)] == int(np.median(known))]
    start = half_way[rng.integers(len(half_way))]
    tiles[tuple(start)] = EMPTY
    return Cave(tiles, start[::-1], goal[::-1])  # (row, column) to (x, y)


def largest_part(free: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Return the largest 4-connected set of free cells; among equally large sets, the first."""
    left, best = free.copy(), np.zeros_like(free)
    while left.any():
        part = distances(left, np.argwhere(left)[0]) >= 0
        left &= ~part
        best = part if part.sum() > best.sum() else best
    return best


def distances(free: Bool[np.ndarray, "H W"], goal: Int[np.ndarray, "2"]) -> Int[np.ndarray, "H W"]:
    """Return the number of steps from each free cell to the goal; -1 where no path exists.

    Args:
        free: True on free cells, [H, W].
        goal: Row and column of the goal.
    """
    found = np.full(free.shape, -1)
    reached = np.zeros_like(free)
    reached[tuple(goal)] = True
    steps = 0
    while True:
        found[reached & (found < 0)] = steps
        wider = (reached | _beside(reached)) & free | reached
        if (wider == reached).all():
            return found
        reached, steps = wider, steps + 1


def wall_distances(distance: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Distance of each wall cell from the goal, first through free cells and then through walls.

    A route to a wall cell has two parts. The first part leads from the goal through free cells to a
    wall cell that touches a free cell. The second part leads from this cell to the wall cell in
    question; its length is their Manhattan distance, which may be at most `DEPTH`. The result is
    the length of the shortest route.

    Differs from the definition of Garcin et al., in which a wall cell that touches a free cell is
    never nearer to the goal than this free cell. In rlgen a cell on the back of a wall can be near
    the goal because the front of the wall is near the goal. This is intended, because the agent
    sees through walls.

    Args:
        distance: Distance of each free cell from the goal, [H, W]; -1 on wall cells.

    Returns:
        Distance of each wall cell, [H, W]; -1 on free cells and on wall cells without a route.
    """
    wall = distance < 0
    far = distance.size + DEPTH + 2  # larger than any real distance
    padded = np.pad(np.where(wall, far, distance), 1, constant_values=far)
    around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    seen = np.where(wall, np.minimum.reduce(around) + 1, far)
    faces = np.argwhere(wall & (seen < far))  # wall cells next to a free cell, [n, 2]
    found = np.full(distance.shape, -1)
    for cell in np.argwhere(wall):
        off = np.abs(faces - cell).sum(1)
        near = off <= DEPTH
        if near.any():
            found[tuple(cell)] = (off + seen[tuple(faces.T)])[near].min()
    return found


def _draw(rng: np.random.Generator, cells: Int[np.ndarray, "n 2"], share: Share) -> np.ndarray:
    """Draw a fraction of the cells without replacement; earlier cells are more likely."""
    count = int(rng.uniform(share.low, share.high) * len(cells))
    weight = np.arange(1.0, len(cells) + 1) ** (-1 / share.temperature)
    # Each cell gets an independent variable Exp(1) / weight. The `count` cells with the smallest
    # values are a weighted draw without replacement, because the next smallest value belongs to
    # each remaining cell with probability proportional to its weight.
    order = np.argsort(rng.exponential(size=len(cells)) / weight, kind="stable")
    return cells[order[:count]]


def _beside(cells: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    padded = np.pad(cells, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
