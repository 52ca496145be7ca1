"""Figure of CVaR: mean score on the worst levels against the fraction of worst levels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from rlgen.evaluation.report.figures import THEMES, add_legend, blank
from rlgen.evaluation.stats.cvar import CVaR


def cvar_figure(results: Sequence[CVaR], theme: str = "light") -> Figure:
    """Draw the mean score on the worst levels, with intervals, against the fraction of levels.

    Points are hollow if the score is an upper bound, see `CVaR.is_upper_bound`.

    Raises:
        ValueError: `results` is empty or mixes different suites or scores.
    """
    kinds = {(one.suite, one.score, one.num_levels) for one in results}
    if len(kinds) != 1:
        found = ", ".join(f"{score} on {suite}" for suite, score, _ in sorted(kinds)) or "none"
        raise ValueError(
            f"a figure of CVaR requires runs with one suite and one score, got {found}"
        )
    look, score, num_levels = THEMES[theme], results[0].score, results[0].num_levels
    figure, (axes,) = blank(look, 3.4, [1.0])
    for r, one in enumerate(results):
        # Fractions that give the same number of levels are drawn as one point.
        num_worst, kept = np.unique(one.num_worst, return_index=True)
        value, low, high = (x[kept] for x in one.mean[:3])
        share, colour = num_worst / num_levels, look.runs[r % len(look.runs)]
        bound = one.is_upper_bound[kept]
        axes.plot(share, value, color=colour, linewidth=1.8)
        axes.plot(share[~bound], value[~bound], "o", color=colour, markersize=3.5)
        # The face hides the line behind a hollow point.
        axes.plot(share[bound], value[bound], "o", color=colour, markersize=4.5, mfc=look.paper)
        axes.fill_between(share, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set(xscale="log", xlabel=f"worst levels, % of {num_levels:,} levels", ylabel=score)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g}%"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if score != "return":
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    if score == "solve rate":
        axes.set_ylim(-0.02, 1.02)
    add_legend(figure, {r: one.run for r, one in enumerate(results)}, look, markers=False)
    return figure
