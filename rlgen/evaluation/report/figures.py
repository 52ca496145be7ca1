"""Figures of results: intervals and performance profiles, and helpers for the other figures.

Figures are matplotlib `Figure` objects created without pyplot, so they do not change global state
and can be drawn from any thread. Figures are narrow and tall, so that they are readable on phones.
Colour-blind readers can distinguish the colours (Okabe and Ito, 2008, "Color Universal Design").
Runs also differ in their markers.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from rlgen.evaluation.episodes import printable
from rlgen.evaluation.stats.formatting import interval_name
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.summary import TAU, Summary, hardest

MAX_LEVELS = 40  # rows of an interval figure; of a larger suite, the hardest levels are shown
# There are 7 markers and 6 colours, so a pair of marker and colour repeats only after 42 runs.
MARKERS = "osD^vPX"
WIDTH = 5.4  # inches
LEGEND = 66  # letters that fit into a row of a legend; the line before a label takes 6 letters


class Theme(NamedTuple):
    """Colours of a figure."""

    paper: str
    ink: str
    grid: str
    runs: tuple[str, ...]


THEMES = {
    "light": Theme(
        "#ffffff", "#22262b", "#d9dce1",
        ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9"),
    ),
    "dark": Theme(
        "#171a1f", "#d5d9de", "#363c45",
        ("#56b4e9", "#e69f00", "#2cc99b", "#e29cc4", "#f0e442", "#8f9bff"),
    ),
}  # fmt: skip


def intervals(summary: Summary, theme: str = "light") -> Figure:
    """Draw the aggregates of all runs and, below, their scores on each level, with intervals."""
    look, runs = THEMES[theme], summary.runs
    shown = hardest(summary, MAX_LEVELS)
    names = [runs[0].levels[i].name for i in shown]
    aggregates = {"mean": "mean", "IQM": "iqm", "median": "median"}
    step = max(0.26, 0.13 * len(runs) + 0.1)  # height of a row in inches, with space for all runs
    heights = [step * len(aggregates), step * len(names)]
    figure, (top, bottom) = blank(look, sum(heights) + 1.5, heights)
    for r, run in enumerate(runs):
        _points(top, [run.aggregate[key] for key in aggregates.values()], r, len(runs), look)
        _points(bottom, [run.levels[i].score for i in shown], r, len(runs), look)
    _rows(top, list(aggregates), look)
    _rows(bottom, names, look)
    # Both panels have the same scale, so that the ticks of the lower one apply to the upper one.
    top.sharex(bottom)
    top.tick_params(labelbottom=False)
    what = f"The {len(names)} hardest of {len(runs[0].levels)} levels"
    whole = len(names) == len(runs[0].levels)
    top.set_title("All levels", loc="left", color=look.ink, fontsize=10)
    bottom.set_title("Each level" if whole else what, loc="left", color=look.ink, fontsize=10)
    bottom.set_xlabel(f"{summary.score}, with {interval_name(summary)}")
    for axes in (top, bottom):
        _scale(axes, summary.score)
    add_legend(figure, _labels(summary), look)
    return figure


def profile(summary: Summary, theme: str = "light") -> Figure:
    """Draw the fraction of seed-level pairs that score above each threshold τ, with intervals."""
    look = THEMES[theme]
    figure, (axes,) = blank(look, 3.4, [1.0])
    for r, run in enumerate(summary.runs):
        colour = look.runs[r % len(look.runs)]
        line, low, high, _ = run.profile
        axes.step(TAU, line, where="post", color=colour, linewidth=1.8)
        axes.fill_between(TAU, low, high, step="post", color=colour, alpha=0.2, linewidth=0)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=f"{summary.score} τ")
    axes.set_ylabel("seeds and levels above τ")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    add_legend(figure, _labels(summary), look, markers=False)
    return figure


def png_bytes(figure: Figure, dpi: int = 170) -> bytes:
    """Encode a figure as PNG."""
    out = io.BytesIO()
    # matplotlib's version is removed from the metadata, so that equal figures give equal bytes.
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": None})
    return out.getvalue()


def both_themes(make: Callable[[str], Figure]) -> Mapping[str, bytes]:
    """Draw a figure in both themes, and return the PNGs by theme.

    Args:
        make: Function that draws the figure in a given theme.
    """
    return {theme: png_bytes(make(theme)) for theme in THEMES}


_BAR = {"alpha": 0.55, "solid_capstyle": "butt"}


def blank(look: Theme, height: float, ratios: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """Create a figure with one axes per row, and return the figure and the list of axes.

    Args:
        look: Theme.
        height: Height of the figure, in inches.
        ratios: Relative heights of the rows.
    """
    figure = Figure(figsize=(WIDTH, height), facecolor=look.paper, layout="constrained")
    grid = figure.subplots(len(ratios), 1, squeeze=False, gridspec_kw={"height_ratios": ratios})
    for axes in grid[:, 0]:
        dress(axes, look)
    return figure, list(grid[:, 0])


def dress(axes: Axes, look: Theme) -> None:
    """Apply the colours of a theme and the sizes that all figures share to axes."""
    axes.set_facecolor(look.paper)
    axes.tick_params(colors=look.ink, labelsize=9, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(look.ink)
    axes.xaxis.label.set(color=look.ink, fontsize=10)
    axes.yaxis.label.set(color=look.ink, fontsize=10)
    axes.set_axisbelow(True)


def _labels(summary: Summary) -> dict[int, str]:
    return {r: run.run for r, run in enumerate(summary.runs)}


def _points(axes: Axes, shown: Sequence[Interval], r: int, num_runs: int, look: Theme) -> None:
    """Draw one run's points with whiskers, one per row."""
    # All runs together take 72 % of a row's height and are centred on the row.
    offset = (r - (num_runs - 1) / 2) * 0.72 / max(num_runs, 1)
    colour = look.runs[r % len(look.runs)]
    for row, one in enumerate(shown):
        y = row + offset
        axes.plot([one.low, one.high], [y, y], color=colour, linewidth=2.6, **_BAR)
        # `clip_on=False` draws the whole marker at 0 or 1.
        axes.plot(
            one.value, y, MARKERS[r % len(MARKERS)], color=colour, markersize=5, clip_on=False
        )


def _rows(axes: Axes, names: Sequence[str], look: Theme) -> None:
    axes.set_yticks(range(len(names)), [short(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)  # inverted: the first row is at the top
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=look.grid, linewidth=0.6)
    for row in range(1, len(names), 2):  # every second row is shaded, which guides the eye
        axes.axhspan(row - 0.5, row + 0.5, color=look.grid, alpha=0.3, linewidth=0)


def _scale(axes: Axes, score: str) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if score != "return":
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    if score == "solve rate":
        axes.set_xlim(-0.01, 1.01)


def add_legend(figure: Figure, runs: Mapping[int, str], look: Theme, markers: bool = True) -> None:
    """Add a legend of the runs above the axes, even if there is only one run."""
    handles = []
    for r in runs:
        colour = look.runs[r % len(look.runs)]
        marker = MARKERS[r % len(MARKERS)] if markers else ""
        handles.append(Line2D([], [], color=colour, marker=marker, linewidth=2))
    # Labels begin with a space, because matplotlib hides labels that begin with an underscore.
    texts = [f" {short(label)}" for label in runs.values()]
    longest = max(map(len, texts), default=1)
    columns = max(1, min(3, len(runs), LEGEND // (longest + 6)))
    legend = figure.legend(handles, texts, loc="outside upper left", ncols=columns, frameon=False)
    for text in legend.get_texts():
        text.set(color=look.ink, fontsize=9.5)


def short(text: str, limit: int = 30) -> str:
    """Truncate text for matplotlib, remove control characters and escape dollar signs."""
    text = printable(text)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text.replace("$", r"\$")
