"""Meta-tests at several horizons: scores of rules for shorter and longer agent lifetimes.

The lifetime of an agent is the number N of updates that train it; N is also called the horizon. At
every horizon, all rules and the baseline, an ordinary learner, train fresh agents. Final returns
are divided once by the optimum, and once by the baseline's final return at the same horizon. A
probe is a metric that is recorded over an agent's lifetime.

Some rules have a clock: at update n they receive n/N and log N as inputs. As a control experiment,
such rules can also be tested with an uninformative clock.

Source: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms". The
rules in the paper are trained on lifetimes of 10 to 250 updates.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rlgen.evaluation.episodes import Evaluation, printable
from rlgen.evaluation.meta.meta_test import PROBES, Protocol, Trainee, evaluate
from rlgen.evaluation.report import html, results
from rlgen.evaluation.report.figures import THEMES, Theme, blank, dress, png_bytes
from rlgen.evaluation.stats import relative
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.intervals import Interval, no_interval, welch
from rlgen.evaluation.stats.relative import Relative, relative_to_optimum
from rlgen.levels import Suite
from rlgen.protocols import Learner, LevelEnv
from rlgen.types import PyTree

Found = Mapping[int, Sequence[Evaluation]]
"""Evaluations of all rules and of the baseline, by horizon."""


class Row(NamedTuple):
    """One row of a table."""

    head: str  # heading of the row
    cells: tuple[str, ...]


def check(horizons: Sequence[int], lifetime: int) -> None:
    """Reject invalid horizons.

    Raises:
        ValueError: A horizon is below 1 or occurs twice, or a lifetime is given as well.
    """
    if lifetime:
        raise ValueError(
            f"--lifetime {lifetime} and --horizons both set the lifetime of agents; give only one "
            "of them"
        )
    if min(horizons) < 1 or len(set(horizons)) < len(horizons):
        told = ",".join(map(str, horizons))
        raise ValueError(f"--horizons must be different numbers of updates, 1 or more; got {told}")


def controls(trainee: Trainee, suite: Suite, horizons: Sequence[int]) -> list[Trainee]:
    """Return two controls, which use the rules with an uninformative clock.

    Rules with a frozen clock always receive n/N = 0.5. Rules with shuffled N receive the correct
    n/N, but their log N is that of a horizon sampled for each agent. If the rules have no clock,
    the result is empty.
    """
    learner: Any = trainee.build(suite.env)[0]
    if not learner.rule_net.clock or learner.frozen_clock is None:
        return []

    def changed(label: str, **fields: Any) -> Trainee:
        def build(env: LevelEnv) -> tuple[Learner, PyTree]:
            learner, rules = trainee.build(env)
            return replace(learner, **fields), rules  # pyright: ignore[reportArgumentType]

        # The rules are unchanged; only the learner's clock input is replaced.
        return trainee._replace(label=f"{trainee.label} ({label})", build=build)

    return [
        changed("frozen clock", frozen_clock=True),
        changed("shuffled N", told_horizons=tuple(horizons)),
    ]


def evaluate_all(
    trainees: Sequence[Trainee],
    suite: Suite,
    protocol: Protocol,
    horizons: Sequence[int],
    progress: Callable[[str, int, int], None] = lambda label, done, of: None,
) -> dict[int, list[Evaluation]]:
    """Meta-test all trainees at every horizon, beginning with the shortest.

    Args:
        trainees: Trainees to test, including the baseline.
        suite: Suite of levels to train agents on.
        protocol: Settings of the meta-tests; its lifetime is replaced by each horizon.
        horizons: Lifetimes of agents, in updates.
        progress: Called with a label, the number of finished agents and their total.
    """
    found = {}
    for horizon in sorted(horizons):
        life = replace(protocol, lifetime=horizon)  # only the number of updates changes
        found[horizon] = [
            evaluate(
                one,
                [suite],
                life,
                progress=lambda done, of, one=one, n=horizon: progress(
                    f"{one.label}, {n} updates", done, of
                ),
            )
            for one in trainees
        ]
    return found


def score_rows(found: Found, to: str) -> tuple[list[str], list[Row]]:
    """Return column headings, and for each horizon a row with every run's IQM of return / `to`.

    If there are several seeds, intervals are Student's t over seeds.

    Args:
        found: Evaluations by horizon.
        to: Denominator: `optimum`, or the label of the baseline.
    """
    heads: list[str] = []
    rows = []
    for horizon, relatives in _relatives(found, to).items():
        heads = [one.run for one in relatives]
        cells = tuple(show_interval(one.iqm, "ratio") for one in relatives)
        rows.append(Row(f"{horizon:,}", cells))
    return heads, rows


def difference_rows(found: Found) -> tuple[list[str], list[Row]]:
    """Return column headings, and a row of differences between rules per horizon.

    Each difference is the IQM of return / optimum of a rule minus that of the first rule, in
    percentage points. Levels whose optimum is unknown or not positive are left out. If there are
    several seeds, intervals are Welch's t; they are not corrected for the number of rows.
    """
    heads: list[str] = []
    rows = []
    for horizon, evaluations in found.items():
        first, *others = [e for e in evaluations if not e.meta.get("baseline")]
        heads = [f"{e.run} minus {first.run}" for e in others]
        compared = (_difference(e, first) for e in others)
        rows.append(
            Row(f"{horizon:,}", tuple(show_interval(x, "ratio", signed=True) for x in compared))
        )
    return heads, rows


def scores_figure(found: Found, theme: str = "light") -> Figure:
    """Draw the IQM of return / optimum and of return / baseline against the horizon."""
    look = THEMES[theme]
    kinds = [to for to in ("optimum", _baseline(found)) if to and _relatives(found, to)]
    figure, every = blank(look, 3.1 * len(kinds) + 0.4, [1.0] * len(kinds))
    for axes, to in zip(every, kinds, strict=True):
        by_horizon = _relatives(found, to)
        for r, one in enumerate(next(iter(by_horizon.values()))):
            intervals = [x[r].iqm for x in by_horizon.values()]
            value, low, high = (np.array([float(x[i]) for x in intervals]) for i in range(3))
            colour = look.runs[r % len(look.runs)]
            axes.plot(list(by_horizon), value, "o-", color=colour, markersize=4, label=one.run)
            axes.fill_between(list(by_horizon), low, high, color=colour, alpha=0.15, linewidth=0)
        _horizontal_log(axes, list(by_horizon), look)
        axes.set_ylabel(f"return / {to}, IQM")
        _legend(axes, look)
    every[-1].set_xlabel("lifetime of an agent in updates, N")
    return figure


def probes_figure(found: Found, theme: str = "light") -> Figure:
    """Draw probes over the lifetime: one column per rule, one row per probe, a line per horizon."""
    look = THEMES[theme]
    runs = [e.run for e in next(iter(found.values()))]
    probes = [p for p in PROBES if any(p in _probes(e) for e in next(iter(found.values())))]
    size = (2.6 * len(runs) + 1.2, 2.2 * len(probes) + 0.6)
    figure = Figure(figsize=size, facecolor=look.paper, layout="constrained")
    grid = figure.subplots(len(probes), len(runs), squeeze=False, sharex=True, sharey="row")
    for column, run in enumerate(runs):
        grid[0, column].set_title(printable(run), color=look.ink, fontsize=10)
        grid[-1, column].set_xlabel("fraction of the lifetime, n/N")
        for row, probe in enumerate(probes):
            axes = grid[row, column]
            dress(axes, look)
            axes.grid(color=look.grid, linewidth=0.6)
            _draw_probe(axes, found, column, probe, look)
    for row, probe in enumerate(probes):
        grid[row, 0].set_ylabel(PROBES[probe].replace(", ", ",\n"))
    lines, names = grid[0, 0].get_legend_handles_labels()
    style = {"fontsize": 8, "frameon": False, "labelcolor": look.ink}
    legend = figure.legend(lines, names, loc="outside right upper", title="N", **style)
    legend.get_title().set(color=look.ink, fontsize=8)
    return figure


def write(folder: Path, found: Found, overwrite: bool = False) -> Path:
    """Write the results of each horizon to a separate folder, and tables, figures and a page.

    Returns:
        Path of the page.
    """
    for horizon, evaluations in found.items():
        results.save(folder / f"updates-{horizon:05d}", evaluations, overwrite)
    drawn = {
        name: {theme: png_bytes(draw(found, theme), dpi=130) for theme in THEMES}
        for name, draw in (("horizons", scores_figure), ("probes", probes_figure))
    }
    files = {f"{name}.png": of_theme["light"] for name, of_theme in drawn.items()}
    files["horizons.md"] = markdown(found).encode()
    return html.write_page(folder, _page(found, drawn), files)


def tables(found: Found) -> list[tuple[str, list[str], list[Row]]]:
    """Return title, column headings and rows of every table that is not empty."""
    kinds = [("Return / optimum: IQM", "optimum"), ("Return / {}: IQM", _baseline(found))]
    told = [(title.format(to), *score_rows(found, to)) for title, to in kinds if to]
    heads, rows = difference_rows(found)
    if heads:
        told.append(
            ("Differences in the IQM of return / optimum, in percentage points", heads, rows)
        )
    return [one for one in told if one[2]]


def markdown(found: Found) -> str:
    """Format the description and all tables as Markdown."""
    parts = [sentence(found)]
    for title, heads, rows in tables(found):
        lines = [f"| updates | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        lines += [f"| {row.head} | {' | '.join(row.cells)} |" for row in rows]
        parts.append(f"{title}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) + "\n"


def sentence(found: Found) -> str:
    """Describe the meta-tests in words."""
    first = next(iter(found.values()))[0]
    seeds, levels, attempts = first.shape
    horizons = ", ".join(f"{n:,}" for n in found)
    return (
        f"Meta-test of {seeds} rule{'s' * (seeds > 1)} on the {levels} levels of "
        f"{printable(first.suite)}, at horizons of {horizons} updates. Each rule trained "
        f"{attempts} fresh agent{'s' * (attempts > 1)} on every level. "
        + (
            "Intervals are 95 % by Student's t over the rules (differences: Welch)."
            if seeds > 1
            else "With one rule, 95 % intervals resample its agents on each level (bootstrap)."
        )
    )


def _page(found: Found, drawn: Mapping[str, html.Pictures]) -> html.Page:
    """Page with all tables and figures."""
    sections = []
    for title, heads, rows in tables(found):
        table = html.Table(["N", *heads], [[row.head, *row.cells] for row in rows])
        sections.append(html.Section(title, "table.html", table))
    for name, title, note in (
        ("horizons", "Scores by horizon", "Bands show the intervals in the tables."),
        ("probes", "Metrics over the lifetime", "Means over levels and agents, one line per N."),
    ):
        figure = html.Figure(drawn[name], title, note)
        sections.append(html.Section(title, "figure.html", figure))
    suite = next(iter(found.values()))[0].suite
    lead = "Scores by lifetime of the agents"
    above = f"Meta-test on {suite}"
    return html.Page(f"{suite}: horizons", above, lead, sentence(found), sections)


def _baseline(found: Found) -> str:
    one = relative.baseline_of(next(iter(found.values())))
    return "" if one is None else one.run


def _relatives(found: Found, to: str) -> dict[int, list[Relative]]:
    every = {n: [x for x in relative.compare_all(e) if x.to == to] for n, e in found.items()}
    return {n: some for n, some in every.items() if some}


def _difference(e: Evaluation, first: Evaluation) -> Interval:
    """IQM of return / optimum of a rule minus that of the first rule."""
    place = relative.NAMES.index("iqm")
    x, y = (relative_to_optimum(one).per_seed[:, place] for one in (e, first))
    if not np.isfinite([*x, *y]).all():  # no level has a positive optimum
        return no_interval(np.nan)
    return welch(x, y)


def _probes(e: Evaluation) -> Mapping[str, Any]:
    # The keys of `meta["probes"]` are suites. A meta-test at several horizons has only one suite.
    return next(iter(e.meta.get("probes", {}).values()), {})


def _draw_probe(axes: Axes, found: Found, column: int, probe: str, look: Theme) -> None:
    for i, (horizon, evaluations) in enumerate(found.items()):
        told = _probes(evaluations[column])
        if probe in told:
            y = np.array(told[probe], float).mean(axis=0)
            # Each value is a mean over a part of the lifetime; x is n/N in the middle of the part.
            x = (np.arange(y.size) + 0.5) / y.size
            colour = look.runs[i % len(look.runs)]
            axes.plot(x, y, color=colour, linewidth=1.5, label=f"{horizon:,}")


def _horizontal_log(axes: Axes, horizons: Sequence[int], look: Theme) -> None:
    axes.set_xscale("log")
    axes.set_xticks(horizons, [f"{n:,}" for n in horizons])
    axes.minorticks_off()
    axes.grid(color=look.grid, linewidth=0.6)


def _legend(axes: Axes, look: Theme) -> None:
    axes.legend(fontsize=8, frameon=False, labelcolor=look.ink)
