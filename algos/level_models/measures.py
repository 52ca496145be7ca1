"""How like each other two sets of levels are: distances to the hub, counts, and divergences.

On the host, in numpy, of the parts of many levels at once.
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
    """Steps between every cell and a source, over free cells; infinite where there is no way.

    A cell that is not free is one step farther than the nearest cell beside it, free or not; no way
    leads through it to free cells.
    """
    num, height, width = free.shape
    steps = np.full((num, height * width), np.inf)
    steps[np.arange(num), source] = 0
    steps = _spread(steps.reshape(free.shape), free)
    return _spread(steps, ~free)


def connected(parts: Sequence[Part], values: Values, cells: Cells) -> Bool[np.ndarray, " M"]:
    """Whether free cells lead from the first place on a grid to all others."""
    names = [part.name for part in parts if isinstance(part, Place) and part.on == cells.name]
    free = free_cells(parts, values, cells)
    if len(names) < 2:
        return np.ones(len(free), bool)
    steps = distances(free, values[names[0]]).reshape(len(free), -1)
    reached = [np.isfinite(steps[np.arange(len(free)), values[name]]) for name in names[1:]]
    return np.logical_and.reduce(reached)


def free_cells(parts: Sequence[Part], values: Values, cells: Cells) -> Bool[np.ndarray, "M H W"]:
    """Free cells, those under places among them."""
    free = np.isin(values[cells.name], [cells.kinds.index(kind) for kind in cells.free])
    flat = free.reshape(len(free), -1)
    for part in parts:
        if isinstance(part, Place) and part.on == cells.name:
            flat[np.arange(len(free)), values[part.name]] = True
    return flat.reshape(free.shape)


def to_hub(
    parts: Sequence[Part], values: Values, cells: Cells
) -> dict[str, Float[np.ndarray, " K"]]:
    """Distances to the hub of every landmark, by kind, and of every free cell, of all levels."""
    free = free_cells(parts, values, cells)
    steps = distances(free, values[cells.hub])
    layout = values[cells.name]
    found = {"free": steps[free]}
    return found | {k: steps[layout == cells.kinds.index(k)] for k in cells.landmarks}


def histograms(parts: Sequence[Part], values: Values) -> dict[str, Float[np.ndarray, " bins"]]:
    """What is compared between sets of levels, as histograms; by what they are of.

    Of cells: how far from the hub the landmarks of a kind are, the unreachable in the last bin, and
    which share of the cells each kind has in a level. Of places on them: nothing. Of numbers: each.
    """
    found: dict[str, np.ndarray] = {}
    for part in parts:
        found |= _of_part(parts, values, part)
    return found


def divergence(a: Shaped[np.ndarray, " bins"], b: Shaped[np.ndarray, " bins"]) -> float:
    """Jensen-Shannon divergence of two histograms, in bits: 0 if they are alike, 1 if disjoint.

    NaN if one of them is empty.

    Source: Lin, 1991, "Divergence Measures Based on the Shannon Entropy".
    """
    if not a.sum() or not b.sum():
        return float("nan")
    p, q = a / a.sum(), b / b.sum()
    middle = (p + q) / 2
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
        farthest = int(np.prod(cells.shape))
        for kind in cells.landmarks:
            far = np.where(np.isfinite(steps[kind]), steps[kind], farthest).astype(int)
            found[f"distance of {kind}"] = np.bincount(far, minlength=farthest + 1).astype(float)
    for i, kind in enumerate(cells.kinds):
        found[f"share of {kind}"] = _shares((layout == i).mean((1, 2)))
    return found


def _shares(values: Float[np.ndarray, " M"]) -> Float[np.ndarray, " bins"]:
    """A histogram over 0 .. 1; what is outside falls into the outermost bins."""
    return np.histogram(values.clip(0, 1), NUM_BINS, (0.0, 1.0))[0].astype(float)


def _spread(
    steps: Float[np.ndarray, "M H W"], through: Bool[np.ndarray, "M H W"]
) -> Float[np.ndarray, "M H W"]:
    """Distances once they have spread over the cells that they may pass."""
    while True:
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
    some = p > 0
    return float((p[some] * np.log2(p[some] / q[some])).sum())
