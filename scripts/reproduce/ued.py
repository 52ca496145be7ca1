"""Compare curricula: train all methods with several seeds, evaluate them, and write the comparison.

    python scripts/reproduce/ued.py --steps 1e7 --seeds 3 --out runs/ued

Each method has a run folder in `--out`. If the script is interrupted, repeat the command to
continue. If you add methods, only the added methods are trained. All methods have the same total
number of env steps, including steps for scouting, for scoring or for a second student. The results
in `--out` are:

- `heldout/report.html`: scores of every method on held-out levels, learning curves and curricula;
- `comparison.md`: scores with intervals, the CVaR, and the cost of each method in env steps of each
  kind, gradient steps and seconds. The CVaR is the mean score on the worst levels of a suite with
  many levels (`--dense`);
- `cvar.png`: the CVaR of all methods.

For an environment with physics parameters, use for example
`--env cart-pole --suite beyond --dense far`. Options after `--`, as in `-- --num-slots 256`, are
passed to `rlgen train` for every method.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _comparison import costs, parser_of, run_command, table, train_all, write_comparison

from rlgen.evaluation.report import results
from rlgen.evaluation.report.cvar_figure import cvar_figure
from rlgen.evaluation.report.figures import png_bytes
from rlgen.evaluation.stats.cvar import CVaR, bias_notes, check_attempts, cvar
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.summary import summarise
from rlgen.evaluation.suites import load_suite
from rlgen.evaluation.zero_shot import evaluate, load_policies

METHODS = ("dr", "plr", "robust-plr", "accel", "sfl")
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, evaluate all methods, and write the comparison."""
    options = _parse(arguments)
    if options.dense:
        check_attempts(options.dense_attempts)
    runs, code = train_all(options)
    if code:
        return code
    heldout = options.out / "heldout"
    names = " ".join(shlex.quote(str(run)) for run in runs)
    code = run_command(
        f"eval {names} --suite {options.suite} --attempts {options.attempts} --out "
        f"{shlex.quote(str(heldout))} --overwrite"
    )
    if code:
        return code
    worst = [_worst_levels(run, options) for run in runs] if options.dense else []
    if worst:
        results.write(options.out / "cvar.png", png_bytes(cvar_figure(worst)))
    text = _comparison(runs, heldout, worst, options)
    write_comparison(text, options)
    return 0


def _parse(arguments: Sequence[str] | None) -> Any:
    defaults = {"env": "maze", "steps": "1e7", "seeds": 3, "attempts": 100}
    parser = parser_of(__doc__ or "", METHODS, out=Path("runs/ued"), **defaults)
    default = "(default: %(default)s)"
    parser.add_argument("--suite", default="heldout", help=f"held-out suite {default}")
    parser.add_argument(
        "--dense",
        default="cvar-60",
        help=f"suite for the CVaR, the mean on the worst levels; '' omits it {default}",
    )
    parser.add_argument(
        "--dense-attempts",
        type=int,
        default=10,
        help=f"attempts per level and seed in each of the two evaluations for the CVaR {default}",
    )
    return parser.parse_args(arguments)


def _worst_levels(run: Path, options: Any) -> CVaR:
    """Compute the CVaR: one evaluation selects the worst levels, and another scores them."""
    print(f"{run}: evaluating on {options.dense}, twice", flush=True)
    policies = load_policies(run)
    suite = load_suite(policies.env, options.dense)
    first, second = (evaluate(policies, suite, options.dense_attempts, seed) for seed in (0, 1))
    return cvar(first, second, ALPHAS)


def _comparison(runs: list[Path], heldout: Path, worst: list[CVaR], options: Any) -> str:
    summary = summarise(results.load(heldout))
    heads, score = [run.run for run in summary.runs], summary.score
    shown = {"**mean**": "mean", "IQM": "iqm"}
    rows = {
        name: [show_interval(run.aggregate[key], score) for run in summary.runs]
        for name, key in shown.items()
    }
    for i, level in enumerate(summary.runs[0].levels):
        rows[level.name] = [show_interval(run.levels[i].score, score, 0) for run in summary.runs]
    parts = [
        f"{options.seeds} seeds of {float(options.steps):,.0f} env steps each, preset "
        f"`{options.preset}`, environment `{options.env}`.",
        f"`{summary.suite}`, {options.attempts} attempts per level: {score}, {summary.meaning}.",
        table(heads, rows),
    ]
    if worst:
        shares = enumerate(zip(worst[0].alpha, worst[0].num_worst, strict=True))
        lines = {
            f"worst {100 * share:g} % ({num} levels)": [
                show_interval(one.mean.at(k), one.score) for one in worst
            ]
            for k, (share, num) in shares
        }
        parts += [
            f"`{worst[0].suite}`: mean {worst[0].score} on the worst levels of each seed, with "
            "intervals of Student's t over seeds. One evaluation selects the levels, and another "
            "scores them.",
            table([one.run for one in worst], lines),
            *(f"- {x}" for one in worst for x in bias_notes(one, range(len(one.alpha)))),
        ]
    parts += ["Cost per seed.", table(heads, costs(runs))]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
