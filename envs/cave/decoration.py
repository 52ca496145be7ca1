"""From a layout of rock to a level: goal, moss near it, lava far from it, start half-way.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", whose levels are decorated likewise.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

EMPTY, WALL, LAVA, MOSS = range(4)
DEPTH = 3
"""How far behind the rock that one can see lava still lies, in cells."""


class Share(NamedTuple):
    """How much of a kind there is, and how strongly it keeps to its place.

    Attributes:
        low: least share of the cells that it can be in.
        high: largest.
        temperature: T; the cell of rank k is drawn ∝ k^(-1/T).
    """

    low: float
    high: float
    temperature: float = 1.0


class Cave(NamedTuple):
    """A level as plain files have it."""

    tiles: UInt8[np.ndarray, "H W"]
    start: Int[np.ndarray, "2"]  # x, y
    goal: Int[np.ndarray, "2"]  # x, y


def decorate(
    rng: np.random.Generator, walls: Bool[np.ndarray, "H W"], moss: Share, lava: Share
) -> Cave:
    """A level on the largest connected part of a layout; the other parts become rock.

    The goal is uniform on the free cells. Moss is drawn by rank of the distance to the goal, the
    nearest first. Lava is drawn among the rock at most `DEPTH` cells from some that can be reached,
    by rank of its distance, the farthest first; so it never blocks a way. The start is uniform
    among the cells whose distance is the median.

    Args:
        rng: of the level.
        walls: where there is rock.
        moss: its share of the free cells.
        lava: its share of the rock where it can be.
    """
    walls = ~largest_part(~walls)
    tiles = np.where(walls, WALL, EMPTY).astype(np.uint8)
    free = np.argwhere(~walls)
    goal = free[rng.integers(len(free))]
    distance = distances(~walls, goal)
    known = distance[tuple(free.T)]
    others = free[known > 0]
    nearest_first = others[np.argsort(distance[tuple(others.T)], kind="stable")]
    tiles[tuple(_draw(rng, nearest_first, moss).T)] = MOSS
    behind = rock_distances(distance)
    candidates = np.argwhere(behind >= 0)
    farthest_first = candidates[np.argsort(-behind[tuple(candidates.T)], kind="stable")]
    tiles[tuple(_draw(rng, farthest_first, lava).T)] = LAVA
    half_way = others[distance[tuple(others.T)] == int(np.median(known))]
    start = half_way[rng.integers(len(half_way))]
    tiles[tuple(start)] = EMPTY
    return Cave(tiles, start[::-1], goal[::-1])


def largest_part(free: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The largest set of free cells that are connected by their sides; the first of equal ones."""
    left, best = free.copy(), np.zeros_like(free)
    while left.any():
        part = distances(left, np.argwhere(left)[0]) >= 0
        left &= ~part
        best = part if part.sum() > best.sum() else best
    return best


def distances(free: Bool[np.ndarray, "H W"], goal: Int[np.ndarray, "2"]) -> Int[np.ndarray, "H W"]:
    """Steps from each free cell to the goal (row, column); -1 where there is no way."""
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


def rock_distances(distance: Int[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """How far rock is from the goal, as one walks, and then straight through; -1 if too deep.

    Rock beside a free cell is one step farther than that cell, and other rock as many more as it
    lies from rock like that, at most `DEPTH`; of several ways the shortest counts. (As published,
    rock beside a free cell is never nearer than that cell. Here the back of a wall two cells thick
    is near if its front is: seen through the wall, as an agent does.)

    Args:
        distance: of the free cells, -1 where there is rock.
    """
    rock = distance < 0
    far = distance.size + DEPTH + 2
    padded = np.pad(np.where(rock, far, distance), 1, constant_values=far)
    around = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    seen = np.where(rock, np.minimum.reduce(around) + 1, far)
    faces = np.argwhere(rock & (seen < far))
    found = np.full(distance.shape, -1)
    for cell in np.argwhere(rock):
        off = np.abs(faces - cell).sum(1)
        near = off <= DEPTH
        if near.any():
            found[tuple(cell)] = (off + seen[tuple(faces.T)])[near].min()
    return found


def _draw(rng: np.random.Generator, cells: Int[np.ndarray, "n 2"], share: Share) -> np.ndarray:
    """Some of the cells, without replacement, the first ones the likeliest."""
    count = int(rng.uniform(share.low, share.high) * len(cells))
    weight = np.arange(1.0, len(cells) + 1) ** (-1 / share.temperature)
    # The largest of weight-scaled exponentials: a draw without replacement in one go.
    order = np.argsort(rng.exponential(size=len(cells)) / weight, kind="stable")
    return cells[order[:count]]


def _beside(cells: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    padded = np.pad(cells, 1)
    return padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
