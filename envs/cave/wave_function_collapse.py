"""Layouts that look like a small drawing: wave function collapse with overlapping patterns.

Every N x N window of a layout occurs in the drawing, turned or mirrored perhaps. The least decided
cell is decided first, its pattern drawn by how often it occurs in the drawing, and what that rules
out elsewhere is ruled out; a cell without a pattern left ends the attempt.

Source: Gumin, 2016, "WaveFunctionCollapse", with the choices that Garcin et al., 2024, "DRED",
describe for their caves: no second attempt, ties broken by noise that is drawn once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32

DRAWINGS = Path(__file__).parent / "data" / "drawings.txt"

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # to the neighbours, rows and columns


class Drawing(NamedTuple):
    """What layouts are to look like."""

    name: str
    walls: Bool[np.ndarray, "h w"]
    size: int  # N, of the patterns
    wraps: bool  # whether the drawing's patterns go on over its edges


class Patterns(NamedTuple):
    """The P patterns of a drawing."""

    walls: Bool[np.ndarray, "P N N"]
    weight: Float[np.ndarray, " P"]  # how often each occurs
    fits: Float32[np.ndarray, "4 P P"]  # 1 where the second may lie one step from the first


def read_drawings(path: Path = DRAWINGS) -> dict[str, Drawing]:
    """The drawings of a text file by name; the file says how it is read."""
    found: dict[str, Drawing] = {}
    for part in path.read_text(encoding="utf-8").split("\n= ")[1:]:
        head, *rows = part.split("\n")
        name, size, edges = head.split()
        walls = np.array([[mark == "#" for mark in row] for row in rows if row])
        found[name] = Drawing(name, walls, int(size), edges == "wraps")
    return found


def patterns_of(drawing: Drawing) -> Patterns:
    """All windows of a drawing under the eight symmetries of the square."""
    size, walls = drawing.size, drawing.walls
    if drawing.wraps:
        walls = np.pad(walls, ((0, size - 1), (0, size - 1)), mode="wrap")
    windows = np.lib.stride_tricks.sliding_window_view(walls, (size, size))
    windows = windows.reshape(-1, size, size)
    turned = [np.rot90(windows, k, (1, 2)) for k in range(4)]
    every = np.concatenate([*turned, *(x[:, :, ::-1] for x in turned)])
    found, weight = np.unique(every.reshape(len(every), -1), axis=0, return_counts=True)
    found = found.reshape(-1, size, size)
    fits = np.stack([_fits(found, *step) for step in _STEPS]).astype(np.float32)
    return Patterns(found, weight.astype(float), fits)


def _fits(walls: Bool[np.ndarray, "P N N"], down: int, right: int) -> Bool[np.ndarray, "P P"]:
    """Whether the second pattern agrees with the first where they overlap, a step away."""
    size = walls.shape[1]
    rows, columns = (slice(max(step, 0), size + min(step, 0)) for step in (down, right))
    there_rows, there_columns = (slice(max(-s, 0), size + min(-s, 0)) for s in (down, right))
    first = walls[:, rows, columns].reshape(len(walls), -1)
    second = walls[:, there_rows, there_columns].reshape(len(walls), -1)
    return (first[:, None] == second[None]).all(-1)


def layout(
    rng: np.random.Generator, patterns: Patterns, shape: tuple[int, int], wraps: bool = False
) -> Bool[np.ndarray, "H W"] | None:
    """Where there is rock; None if the attempt came to a cell without a pattern.

    Args:
        rng: of the attempt.
        patterns: to be made of.
        shape: H, W.
        wraps: whether the layout goes on over its edges.
    """
    num_cells, num = shape[0] * shape[1], len(patterns.weight)
    open_to = np.ones((num_cells, num), bool)
    left = np.full(num_cells, num, float)
    noise = rng.random(num_cells) * 0.1
    around = [list(_neighbours(cell, shape, wraps)) for cell in range(num_cells)]
    while True:
        undecided = left > 1
        if not undecided.any():
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
    """What a decision rules out elsewhere; False if a cell is left without a pattern."""
    changed = [cell]
    while changed:
        here = changed.pop()
        possible = open_to[here].astype(np.float32)
        for step, there in around[here]:
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
