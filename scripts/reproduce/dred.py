"""Compare methods trained on a level set, by tests on the set's and on other distributions.

    python scripts/reproduce/dred.py --steps 2e6 --seeds 3 --out runs/dred

All methods train agents on the same number of env steps, as in Garcin et al., 2024. In addition,
some methods use env steps to evaluate levels. The number of these steps differs between methods and
is reported. Each method has a run folder in `--out`. If the script is interrupted, repeat the
command to continue. The results in `--out` are:

- one folder per suite, with a `report.html` of all methods. The first suite should have the
  distribution of the training set. Its report also contains generalisation gaps and the level
  information: how much the agents' representations reveal about which level they are on;
- `comparison.md`: scores, differences from the first method, gaps and costs;
- `suites.png`: the scores of all methods on all suites.

`--methods` accepts the names in the table `METHODS`. Options after `--`, as in `-- --num-slots 64`,
are passed to `rlgen train` for every method. To use your own levels, add
`-- --sampler.data.path mine.npz`, choose methods with a level set, and set `--suites` to suites of
your environment.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _comparison import (
    costs,
    parser_of,
    refuse_other,
    run_command,
    table,
    train,
    train_options,
    write_comparison,
)

from rlgen import registry
from rlgen.evaluation.report import results
from rlgen.evaluation.report.figures import MARKERS, THEMES, WIDTH, add_legend, dress, png_bytes
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.summary import Summary, summarise
from rlgen.runs.spec import RunSpec, build

_UED = (
    "--score positive-value-loss "
    "--sampler.priority.temperature 0.3 --sampler.priority.staleness-coef 0.3"
)
METHODS = {
    "fixed": ("fixed", ""),
    "fixed-plr": ("fixed-plr", ""),
    "dr": ("dr", ""),
    "robust-plr": ("robust-plr", f"{_UED} --sampler.decision.replay-prob 0.5"),
    "accel": ("accel", f"{_UED} --sampler.source.simple true"),
    "accel-d": ("accel-d", ""),
    "el-dred": ("el-dred", ""),
    "dred": ("dred", ""),
}
"""Recipe and options of `rlgen train` for each method.

Settings are those of Garcin et al., 2024, except for the sizes, which are those of the preset.
"""
SUITES = ("test", "unseen", "few-cues", "lava", "large")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, evaluate all methods, and write the comparison."""
    options = _parse(arguments)
    runs = {method: options.out / method for method in options.methods}
    wanted = {name: getattr(options, name) for name in ("env", "preset", "seeds")}
    steps = {method: _steps(method, options) for method in runs}
    for method, run in runs.items():
        refuse_other(run, {**wanted, "steps": steps[method]})
    for method, run in runs.items():
        recipe, own = METHODS[method]
        options.steps = str(steps[method])
        code = train(recipe, run, f"{own} {train_options(options)}")
        if code:
            return code
    names = " ".join(shlex.quote(str(run)) for run in runs.values())
    known = registry.make_env(options.env).suites()
    reference = "train" if "train" in known else "auto"  # also compared with methods without a set
    for suite in options.suites:
        code = run_command(
            f"eval {names} --suite {suite} --attempts {options.attempts} --out "
            f"{shlex.quote(str(options.out / suite))} --overwrite "
            f"--gaps {reference if suite == options.suites[0] else 'none'}"
        )
        if code:
            return code
    found = {suite: summarise(results.load(options.out / suite)) for suite in options.suites}
    results.write(options.out / "suites.png", png_bytes(_figure(found)))
    text = _comparison(list(runs.values()), found, options)
    write_comparison(text, options)
    return 0


def _parse(arguments: Sequence[str] | None) -> Any:
    defaults = {"env": "cave", "steps": "2e6", "seeds": 3, "attempts": 2}
    parser = parser_of(__doc__ or "", tuple(METHODS), out=Path("runs/dred"), **defaults)
    parser.add_argument(
        "--suites",
        nargs="+",
        default=list(SUITES),
        help="suites; the first must have the distribution of the training set "
        f"(default: {' '.join(SUITES)})",
    )
    options = parser.parse_args(arguments)
    options.learned = options.steps
    unknown = [method for method in options.methods if method not in METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]!r}; known: {', '.join(METHODS)}")
    return options


def _steps(method: str, options: Any) -> int:
    """Return the total env steps of a method, of which `options.steps` are used for training."""
    spec = RunSpec(recipe=METHODS[method][0], env=options.env, preset=options.preset)
    overrides = {}
    words = shlex.split(METHODS[method][1])
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name.startswith("--sampler."):
            overrides[name.removeprefix("--")] = value
    curriculum = build(dataclasses.replace(spec, overrides=overrides))[1]
    share = curriculum.sampler.trained_updates
    return round(float(options.steps) / share(curriculum.num_slots * curriculum.levels_per_slot))


def _comparison(runs: list[Path], found: dict[str, Summary], options: Any) -> str:
    first = next(iter(found.values()))
    heads, score = [run.run for run in first.runs], first.score
    parts = [
        f"{options.seeds} seeds, each trained on {float(options.learned):,.0f} env steps, "
        f"preset `{options.preset}`, environment `{options.env}`, {options.attempts} attempts per "
        "level.",
        f"{score.capitalize()}, mean: {first.meaning}.",
        table(heads, _scores(found, "mean")),
        f"{score.capitalize()}, interquartile mean.",
        table(heads, _scores(found, "iqm")),
    ]
    if len(runs) > 1:
        rows = {
            name: ["-", *(show_interval(c.mean, score, signed=True) for c in suite.comparisons)]
            for name, suite in found.items()
        }
        parts += [f"Difference from the mean of `{heads[0]}`, in points.", table(heads, rows)]
    parts += _gaps(options.out / options.suites[0])
    parts += ["Cost per seed.", table(heads, costs(runs))]
    return "\n\n".join(parts) + "\n"


def _scores(found: dict[str, Summary], aggregate: str) -> dict[str, list[str]]:
    """Return one table row per suite, with an aggregate score of every run and its interval."""
    return {
        name: [show_interval(run.aggregate[aggregate], suite.score) for run in suite.runs]
        for name, suite in found.items()
    }


def _gaps(folder: Path) -> list[str]:
    """Return the comparison of the first suite with the training set; [] if none was measured."""
    content = json.loads((folder / "results.json").read_text())
    every = content.get("generalisation", [])
    if not every:
        return []
    name = "solve_rate" if "solve_rate" in every[0] else "returns"
    rows: dict[str, list[str]] = {"train": [], "test": [], "gap": []}
    for run in every:
        for side, row in rows.items():
            numbers = (run[name][side][key] for key in ("low", "value", "high"))
            low, value, high = (np.nan if x is None else 100 * x for x in numbers)
            span = "" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"
            row.append(f"{value:.1f}{span}")
    for title, key in (("shift gap, return", "shift_gap"), ("information, nats", "information")):
        rows[title] = []
        for run in every:
            values = run.get(key, ())
            values = values["per_seed"] if isinstance(values, dict) else values
            rows[title].append(", ".join(f"{x:.2f}" for x in values) or "-")
    what = f"{name.replace('_', ' ')} times 100"
    return [
        f"`{folder.name}` compared with the training set: {what}. The last two rows list seeds.",
        table([run["run"] for run in every], rows),
    ]


def _figure(found: dict[str, Summary]) -> Any:
    """Draw the mean scores of all runs with one group of points per suite."""
    from matplotlib.figure import Figure

    look, names = THEMES["light"], list(found)
    figure = Figure(figsize=(WIDTH, 3.6), facecolor=look.paper, layout="constrained")
    axes = figure.subplots()
    dress(axes, look)
    heads = [run.run for run in next(iter(found.values())).runs]
    for r in range(len(heads)):
        at = np.arange(len(names)) + 0.7 * ((r + 0.5) / len(heads) - 0.5)
        points = [found[name].runs[r].aggregate["mean"] for name in names]
        value, low, high = (np.array([float(p[i]) for p in points]) for i in range(3))
        error = np.nan_to_num(np.stack([value - low, high - value]))
        axes.errorbar(
            at,
            value,
            error,
            color=look.runs[r % len(look.runs)],
            marker=MARKERS[r % len(MARKERS)],
            linestyle="none",
            markersize=5,
            linewidth=1.5,
        )
    axes.set_xticks(range(len(names)), names)
    axes.set_ylabel(f"{next(iter(found.values())).score} (mean)")
    axes.grid(axis="y", color=look.grid, linewidth=0.6)
    add_legend(figure, dict(enumerate(heads)), look)
    return figure


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
