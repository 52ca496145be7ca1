"""Comparison of two sets of levels by distances, histograms and divergences.

The functions use numpy on the host and process many levels at once. A level consists of the parts
that `rlgen.codec` defines. A place is one cell of a grid, such as the goal. The hub is the place
from which distances are measured. Landmarks are kinds of cells whose positions depend on the hub.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from rlgen.codec import Cells, Choice, Flags, Numbers, Part, Place

Values = dict[str, np.ndarray]
NUM_BINS = 20


def distances(
    free: Bool[np.ndarray, "M H W"], source: Int[np.ndarray, " M"]
) -> Float[np.ndarray, "M H W"]:
    """Return the number of steps from a source cell to every cell, infinite for unreachable cells.

    Paths to free cells lead only over free cells. The distance to a cell that is not free is one
    more than the smallest distance to one of its neighbours.

    Args:
        free: Mask of the free cells of M levels.
        source: Flat index of the source cell in each level.
    """
    num, height, width = free.shape
    steps = np.full((num, height * width), np.inf)
    # The pair of index arrays selects the cell source[m] in each level m.
    steps[np.arange(num), source] = 0
    # Spread first over the free cells only, then from these cells into the remaining cells.
    steps = _spread(steps.reshape(free.shape), free)
    return _spread(steps, ~free)


def connected(parts: Sequence[Part], values: Values, cells: Cells) -> Bool[np.ndarray, " M"]:
    """Return, for each level, whether all places on a grid are reachable from the first place."""
    names = [part.name for part in parts if isinstance(part, Place) and part.on == cells.name]
    free = free_cells(parts, values, cells)
    if len(names) < 2:
        return np.ones(len(free), bool)  # no pair of places to connect
    steps = distances(free, values[names[0]]).reshape(len(free), -1)
    reached = [np.isfinite(steps[np.arange(len(free)), values[name]]) for name in names[1:]]
    return np.logical_and.reduce(reached)


def free_cells(parts: Sequence[Part], values: Values, cells: Cells) -> Bool[np.ndarray, "M H W"]:
    """Return a mask of the free cells, including every cell on which a place lies."""
    free = np.isin(values[cells.name], [cells.kinds.index(kind) for kind in cells.free])
    flat = free.reshape(len(free), -1)
    for part in parts:
        if isinstance(part, Place) and part.on == cells.name:
            flat[np.arange(len(free)), values[part.name]] = True
    return flat.reshape(free.shape)


def to_hub(
    parts: Sequence[Part], values: Values, cells: Cells
) -> dict[str, Float[np.ndarray, " K"]]:
    """Return the distances from the hub to all landmarks, by kind, and to all free cells.

    The values of all levels are concatenated; the key of the free cells is "free".
    """
    free = free_cells(parts, values, cells)
    steps = distances(free, values[cells.hub])
    layout = values[cells.name]
    found = {"free": steps[free]}
    return found | {k: steps[layout == cells.kinds.index(k)] for k in cells.landmarks}


def histograms(parts: Sequence[Part], values: Values) -> dict[str, Float[np.ndarray, " bins"]]:
    """Return the histograms that are used to compare sets of levels; the keys are their names.

    For each kind of landmark, a histogram counts landmarks by their distance from the hub;
    unreachable landmarks are in the last bin. For each kind of cell, a histogram counts levels by
    the fraction of cells that have this kind. A choice has one histogram of its options. Flags and
    numbers have one histogram for each entry. Places have no histogram.
    """
    found: dict[str, np.ndarray] = {}
    for part in parts:
        found |= _of_part(parts, values, part)
    return found


def divergence(a: Shaped[np.ndarray, " bins"], b: Shaped[np.ndarray, " bins"]) -> float:
    """Jensen-Shannon divergence in bits between two histograms; NaN if a histogram is empty.

    The divergence is 0 between identical histograms and 1 between disjoint ones.

    Source: Lin, 1991, "Divergence Measures Based on the Shannon Entropy".
    """
    if not a.sum() or not b.sum():
        return float("nan")
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2  # positive wherever p or q is positive, so the entropies are finite
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)


def _of_part(parts: Sequence[Part], values: Values, part: Part) -> dict[str, np.ndarray]:
    value = values[part.name]
    if isinstance(part, Cells):
        return _of_cells(parts, values, part)
    if isinstance(part, Choice):
        return {part.name: np.bincount(value, minlength=part.num).astype(float)}
    if isinstance(part, Numbers):
        return {f"{part.name} {i}": _shares(value[:, i]) for i in range(part.size)}
    if isinstance(part, Flags):
        shares = value.mean(0)
        return {f"{part.name} {i}": np.array([1 - x, x]) for i, x in enumerate(shares)}
    return {}


def _of_cells(parts: Sequence[Part], values: Values, cells: Cells) -> dict[str, np.ndarray]:
    layout = values[cells.name]
    found = {}
    if cells.hub:
        steps = to_hub(parts, values, cells)
        # A path has fewer steps than there are cells, so the last bin can mean "unreachable".
        farthest = int(np.prod(cells.shape))
        for kind in cells.landmarks:
            far = np.where(np.isfinite(steps[kind]), steps[kind], farthest).astype(int)
            found[f"distance of {kind}"] = np.bincount(far, minlength=farthest + 1).astype(float)
    for i, kind in enumerate(cells.kinds):
        found[f"share of {kind}"] = _shares((layout == i).mean((1, 2)))
    return found


def _shares(values: Float[np.ndarray, " M"]) -> Float[np.ndarray, " bins"]:
    """Return a histogram over [0, 1]; values outside this range count in the outermost bins."""
    return np.histogram(values.clip(0, 1), NUM_BINS, (0.0, 1.0))[0].astype(float)


def _spread(
    steps: Float[np.ndarray, "M H W"], through: Bool[np.ndarray, "M H W"]
) -> Float[np.ndarray, "M H W"]:
    """Propagate distances to neighbouring cells in `through` until they no longer change."""
    while True:
        # Minimum over the four neighbours, with infinity outside the grid.
        padded = np.pad(steps, ((0, 0), (1, 1), (1, 1)), constant_values=np.inf)
        sides = (
            padded[:, :-2, 1:-1],
            padded[:, 2:, 1:-1],
            padded[:, 1:-1, :-2],
            padded[:, 1:-1, 2:],
        )
        wider = np.where(through, np.minimum(steps, np.minimum.reduce(sides) + 1), steps)
        if np.array_equal(wider, steps):
            return steps
        steps = wider


def _relative_entropy(p: Float[np.ndarray, " bins"], q: Float[np.ndarray, " bins"]) -> float:
    some = p > 0  # 0 log 0 = 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())
