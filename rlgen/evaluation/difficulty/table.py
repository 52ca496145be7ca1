"""Print a difficulty card in the terminal, at most 80 columns wide."""

import textwrap
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import printable

Facts = dict[str, Any]
"""A card or a part of it; see `rlgen.evaluation.difficulty.card.card`."""

_WIDTH = 78


def print_card(card: Facts, console: Console) -> None:
    """Print the tables of a card (facts, bits of generalisation, level features), then notes."""
    console.print(_facts(card))
    if card["bits"] or card["closed_form"].get("curves"):
        console.print(_bits(card))
    if card["features"]:
        console.print(_features(card["features"]))
    for note in notes(card):
        console.print(Text(note, style="dim"))


def facts(card: Facts) -> dict[str, str]:
    """Return the facts on a card as formatted text, by label."""
    told = {"levels": distinct_words(card["distinct"])}
    solver, played = card["solver"], card["random"]
    if solver:
        told["solvable"] = interval(solver["solvable"], percent=True)
        told["shortest solution"] = _spread(solver["optimal_steps"])
    told["random return"] = interval(played["return"])
    if "solve_rate" in played:
        told["random solve rate"] = interval(played["solve_rate"], percent=True)
    if solver:
        told["best return"] = interval(solver["return"])
    for one in card["structure"] or []:
        about = f"{one['feature']}: D {one['dispersion']:.2f}, κ {one['coverage']:.2f}"
        told["shared structure"] = "; ".join(filter(None, [told.get("shared structure"), about]))
    told["actions"] = str(card["num_actions"])
    told["observation"] = ", ".join(f"{k} {v}" for k, v in card["observation"].items())
    dimension = card["closed_form"].get("dimension")
    told["dimension"] = "-" if dimension is None else f"{dimension:.1f} (of observations)"
    if card["bits"]:
        told["ambiguous"] = aliasing_words(card["bits"]["aliasing"])
    return told


def distinct_words(found: Facts) -> str:
    """Describe the number of levels."""
    sampled, seen = found["sampled"], found["seen"]
    if seen == 1:
        return f"one: all {sampled:,} samples are equal"
    if found["estimate"] is None:
        return f"{sampled:,} sampled, all different; total at least {_rough(found['low'])} (95 %)"
    high = "∞" if found["high"] is None else _rough(found["high"])
    text = f"{sampled:,} sampled, {seen:,} different; estimated total {_rough(found['estimate'])}"
    return f"{text} [{_rough(found['low'])}, {high}]"


def aliasing_words(found: Facts) -> str:
    """Describe the error caused by aliased observations."""
    if found["of_repeated"] is None:
        return "no observation occurs twice"
    text = f"at least {found['floor']:.0%} of the error cannot be avoided"
    return f"{text} ({found['of_repeated']:.0%} where observations recur)"


def interval(one: Facts, percent: bool = False) -> str:
    """Format a mean with its interval."""
    show = (lambda x: f"{x:.1%}") if percent else (lambda x: f"{x:.3g}")
    if one["low"] is None:
        return show(one["value"])
    return f"{show(one['value'])} [{show(one['low'])}, {show(one['high'])}]"


def notes(card: Facts) -> list[str]:
    """Return notes that explain the numbers, and notes that state why parts are unknown."""
    told = [
        "Intervals are 95 % intervals over levels. D: dispersion of the optimal values between "
        "levels. κ: time limit divided by the number of feature values in a level."
    ]
    if card["bits"]:
        told.append(
            "Kernel and table bits: bits per state that a learner needs so that its error on new "
            "levels is at most rho times the error of guessing; mean and standard deviation over "
            f"draws (protocol {card['bits']['protocol']})."
        )
        if any(curve["doubtful"] for curve in card["bits"]["kernel"]):
            told.append(
                "?: states with equal observations need different actions, so the number measures "
                "missing information rather than difficulty. Use an agent with memory or a larger "
                "observation."
            )
    told += [f"Unknown: {part.replace('_', ' ')}. {why}." for part, why in _unknown(card)]
    return ["\n".join(textwrap.wrap(printable(note), _WIDTH)) for note in told]


def cell(curve: Facts, j: int) -> str:
    """Format the bits at the j-th number of training levels."""
    if curve["mean"][j] is None:
        return "unreachable"
    mark = "?" if curve["doubtful"] else ""
    return f"{curve['mean'][j]:.2f} ±{curve['sd'][j]:.2f}{mark}"


def log_cell(log10_bits: float | None) -> str:
    """Format the bits of the closed-form bound; None means 0 bits."""
    return "0" if log10_bits is None else f"10^{log10_bits:.1f}"


def _facts(card: Facts) -> Table:
    name = printable(card["env"])
    table = Table(box=box.SIMPLE_HEAD, title=f"Difficulty card: {name}", show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for about, text in facts(card).items():
        table.add_row(about, Text(printable(text)))
    return table


def _bits(card: Facts) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Bits of generalisation by number of training levels")
    table.add_column("")
    table.add_column("rho", justify="right")
    bits, closed = card["bits"], card["closed_form"]
    for num in card["levels"]:
        table.add_column(f"{num:,}", justify="right", no_wrap=True)
    for kind in ("kernel", "table") if bits else ():
        for curve in bits[kind]:
            cells = [cell(curve, j) for j in range(len(card["levels"]))]
            table.add_row(kind, f"{curve['rho']:g}", *cells)
        table.add_section()
    for curve in closed.get("curves", ()):
        rho = "-" if curve["rho"] is None else f"{curve['rho']:g}"
        table.add_row("bound", rho, *map(log_cell, curve["log10_bits"]))
    return table


def _features(found: Facts) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="Features of levels")
    table.add_column("")
    for column in ("mean", "5 %", "median", "95 %"):
        table.add_column(column, justify="right")
    for name, x in found.items():
        numbers = [x.get(key) for key in ("mean", "q05", "q50", "q95")]
        table.add_row(name, *("-" if n is None else f"{n:.4g}" for n in numbers))
    return table


def _spread(x: Facts | None) -> str:
    if x is None:
        return "no sampled level has a solution"
    return f"median {x['q50']:.4g}, 90 % from {x['q05']:.4g} to {x['q95']:.4g}"


def _rough(x: float) -> str:
    return f"{x:,.0f}" if x < 1e6 else f"{x:.2g}"


def _unknown(card: Facts) -> list[tuple[str, str]]:
    return list(card["unknown"].items())
