"""Figure of a difficulty card: levels, shortest solutions, bits of generalisation, features."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from rlgen.evaluation.difficulty.table import Facts, distinct_words, interval
from rlgen.evaluation.report.figures import MARKERS, THEMES, Theme, dress, short

NUM_LEVELS = 6
SIZE = (11.0, 6.2)  # inches; the proportions of a slide
_FEATURES = 4  # maximum number of histograms in the last row
_UNREACHABLE = "none of the requested errors\ncan be reached from these\nobservations"


def card_figure(
    card: Facts, images: Sequence[UInt8[np.ndarray, "H W 3"]], theme: str = "light"
) -> Figure:
    """Draw the figure of a card.

    Args:
        card: The card, see `rlgen.evaluation.difficulty.card.card`.
        images: Images of levels; the first `NUM_LEVELS` are shown. Empty if the family cannot draw
            levels.
        theme: `light` or `dark`.
    """
    look = THEMES[theme]
    figure = Figure(figsize=SIZE, facecolor=look.paper, layout="constrained")
    figure.suptitle(
        f"{short(card['env'])}: {short(_summary(card), 110)}", color=look.ink, fontsize=11, x=0.01,
        ha="left",
    )  # fmt: skip
    grid = figure.add_gridspec(3, 1, height_ratios=(1.15, 1.7, 0.95) if images else (0.01, 1.7, 1))
    if images:
        _levels(figure, grid[0], images)
    middle = grid[1].subgridspec(1, 2, width_ratios=(1, 1.5))
    _lengths(figure.add_subplot(middle[0]), card, look)
    _curves(figure.add_subplot(middle[1]), card, look)
    _features(figure, grid[2], card, look)
    return figure


def _summary(card: Facts) -> str:
    """Return the facts that the title of the figure shows."""
    told = [distinct_words(card["distinct"])]
    if card["solver"]:
        told.append(f"{card['solver']['solvable']['value']:.1%} solvable")
    if "solve_rate" in card["random"]:
        told.append(f"random play solves {interval(card['random']['solve_rate'], percent=True)}")
    return " · ".join(told)


def _levels(figure: Figure, place: SubplotSpec, images: Sequence[np.ndarray]) -> None:
    row = place.subgridspec(1, NUM_LEVELS)
    for i, image in enumerate(images[:NUM_LEVELS]):
        axes = figure.add_subplot(row[i])
        axes.imshow(image, interpolation="antialiased")
        axes.set_axis_off()


def _lengths(axes: Axes, card: Facts, look: Theme) -> None:
    dress(axes, look)
    axes.set_title("Length of the shortest solution", loc="left", color=look.ink, fontsize=10)
    steps = card["solver"] and card["solver"]["optimal_steps"]
    if not steps:
        return _say(axes, "no solver" if not card["solver"] else "no level has a solution", look)
    _bars(axes, steps["histogram"], look.runs[0])
    axes.axvline(steps["q50"], color=look.ink, linewidth=1, linestyle="--")  # median
    axes.set(xlabel="steps", ylabel="levels")
    return None


def _curves(axes: Axes, card: Facts, look: Theme) -> None:
    """Draw kernel bits as solid and table bits as dashed lines, one colour per error ratio ρ."""
    dress(axes, look)
    axes.set_title("Bits of generalisation per state", loc="left", color=look.ink, fontsize=10)
    if not card["bits"]:
        return _say(axes, textwrap.fill(card["unknown"]["bits"], 44), look)
    drawn = [
        _curve(axes, curve, card["levels"], r, kind == "table", look)
        for kind in ("kernel", "table")
        for r, curve in enumerate(card["bits"][kind])
    ]
    if not any(drawn):
        return _say(axes, _UNREACHABLE, look)
    axes.set_xscale("log")
    axes.set_xticks(card["levels"], [f"{num:,}" for num in card["levels"]])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", which="minor", length=0)
    axes.set_ylim(0, 1.35 * axes.get_ylim()[1])  # room for the legend
    axes.set(xlabel="training levels", ylabel="bits")
    axes.grid(axis="y", color=look.grid, linewidth=0.6)
    _legend(axes, card, look)
    return None


def _curve(
    axes: Axes, curve: Facts, levels: Sequence[int], r: int, dashed: bool, look: Theme
) -> bool:
    """Draw one curve and return whether it has any values."""
    kept = [j for j, mean in enumerate(curve["mean"]) if mean is not None]
    if not kept:
        return False
    x = [levels[j] for j in kept]
    mean, sd = (np.array([curve[name][j] for j in kept]) for name in ("mean", "sd"))
    colour = look.runs[r % len(look.runs)]
    style: dict[str, Any] = {"linestyle": "--" if dashed else "-", "linewidth": 1.8}
    filled = "none" if curve["doubtful"] else colour  # hollow if observations are ambiguous
    marker = MARKERS[r % len(MARKERS)]
    axes.plot(x, mean, marker=marker, color=colour, markerfacecolor=filled, markersize=5, **style)
    axes.fill_between(x, mean - sd, mean + sd, color=colour, alpha=0.15, linewidth=0)
    return True


def _legend(axes: Axes, card: Facts, look: Theme) -> None:
    handles, texts = [], []
    for r, curve in enumerate(card["bits"]["kernel"]):
        colour, marker = look.runs[r % len(look.runs)], MARKERS[r % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, linewidth=2))
        missing = all(mean is None for mean in curve["mean"])
        texts.append(f"rho = {curve['rho']:g}" + (", unreachable" if missing else ""))
    handles.append(Line2D([], [], color=look.ink, linestyle="-"))
    handles.append(Line2D([], [], color=look.ink, linestyle="--"))
    texts += ["kernel", "table"]
    if any(curve["doubtful"] for curve in card["bits"]["kernel"]):
        handles.append(Line2D([], [], color=look.ink, marker="o", markerfacecolor="none", ls=""))
        texts.append("ambiguous")
    legend = axes.legend(handles, texts, frameon=False, fontsize=8.5, ncols=2, loc="upper left")
    for text in legend.get_texts():
        text.set_color(look.ink)


def _features(figure: Figure, place: SubplotSpec, card: Facts, look: Theme) -> None:
    """Draw histograms of the first few features that vary, except `optimal_steps`."""
    known = card["features"] or {}
    varied = [
        name
        for name, x in known.items()
        if len(x.get("histogram", {}).get("counts", ())) > 1 and name != "optimal_steps"
    ]
    row = place.subgridspec(1, max(1, min(_FEATURES, len(varied))))
    for i, name in enumerate(varied[:_FEATURES]):
        axes = figure.add_subplot(row[i])
        dress(axes, look)
        _bars(axes, known[name]["histogram"], look.runs[2])
        axes.set_title(short(name.replace("_", " ")), loc="left", color=look.ink, fontsize=9)
        axes.tick_params(labelsize=8)
    if not varied:
        axes = figure.add_subplot(row[0])
        dress(axes, look)
        _say(axes, "no feature varies between levels", look)


def _bars(axes: Axes, histogram: Facts, colour: str) -> None:
    edges = np.array(histogram["edges"])
    axes.bar(edges[:-1], histogram["counts"], np.diff(edges), align="edge", color=colour, alpha=0.8)


def _say(axes: Axes, text: str, look: Theme) -> None:
    axes.set_axis_off()
    centre = {"ha": "center", "va": "center", "transform": axes.transAxes}
    axes.text(0.5, 0.5, text, color=look.ink, fontsize=10, **centre)
