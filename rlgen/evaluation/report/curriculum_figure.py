"""Figure of a run's curriculum over time: origins, scores and features of its levels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from rlgen.evaluation.generalisation.level_facts import Facts
from rlgen.evaluation.report.figures import THEMES, WIDTH, Theme, dress
from rlgen.runs.curriculum_log import ORIGINS, LevelLog
from rlgen.types import NEW

BINS = 24  # maximum number of points of a line; each point pools several updates
TIMES = 6  # number of columns of example levels
RANKS = {"high": 0.95, "middle": 0.5, "low": 0.05}  # rows of example levels: quantiles of the score
LABELS = {"age": "age (updates)", "depth": "edits since generated"}
LABELS |= {"lifetime": "lifetime (updates)"}

_Panel = tuple[str, Callable[[Axes], None]]


class Pieces(NamedTuple):
    """Partition of a run's U updates into B pieces, with their positions on the x axis."""

    of_update: Int[np.ndarray, " U"]  # piece of each update
    x: Float[np.ndarray, " B"]
    noun: str  # unit of `x`: env steps or updates
    unit: str  # label of the x axis


class Examples(NamedTuple):
    """Images of levels that were trained on in B pieces of a run; see `choose_examples`."""

    x: Float[np.ndarray, " B"]
    noun: str  # unit of `x`: env steps or updates
    # Ordered by piece; within a piece, in the order of `RANKS`.
    images: tuple[UInt8[np.ndarray, "H W 3"] | None, ...]


def history(
    log: LevelLog, facts: Facts, examples: Examples | None = None, theme: str = "light"
) -> Figure:
    """Draw origin, score, lineage and features of the levels trained on, against env steps.

    Lines show medians, and bands show quartiles, over levels, slots and seeds. The dashed line is
    the median of all new levels. Example levels from training are shown below the panels.

    Args:
        log: Level log, see `rlgen.runs.curriculum_log.read`.
        facts: Level features, see `rlgen.evaluation.generalisation.level_facts.find_facts`.
        examples: Example levels, see `rlgen.evaluation.from_runs.curricula.find_examples`; if None,
            no examples are shown.
        theme: `light` or `dark`.
    """
    look, pieces = THEMES[theme], in_pieces(log)
    panels = _panels(log, facts, pieces, look)
    rows = (len(panels) + 1) // 2
    heights = [1.55 * rows + 0.55, *([3.1] if examples else [])]
    size = (WIDTH, sum(heights))
    figure = Figure(figsize=size, facecolor=look.paper, layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    grid = parts[0].subplots(rows, 2, squeeze=False).ravel()
    for axes, (title, draw) in zip(grid, panels, strict=False):
        dress(axes, look)
        axes.grid(color=look.grid, linewidth=0.6)
        draw(axes)
        axes.set_title(title, loc="left", color=look.ink, fontsize=9)
        axes.set_xlim(0, 1.02 * max(pieces.x[-1], 1))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.tick_params(labelsize=8)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    parts[0].supxlabel(pieces.unit, color=look.ink, fontsize=9)
    _legend(parts[0], log, look)
    if examples:
        _examples(parts[1], examples, look)
    return figure


def in_pieces(log: LevelLog, num: int = BINS) -> Pieces:
    """Partition the updates into at most `num` pieces of nearly equal length.

    The x axis shows env steps. If env steps are unknown, it shows updates.
    """
    num_updates = len(log.update)
    num = min(num, num_updates)
    of_update = np.arange(num_updates) * num // num_updates
    known = bool(np.isfinite(log.env_steps).all())
    x = log.env_steps if known else log.update.astype(float)
    # Mean x of the updates in each piece, [B]. No piece is empty, because num <= num_updates.
    middle = np.bincount(of_update, x) / np.bincount(of_update)
    names = ("env steps", "env steps (all but evaluation)") if known else ("updates", "updates")
    return Pieces(of_update, middle, *names)


def choose_examples(log: LevelLog, times: Pieces) -> tuple[Int[np.ndarray, "3"] | None, ...]:
    """Choose levels with a high, a middle and a low score in each piece.

    Only levels that contributed gradients are chosen.

    Returns:
        Indices (update, seed, slot) of levels in the log, ordered by piece and within a piece as in
        `RANKS`. If no level of a piece has a score, the piece's indices are None.
    """
    of_update = np.broadcast_to(times.of_update[:, None, None], log.score.shape)
    candidates = trained_on(log) & np.isfinite(log.score)
    found = []
    for piece in range(len(times.x)):
        # A stable sort makes the choice deterministic if scores are equal.
        here = np.argwhere(candidates & (of_update == piece))
        order = here[np.argsort([log.score[tuple(at)] for at in here], kind="stable")]
        last = len(order) - 1
        found += [order[round(q * last)] if len(order) else None for q in RANKS.values()]
    return tuple(found)


def trained_on(log: LevelLog) -> Bool[np.ndarray, "U S n"]:
    """Mask of levels whose data contributed gradients."""
    return log.weight > 0


def quartiles(
    values: np.ndarray, piece: Int[np.ndarray, " M"], num: int
) -> Float[np.ndarray, "B 3"]:
    """Lower quartile, median and upper quartile of each piece; NaN if it has no finite value."""
    values = values.astype(float)
    parts = [values[(piece == i) & np.isfinite(values)] for i in range(num)]
    none = np.full(3, np.nan)
    return np.stack([np.percentile(part, (25, 50, 75)) if part.size else none for part in parts])


def _panels(log: LevelLog, facts: Facts, pieces: Pieces, look: Theme) -> list[_Panel]:
    """Titles of the panels, each with the function that draws the panel."""
    piece = np.broadcast_to(pieces.of_update[:, None, None], log.score.shape)  # [U, S, n]
    trained, new = trained_on(log), log.origin == NEW

    # These functions bind `values`. Lambdas in the loops below would all use the last `values`.
    def of_all(values: np.ndarray, reference: bool) -> Callable[[Axes], None]:
        also = new if reference else np.zeros_like(new)
        return lambda axes: _curves(axes, pieces, (values, piece, trained, also), look)

    def of_sample(values: np.ndarray) -> Callable[[Axes], None]:
        # Features are known only for the levels in `facts`, which are a sample of the log.
        chosen = (values, facts.of(piece), facts.of(trained), facts.of(new))
        return lambda axes: _curves(axes, pieces, chosen, look)

    panels: list[_Panel] = [
        ("levels by origin", lambda axes: _shares(axes, log, pieces, look)),
        ("score", of_all(log.score, reference=True)),
    ]
    for name, values in log.lineage.items():
        if not values.any():  # for example the number of edits, if the method edits no levels
            continue
        panels.append((LABELS.get(name, _spoken(name)), of_all(values, reference=False)))
    panels += [(_spoken(name), of_sample(values)) for name, values in facts.features.items()]
    return panels


def _curves(axes: Axes, pieces: Pieces, chosen: tuple, look: Theme) -> None:
    """Draw one quantity of the levels that contributed gradients and of all new levels.

    A boolean quantity is drawn as a fraction of levels, a number as median and quartiles.
    """
    values, piece, trained, new = chosen
    num = len(pieces.x)
    if values.dtype == bool:
        for mask, style in ((new, _new(look)), (trained, _trained(look))):
            share = np.array([_mean(values[mask & (piece == i)]) for i in range(num)])
            _line(axes, pieces.x, share, style)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(-0.03, 1.03)
        return
    low, middle, high = quartiles(values[trained], piece[trained], num).T
    there = np.isfinite(middle)
    axes.fill_between(
        pieces.x[there], low[there], high[there], color=look.ink, alpha=0.18, linewidth=0
    )
    _line(axes, pieces.x, middle, _trained(look))
    if new.any():
        _line(axes, pieces.x, quartiles(values[new], piece[new], num)[:, 1], _new(look))
    # Counts, such as the number of edits or walls, get integer ticks.
    finite = values[np.isfinite(values)]
    whole = bool((finite == np.round(finite)).all())
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=whole))


def _shares(axes: Axes, log: LevelLog, pieces: Pieces, look: Theme) -> None:
    """Draw the fraction of levels with each origin as stacked areas, one step per piece."""
    num = len(pieces.x)
    # [3, B]: one row per origin, as stackplot expects.
    shares = np.stack([log.share[pieces.of_update == i].mean(0) for i in range(num)], axis=1)
    # A fraction belongs to all updates of its piece, so it is drawn in steps from edge to edge.
    inner = (pieces.x[1:] + pieces.x[:-1]) / 2
    end = 2 * pieces.x[-1] - inner[-1] if num > 1 else 2 * pieces.x[-1]
    edges = np.array([0.0, *inner, end])
    shares = np.append(shares, shares[:, -1:], axis=1)
    axes.stackplot(
        edges, shares, step="post", colors=look.runs[: len(ORIGINS)], alpha=0.75, linewidth=0
    )
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylim(0, 1)


def _examples(part: Any, examples: Examples, look: Theme) -> None:
    """Draw example levels: a column per piece of the run, a row per rank of the score."""
    grid = part.subplots(len(RANKS), len(examples.x), squeeze=False)
    # The transposed grid is iterated by column, which is the order of `images`.
    for axes, image in zip(grid.T.flat, examples.images, strict=True):
        axes.set(xticks=[], yticks=[])
        axes.patch.set_visible(False)
        axes.spines[:].set_visible(False)
        if image is not None:
            axes.imshow(image, interpolation="none")
    for axes, x in zip(grid[0], examples.x, strict=True):
        axes.set_title(EngFormatter(sep="", places=0)(x), color=look.ink, fontsize=8)
    for axes, name in zip(grid[:, 0], RANKS, strict=True):
        axes.set_ylabel(f"{name} score", color=look.ink, fontsize=8)
    title = f"Levels that contributed gradients; the numbers are {examples.noun}"
    part.suptitle(title, color=look.ink, fontsize=9, x=0.01, ha="left")


def _legend(part: Any, log: LevelLog, look: Theme) -> None:
    present = [i for i in range(len(ORIGINS)) if log.share[:, i].any()]
    handles = [Patch(color=look.runs[i], alpha=0.75, linewidth=0) for i in present]
    handles += [Line2D([], [], **_trained(look)), Line2D([], [], **_new(look))]
    texts = [ORIGINS[i] for i in present] + ["trained on, with quartiles", "all new levels"]
    options = {"frameon": False, "columnspacing": 1.2, "handlelength": 1.6}
    legend = part.legend(
        handles, texts, loc="outside upper left", ncols=min(len(texts), 3), **options
    )
    for text in legend.get_texts():
        text.set(color=look.ink, fontsize=8)


def _line(axes: Axes, x: np.ndarray, y: np.ndarray, style: dict) -> None:
    """Draw a line through the finite values, or a dot if only one value is finite."""
    there = np.isfinite(y)
    axes.plot(x[there], y[there], marker="o" if there.sum() == 1 else "", **style)


def _trained(look: Theme) -> dict:
    return {"color": look.ink, "linewidth": 1.6, "markersize": 3}


def _new(look: Theme) -> dict:
    return {"color": look.runs[NEW], "linewidth": 1.2, "linestyle": "--", "markersize": 3}


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace("num ", "")
