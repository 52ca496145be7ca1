"""Compare learned update rules: meta-train them, meta-test them, and write the comparison.

    python scripts/reproduce/rules.py --seeds 4 --out runs/rules

Each method has a run folder in `--out`. If the script is interrupted, repeat the command to
continue. If you add methods, only the added methods are trained. All methods have the same number
of meta-steps and train on the same number of env steps. Antagonists use additional env steps, which
are reported. In a meta-test, every rule trains new agents on the levels of a suite. For comparison,
new agents are also trained by A2C and by the untrained rules of the first method, which are called
the random rule. The results in `--out` are:

- `SUITE/report.html`: returns of every rule on the suite, and learning curves of agents and rules;
- `comparison.md`: returns relative to the optimum and to A2C, the fraction of levels on which
  agents reach less than 75 % of A2C's return, differences between methods, and costs. All numbers
  except costs have intervals.

Options after `--`, as in `-- --student.rule.core lstm`, are passed to `rlgen train` for every
method.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _comparison import costs, parser_of, run_command, table, train_all, write_comparison

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report import results
from rlgen.evaluation.stats import relative
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.intervals import welch

METHODS = ("lpg", "groove")
SUITES = ("gridworld/unseen", "gridworld/handcrafted", "gridworld/mazes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, meta-test all rules, and write the comparison."""
    options = _parse(arguments)
    runs, code = train_all(options)
    if code:
        return code
    for suite in options.suites:
        code = run_command(_test(runs, suite, options))
        if code:
            return code
    parts = [
        f"{options.seeds} seeds of every method, preset `{options.preset}`, environment "
        f"`{options.env}`.",
        *(_told(suite, options) for suite in options.suites),
        "Cost of meta-training per seed.",
        table(options.methods, costs(runs)),
    ]
    text = "\n\n".join(parts) + "\n"
    write_comparison(text, options)
    return 0


def _parse(arguments: Sequence[str] | None) -> Any:
    defaults = {"env": "gridworld", "steps": "", "seeds": 4, "attempts": 1}
    parser = parser_of(__doc__ or "", METHODS, out=Path("runs/rules"), **defaults)
    default = "(default: %(default)s)"
    parser.add_argument(
        "--suites",
        nargs="+",
        default=list(SUITES),
        help=f"suites of the meta-tests (default: {' '.join(SUITES)})",
    )
    parser.add_argument(
        "--levels", type=int, default=0, help=f"levels used per suite; 0 uses all {default}"
    )
    parser.add_argument(
        "--lifetime",
        type=int,
        default=0,
        help=f"updates per agent; 0 uses the lifetime of the environment {default}",
    )
    parser.add_argument("--workers", type=int, default=64, help=f"environments per agent {default}")
    return parser.parse_args(arguments)


def _test(runs: Sequence[Path], suite: str, options: Any) -> str:
    names = " ".join(shlex.quote(str(run)) for run in runs)
    return (
        f"eval {names} --untrained --suite {suite} --attempts {options.attempts} --lifetime "
        f"{options.lifetime} --workers {options.workers} --levels {options.levels} --out "
        f"{shlex.quote(str(_folder(suite, options)))} --overwrite"
    )


def _folder(suite: str, options: Any) -> Path:
    return options.out / suite.replace("/", "-")


def _told(suite: str, options: Any) -> str:
    """Return the Markdown section of one suite."""
    evaluations = results.load(_folder(suite, options))
    num_levels = evaluations[0].shape[1]
    lives = ", ".join(f"{x:,}" for x in sorted(set(evaluations[0].meta["lifetime"].values())))
    agents = f"{options.attempts} agent{'s' * (options.attempts > 1)}"
    heads = [e.run for e in evaluations]
    parts = [
        f"## `{suite}`: {num_levels} levels, {agents} per rule and level, {lives} updates",
        table(heads, _scores(evaluations)),
        "Differences, in points:",
        table(("IQM of return / optimum", "levels below 75 % of A2C"), _differences(evaluations)),
    ]
    return "\n\n".join(parts)


def _scores(evaluations: Sequence[Evaluation]) -> dict[str, list[str]]:
    """Return table rows with scores relative to the optimum and to A2C."""
    found = {(one.to, one.run): one for one in relative.compare_all(evaluations)}
    rows = {}
    for to in dict.fromkeys(to for to, _ in found):
        for name, field in (("IQM", "iqm"), ("mean", "mean"), ("levels below 75 %", "below")):
            some = [found.get((to, e.run)) for e in evaluations]
            label = f"return / {to}: {name}" if field != "below" else f"{name} of {to}"
            rows[label] = [show_interval(getattr(x, field), "ratio") if x else "" for x in some]
    return rows


def _differences(evaluations: Sequence[Evaluation]) -> dict[str, list[str]]:
    """Return rows: each method minus the random rule, and each later method minus the first."""
    baseline = relative.baseline_of(evaluations)
    random, *trained = [e for e in evaluations if e is not baseline]
    first, *others = trained
    pairs = [(e, random) for e in trained] + [(e, first) for e in others]
    return {f"{x.run} − {y.run}": _difference(x, y, baseline) for x, y in pairs}  # noqa: RUF001


def _difference(x: Evaluation, y: Evaluation, baseline: Evaluation | None) -> list[str]:
    """Return the cells of a difference between the rules of two runs, with Welch's intervals."""
    pairs = [("iqm", [relative.relative_to_optimum(e) for e in (x, y)])]
    if baseline is not None:
        pairs.append(("below", [relative.relative_to(e, baseline) for e in (x, y)]))
    cells = []
    for field, (first, second) in pairs:
        place = relative.NAMES.index(field)
        one = welch(first.per_seed[:, place], second.per_seed[:, place])
        cells.append(show_interval(one, "ratio", signed=True))
    return cells


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
