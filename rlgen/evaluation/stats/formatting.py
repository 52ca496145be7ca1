"""Results in words: numbers with their unit and interval, and the headline."""

import numpy as np

from rlgen.evaluation.stats.bootstrap import Interval
from rlgen.evaluation.stats.summary import Comparison, LevelResult, Summary

AGGREGATES = {  # as tables call them
    "IQM": "iqm",
    "IQM, whole seeds": "iqm_whole_seeds",
    "mean": "mean",
    "median": "median",
    "optimality gap": "optimality_gap",
}


def interval_name(summary: Summary, short: bool = False) -> str:
    """What an interval is, in a few words, for a heading or an axis."""
    names = {"seeds": "seeds", "whole-seeds": "whole seeds", "attempts": "attempts only"}
    drawn = [names[summary.over]] if summary.over in names else []
    drawn += ["levels"] if summary.over_levels else []
    if not drawn:
        return "no interval"
    what = "over" if short else "interval over"
    return f"{summary.confidence * 100:g} % {what} {' and '.join(drawn)}"


def show(value: float, score: str, digits: int = 1, signed: bool = False, unit: bool = True) -> str:
    """A score: per cent for rates, three significant digits for a bare return.

    Args:
        value: NaN is a dash.
        score: its name; `return` is no rate.
        digits: of a rate, after the point.
        signed: with its sign and without a unit, for a difference in points of a per cent.
        unit: whether a rate is followed by the sign of per cent.
    """
    if np.isnan(value):
        return "-"
    if score == "return":
        return f"{value:+.3g}" if signed else f"{value:.3g}"
    return f"{100 * value:{'+' * signed}z.{digits}f}" + " %" * (unit and not signed)


def show_span(one: Interval, score: str, digits: int = 1, signed: bool = False) -> str:
    """The ends of an interval in brackets, without a unit; empty if there is no interval."""
    if np.isnan(one.low):
        return ""
    low, high = (show(float(x), score, digits, signed, unit=False) for x in (one.low, one.high))
    return f"[{low}, {high}]"


def show_interval(
    one: Interval, score: str, digits: int = 1, signed: bool = False, unit: bool = True
) -> str:
    """A score and its interval in brackets; for the arguments see `show`."""
    value = show(float(one.value), score, digits, signed, unit)
    return " ".join(filter(None, (value, show_span(one, score, digits, signed))))


def show_count(x: float) -> str:
    """A number of steps or seconds, in whole; a dash where it is not known."""
    return "-" if np.isnan(x) else f"{x:,.0f}"


def level_details(level: LevelResult, score: str) -> tuple[str, str, str]:
    """Return, its share of the optimum, and steps (of solved episodes) against optimal steps."""
    steps = level.solved_length if score == "solve rate" else level.mean_length
    taken = "-" if np.isnan(steps) else f"{steps:.1f}"
    optimal = "" if np.isnan(level.optimal_steps) else f" / {level.optimal_steps:.0f}"
    return f"{level.mean_return:.3g}", show(level.relative_return, "", 0), taken + optimal


def headline(summary: Summary) -> str:
    """The result in one sentence: the best run, its interval, and how it differs from the first.

    With the best run first, the difference told is the next best run's.
    """
    score = summary.score
    order = sorted(summary.runs, key=lambda run: -run.aggregate["iqm"].value)
    best, iqm = order[0], order[0].aggregate["iqm"]
    where = f"on the {len(best.levels)} levels of {summary.suite}"
    low, high = (show(float(x), score) for x in (iqm.low, iqm.high))
    span = "" if np.isnan(iqm.low) else f"; {interval_name(summary)}: {low} to {high}"
    value = show(float(iqm.value), score)
    sentence = f"{best.run} reaches a {score} of {value} {where} (interquartile mean{span})"
    if len(order) == 1:
        return f"{sentence}."
    first_is_best = best.run == summary.runs[0].run
    other = order[1].run if first_is_best else best.run
    compared = next(c for c in summary.comparisons if c.run == other)
    return f"{sentence}{verdict(compared, score, -1 if first_is_best else 1)}."


def caveat(summary: Summary, fresh_agents: bool = False) -> str:
    """What the headline's interval leaves out, in a sentence; empty if nothing.

    Args:
        summary: of the evaluations.
        fresh_agents: whether agents were trained for each level, rather than one played all.
    """
    if summary.over == "attempts" and "iqm_whole_seeds" not in summary.runs[0].aggregate:
        return "One seed was trained: the interval says nothing of another one."
    best = max(summary.runs, key=lambda run: float(run.aggregate["iqm"].value))
    wide = best.aggregate.get("iqm_whole_seeds")
    if wide is None or summary.over == "whole-seeds":
        return ""
    low, high = (show(float(x), summary.score) for x in (wide.low, wide.high))
    why = "one rule trains the agents of" if fresh_agents else "one agent plays"
    return (
        f"With the same seeds drawn for all levels, the safer interval is {low} to {high}: "
        f"{why} every level, so its levels go together."
    )


def verdict(compared: Comparison, score: str, sign: int) -> str:
    """How the better of two runs differs from the other one; `sign` -1 turns the comparison."""
    other = compared.run if sign < 0 else compared.baseline
    unit = "" if score == "return" else " points"
    value = show(sign * float(compared.iqm.value), score, signed=True)

    def span(gap: Interval) -> str:
        low, high = sorted((sign * float(gap.low), sign * float(gap.high)))
        return f"{show(low, score, signed=True)} to {show(high, score, signed=True)}"

    if np.isnan(compared.iqm.low):
        return f", {value}{unit} against {other}"
    if compared.is_clear:
        return f", {value}{unit} against {other} ({span(compared.iqm)})"
    whole = f"; {span(compared.iqm_whole_seeds)} over whole seeds"
    spans = span(compared.iqm) + whole * compared.iqm.excludes_zero
    return (
        f"; against {other} the difference of {value}{unit} is not settled by this data ({spans})"
    )
