"""Formatting of results: numbers with unit and interval, and the headline sentence."""

import numpy as np

from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.summary import Comparison, LevelResult, Summary

AGGREGATES = {  # label in tables: key in `RunResult.aggregate`
    "mean": "mean",
    "IQM": "iqm",
    "median": "median",
    "optimality gap": "optimality_gap",
}


def interval_name(summary: Summary, short: bool = False) -> str:
    """Return a short description of the intervals for a heading or an axis label.

    Args:
        summary: Summary that the intervals belong to.
        short: Whether to write "over" instead of "interval over".
    """
    names = {
        "student": "seeds",
        "stratified": "seeds (stratified)",
        "whole-seeds": "whole seeds",
        "attempts": "one agent's episodes",
    }
    if summary.kind == "attempts" and summary.num_seeds > 1:
        names["attempts"] = "attempts only"
    if summary.kind not in names and not any(r.aggregate["mean"].is_known for r in summary.runs):
        return "no interval"
    what = "over" if short else "interval over"
    return f"{summary.confidence * 100:g} % {what} {names.get(summary.kind, names['attempts'])}"


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


def show_p(p: float) -> str:
    """Format a p-value with two significant digits; NaN, for which there is no test, is a dash."""
    if np.isnan(p):
        return "-"
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def ties(x: float, y: float) -> bool:
    """Return whether two scores are equal up to rounding."""
    return abs(x - y) <= 1e-12 * max(1.0, abs(x), abs(y))


def headline(summary: Summary) -> str:
    """State in one sentence the best run, its mean score, and its difference from another run.

    Untrained agents are never the subject, unless all agents are untrained. The best run is
    compared with the first run. If the first run itself is the best, it is compared with the second
    best run.
    """
    score = summary.score
    order = sorted(summary.runs, key=lambda run: -float(run.aggregate["mean"].value))
    trained = [run for run in order if not run.is_untrained] or order
    best, mean = trained[0], trained[0].aggregate["mean"]
    where = f"on the {len(best.levels)} levels of {summary.suite}"
    value = show(float(mean.value), score)
    equal = [run for run in order if ties(float(run.aggregate["mean"].value), float(mean.value))]
    if len(equal) == len(order) > 1:
        names = [run.run for run in equal]
        return f"{', '.join(names[:-1])} and {names[-1]} have the same {score} {where}: {value}."
    low, high = (show(float(x), score) for x in (mean.low, mean.high))
    span = f"; {_name(mean, summary)}: {low} to {high}" if mean.is_known else ""
    sentence = f"{best.run} reaches a {score} of {value} {where} (mean{span})"
    if len(order) == 1:
        return f"{sentence}."
    first_is_best = best.run == summary.runs[0].run
    others = [run for run in order if run is not best]
    other = others[0].run if first_is_best else best.run
    compared = next(c for c in summary.comparisons if c.run == other)
    return f"{sentence}{verdict(compared, score, -1 if first_is_best else 1)}."


def caveat(summary: Summary) -> str:
    """State the weakness of the interval in the headline in a sentence; "" if it has none."""
    runs = [run for run in summary.runs if not run.is_untrained] or list(summary.runs)
    best = max(runs, key=lambda run: float(run.aggregate["mean"].value)).aggregate["mean"]
    if summary.num_seeds == 1:
        return (
            "One seed was trained: there is no interval over training seeds, and no difference is "
            "settled."
        )
    if best.kind == "binomial":
        return (
            "All seeds have the same score. The interval is the exact binomial interval of the "
            "pooled episodes, which contains no effect of the seed."
        )
    if summary.num_seeds == 2:
        return (
            "Two seeds bound nothing: their interval is 12.7 standard errors wide on each side, "
            "and it relies on a normal distribution. Train five seeds or more."
        )
    return ""


def _name(one: Interval, summary: Summary) -> str:
    per_cent = f"{summary.confidence * 100:g} %"
    return f"{per_cent} binomial interval" if one.kind == "binomial" else interval_name(summary)


def verdict(compared: Comparison, score: str, sign: int) -> str:
    """Describe how the better of two runs differs from the other.

    Args:
        compared: Comparison of the two runs.
        score: Name of the score.
        sign: 1 if `compared.run` is the better run, -1 if `compared.baseline` is.
    """
    other = compared.baseline if sign > 0 else compared.run
    unit = "" if score == "return" else " points"
    value = show(sign * float(compared.mean.value), score, signed=True)
    if np.isnan(compared.p_value):
        return f", {value}{unit} against {other}"
    low, high = sorted((sign * float(compared.mean.low), sign * float(compared.mean.high)))
    ends = (show(low, score, signed=True), show(high, score, signed=True))
    span = f"{ends[0]} to {ends[1]}, " if compared.mean.is_known else ""
    span += show_p(compared.p_value)
    if compared.is_settled:
        return f", {value}{unit} against {other} ({span})"
    return f"; its difference of {value}{unit} from {other} is not settled ({span})"
