"""Figure of score calibration: how well the scores of levels predict measures such as regret."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from rlgen.evaluation.generalisation.score_calibration import (
    FEWEST,
    TENTHS,
    Calibration,
    Measure,
    signed,
)
from rlgen.evaluation.report.figures import THEMES, Theme, dress


def calibration_figure(found: Calibration, theme: str = "light") -> Figure:
    """Draw each measure against the score, and the rank correlation of the two over the run.

    Raises:
        ValueError: There is no measure, or no level with both a score and a completed episode.
    """
    if not found.measures or not found.num_used:
        raise ValueError(found.missing or "no level was scored and had a completed episode")
    look = THEMES[theme]
    rows = len(found.measures)
    figure = Figure(figsize=(5.4, 2.35 * rows + 0.75), facecolor=look.paper, layout="constrained")
    axes = figure.subplots(rows, 2, squeeze=False)
    for (left, right), measure in zip(axes, found.measures, strict=True):
        dress(left, look)
        dress(right, look)
        _scatter(left, measure, look)
        _over_time(right, measure, found.ends, look)
    figure.suptitle(
        f"Score against {' and '.join(m.name for m in found.measures)}",
        color=look.ink, fontsize=10, x=0.01, ha="left",
    )  # fmt: skip
    left_out = found.num_levels - found.num_used
    note = (
        f"{found.num_used:,} levels; {left_out:,} levels without a score or a completed episode "
        "are omitted.\nScore and measure share one rollout, whose noise raises the correlation."
    )
    figure.supxlabel(note, color=look.ink, fontsize=7.5, x=0.01, ha="left")
    return figure


def _scatter(axes: Axes, measure: Measure, look: Theme) -> None:
    """Draw a dot for every level, and median and quartiles for each tenth of the sorted scores."""
    axes.plot(
        measure.score, measure.value, ".", color=look.runs[0], alpha=0.25, markersize=3,
        markeredgewidth=0, rasterized=True,
    )  # fmt: skip
    # There are up to ten parts of equal size. There are fewer if a part would otherwise have fewer
    # than about FEWEST levels. A stable sort makes the parts independent of the sorting algorithm.
    order = np.argsort(measure.score, kind="stable")
    for part in np.array_split(order, min(TENTHS, max(len(order) // FEWEST, 1))):
        low, middle, high = np.percentile(measure.value[part], (25, 50, 75))
        x = np.median(measure.score[part])
        axes.plot([x, x], [low, high], color=look.ink, linewidth=1.2)
        axes.plot(x, middle, "o", color=look.ink, markersize=3.5)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set_xlabel("score")
    axes.set_ylabel(measure.name)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _over_time(axes: Axes, measure: Measure, ends: Float[np.ndarray, "10"], look: Theme) -> None:
    """Draw the rank correlation in each tenth of the run."""
    known = bool(np.isfinite(ends).all())
    x = ends if known else np.arange(1, TENTHS + 1)
    axes.axhline(0, color=look.ink, linewidth=0.6)
    axes.plot(x, measure.tenths, "o-", color=look.runs[1], markersize=3.5, linewidth=1.6)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set_ylim(-1.05, 1.05)
    axes.set_xlim(0, 1.03 * x[-1])
    axes.set_ylabel("rank correlation")
    axes.set_title(f"whole run: {signed(measure.overall)}", color=look.ink, fontsize=9, loc="left")
    axes.set_xlabel("env steps" if known else "tenth of the run")
    if known:
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
