"""Layouts that resemble a small drawing: wave function collapse with overlapping patterns.

Every N x N window of a layout, called a pattern, occurs in the drawing, possibly rotated or
mirrored. At the beginning all patterns are possible at all cells, and a cell is undecided while
several patterns are possible. Each step selects the undecided cell with the fewest possible
patterns. It draws one of these patterns with probability proportional to the pattern's frequency in
the drawing. All patterns that this choice excludes at other cells are then removed. If a cell has
no pattern left, the generation fails.

Source: Gumin, 2016, "WaveFunctionCollapse", with the choices that Garcin et al., 2024, "DRED",
describe for their caves: there is no backtracking, and noise that is drawn once breaks ties.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

DRAWINGS = Path(__file__).parent / "data" / "drawings.txt"

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # (row, column) offsets to the four neighbours


class Drawing(NamedTuple):
    """Drawing that layouts should resemble."""

    name: str
    walls: Bool[np.ndarray, "h w"]
    size: int  # N, side of the patterns in cells
    wraps: bool  # whether patterns wrap around the edges of the drawing


class Patterns(NamedTuple):
    """The P patterns of a drawing."""

    walls: Bool[np.ndarray, "P N N"]
    weight: Float[np.ndarray, " P"]  # number of occurrences in the drawing
    fits: Float32[np.ndarray, "4 P P"]  # [step, p, q]: 1 if q may lie one step from p


def read_drawings(path: Path = DRAWINGS) -> dict[str, Drawing]:
    """Read the drawings in a text file and return them by name.

    The head of the file describes the format.
    """
    found: dict[str, Drawing] = {}
    for part in path.read_text(encoding="utf-8").split("\n= ")[1:]:
        head, *rows = part.split("\n")
        name, size, edges = head.split()
        walls = np.array([[mark == "#" for mark in row] for row in rows if row])
        found[name] = Drawing(name, walls, int(size), edges == "wraps")
    return found


def patterns_of(drawing: Drawing) -> Patterns:
    """Collect all windows of a drawing under the eight symmetries of the square."""
    size, walls = drawing.size, drawing.walls
    if drawing.wraps:
        walls = np.pad(walls, ((0, size - 1), (0, size - 1)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(walls, (size, size))
    windows = windows.reshape(-1, size, size)
    # [8 n, N, N]: four rotations, and the mirror image of each.
    turned = [np.rot90(windows, k, (1, 2)) for k in range(4)]
    every = np.concatenate([*turned, *(x[:, :, ::-1] for x in turned)])
    found, weight = np.unique(every.reshape(len(every), -1), axis=0, return_counts=True)
    found = found.reshape(-1, size, size)
    fits = np.stack([_fits(found, *step) for step in _STEPS]).astype(np.float32)
    return Patterns(found, weight.astype(float), fits)


def _fits(walls: Bool[np.ndarray, "P N N"], down: int, right: int) -> Bool[np.ndarray, "P P"]:
    """Return whether patterns p and q agree on their overlap if q is shifted one step, [p, q]."""
    size = walls.shape[1]
    rows, columns = (slice(max(step, 0), size + min(step, 0)) for step in (down, right))
    there_rows, there_columns = (slice(max(-s, 0), size + min(-s, 0)) for s in (down, right))
    first = walls[:, rows, columns].reshape(len(walls), -1)
    second = walls[:, there_rows, there_columns].reshape(len(walls), -1)
    return (first[:, None] == second[None]).all(-1)


def layout(
    rng: np.random.Generator, patterns: Patterns, shape: tuple[int, int], wraps: bool = False
) -> Bool[np.ndarray, "H W"] | None:
    """Generate a layout, True on wall cells; return None if a cell has no pattern left.

    Args:
        rng: Random generator, consumed.
        patterns: Patterns of the drawing.
        shape: H, W of the layout.
        wraps: Whether patterns wrap around the edges of the layout.
    """
    num_cells, num = shape[0] * shape[1], len(patterns.weight)
    # open_to[c, p] is True while pattern p is possible at cell c. left[c] counts these patterns.
    open_to = np.ones((num_cells, num), bool)
    left = np.full(num_cells, num, float)
    # The noise is below 1, so it only breaks ties between equal counts.
    noise = rng.random(num_cells) * 0.1
    around = [list(_neighbours(cell, shape, wraps)) for cell in range(num_cells)]
    while True:
        undecided = left > 1
        if not undecided.any():
            # Each cell shows the top left cell of its one remaining pattern.
            first = patterns.walls[:, 0, 0]
            return first[open_to.argmax(1)].reshape(shape)
        cell = int(np.where(undecided, left + noise, np.inf).argmin())
        chance = np.cumsum(patterns.weight * open_to[cell])
        chosen = int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))
        open_to[cell] = np.arange(num) == chosen
        left[cell] = 1
        if not _rule_out(cell, open_to, left, around, patterns.fits):
            return None


def _rule_out(
    cell: int,
    open_to: Bool[np.ndarray, "cells P"],
    left: Float[np.ndarray, " cells"],
    around: list[list[tuple[int, int]]],
    fits: Float32[np.ndarray, "4 P P"],
) -> bool:
    """Remove, in place, the patterns that the decision at `cell` excludes at other cells.

    Returns:
        False if a cell has no pattern left, True otherwise.
    """
    changed = [cell]
    while changed:
        here = changed.pop()
        possible = open_to[here].astype(np.float32)
        for step, there in around[here]:
            # A pattern stays possible if at least one pattern of `here` is compatible with it.
            open_to[there] &= possible @ fits[step] > 0
            count = int(open_to[there].sum())
            changed += [there] * bool(0 < count < left[there])
            left[there] = count
        if not left[[there for _, there in around[here]]].all():
            return False
    return True


def _neighbours(cell: int, shape: tuple[int, int], wraps: bool) -> Iterator[tuple[int, int]]:
    row, column = divmod(cell, shape[1])
    for step, (down, right) in enumerate(_STEPS):
        there = (row + down, column + right)
        inside = 0 <= there[0] < shape[0] and 0 <= there[1] < shape[1]
        if inside or wraps:
            yield step, there[0] % shape[0] * shape[1] + there[1] % shape[1]
