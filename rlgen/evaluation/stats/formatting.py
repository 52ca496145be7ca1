"""Formatting of results: numbers with unit and interval, and the headline sentence."""

import numpy as np

from rlgen.evaluation.stats.bootstrap import Interval
from rlgen.evaluation.stats.summary import Comparison, LevelResult, Summary

AGGREGATES = {  # label in tables: key in `RunResult.aggregate`
    "IQM": "iqm",
    "IQM, whole seeds": "iqm_whole_seeds",
    "mean": "mean",
    "median": "median",
    "optimality gap": "optimality_gap",
}


def interval_name(summary: Summary, short: bool = False) -> str:
    """Return a short description of the intervals for a heading or an axis label.

    Args:
        summary: Summary that the intervals belong to.
        short: Whether to write "over" instead of "interval over".
    """
    names = {"seeds": "seeds", "whole-seeds": "whole seeds", "attempts": "attempts only"}
    drawn = [names[summary.over]] if summary.over in names else []
    drawn += ["levels"] if summary.over_levels else []
    if not drawn:
        return "no interval"
    what = "over" if short else "interval over"
    return f"{summary.confidence * 100:g} % {what} {' and '.join(drawn)}"


def show(value: float, score: str, digits: int = 1, signed: bool = False, unit: bool = True) -> str:
    """Format a score: rates in per cent, plain returns with three significant digits.

    Args:
        value: The score; NaN is shown as a dash.
        score: Name of the score. Every score except `return` is a rate.
        digits: Decimal places of a rate.
        signed: Whether to show the sign and omit the unit, for a difference in percentage points.
        unit: Whether a rate is followed by a per cent sign.
    """
    if np.isnan(value):
        return "-"
    if score == "return":
        return f"{value:+.3g}" if signed else f"{value:.3g}"
    # "z" turns a value that rounds to -0.0 into 0.0.
    return f"{100 * value:{'+' * signed}z.{digits}f}" + " %" * (unit and not signed)


def show_span(one: Interval, score: str, digits: int = 1, signed: bool = False) -> str:
    """Format the bounds of an interval in brackets, without a unit; "" if the bounds are NaN."""
    if np.isnan(one.low):
        return ""
    low, high = (show(float(x), score, digits, signed, unit=False) for x in (one.low, one.high))
    return f"[{low}, {high}]"


def show_interval(
    one: Interval, score: str, digits: int = 1, signed: bool = False, unit: bool = True
) -> str:
    """Format a score and its interval in brackets; the arguments are those of `show`."""
    value = show(float(one.value), score, digits, signed, unit)
    return " ".join(filter(None, (value, show_span(one, score, digits, signed))))


def show_count(x: float) -> str:
    """Format a number of steps or seconds as a whole number; NaN is shown as a dash."""
    return "-" if np.isnan(x) else f"{x:,.0f}"


def level_details(level: LevelResult, score: str) -> tuple[str, str, str]:
    """Format a level's return, return / optimal return, and steps / optimal number of steps.

    If the score is a solve rate, steps are a mean over solved episodes. Otherwise they are a mean
    over all episodes.
    """
    steps = level.solved_length if score == "solve rate" else level.mean_length
    taken = "-" if np.isnan(steps) else f"{steps:.1f}"
    optimal = "" if np.isnan(level.optimal_steps) else f" / {level.optimal_steps:.0f}"
    return f"{level.mean_return:.3g}", show(level.relative_return, "", 0), taken + optimal


def headline(summary: Summary) -> str:
    """State in one sentence the best run, its score, and its difference from another run.

    The best run is compared with the first run. If the first run itself is the best, it is compared
    with the second best run.
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
    """State which variation the interval in the headline omits; "" if it omits none.

    Args:
        summary: Summary of the evaluations.
        fresh_agents: Whether new agents were trained on each level. If False, one agent plays all
            levels.
    """
    if summary.over == "attempts" and "iqm_whole_seeds" not in summary.runs[0].aggregate:
        return "One seed was trained: the interval does not cover variation between training seeds."
    best = max(summary.runs, key=lambda run: float(run.aggregate["iqm"].value))
    wide = best.aggregate.get("iqm_whole_seeds")
    if wide is None or summary.over == "whole-seeds":
        return ""
    low, high = (show(float(x), summary.score) for x in (wide.low, wide.high))
    why = "one rule trains the agents of" if fresh_agents else "one agent plays"
    return (
        f"The safer interval is {low} to {high}. It resamples the same seeds for all levels. It is "
        f"safer because {why} every level, so the scores of one seed on different levels are "
        "correlated."
    )


def verdict(compared: Comparison, score: str, sign: int) -> str:
    """Describe how the better of two runs differs from the other.

    Args:
        compared: Comparison of the two runs.
        score: Name of the score.
        sign: 1 if `compared.run` is the better run, -1 if `compared.baseline` is.
    """
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
        f"; its difference of {value}{unit} from {other} is not settled, because an interval "
        f"contains 0 ({spans})"
    )
