"""Shared parts of the scripts in this folder: options, training of runs, and Markdown tables."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlgen.cli.main import main as rlgen
from rlgen.evaluation.from_runs.metrics import read_metrics
from rlgen.evaluation.report import results
from rlgen.runs import checkpoint, folder


def parser_of(about: str, methods: Sequence[str], **defaults: Any) -> argparse.ArgumentParser:
    """Return a parser with the options that all comparisons have.

    Args:
        about: Docstring of the script; its first line is shown by `--help`.
        methods: Methods compared by default.
        defaults: Default values of the options `env`, `steps`, `seeds`, `attempts` and `out`.
    """
    default = "(default: %(default)s)"
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument(
        "--methods",
        nargs="+",
        default=list(methods),
        help=f"methods to compare (default: {' '.join(methods)})",
    )
    parser.add_argument("--env", help=f"environment {default}")
    parser.add_argument("--preset", default="fast", help=f"preset of all methods {default}")
    parser.add_argument(
        "--steps",
        help="env steps per seed; '' uses the default of each recipe (default: '%(default)s')",
    )
    parser.add_argument("--seeds", type=int, help=f"number of seeds per method {default}")
    parser.add_argument("--devices", type=int, default=1, help=f"devices per run {default}")
    parser.add_argument("--attempts", type=int, help=f"attempts per level and seed {default}")
    parser.add_argument("--out", type=Path, help=f"folder for runs and results {default}")
    parser.add_argument(
        "train_options", nargs="*", help="options passed to `rlgen train`; write them after --"
    )
    parser.set_defaults(**defaults)
    return parser


def train_options(options: Any) -> str:
    """Return the options of `rlgen train` that all methods share, as on the command line."""
    steps = f"--steps {options.steps} " if options.steps else ""
    return (
        f"--env {options.env} --preset {options.preset} {steps}--seeds {options.seeds} --devices "
        f"{options.devices} {shlex.join(options.train_options)}"
    )


def check_runs(runs: Sequence[Path], options: Any) -> None:
    """Check that existing runs have the requested environment, preset, seeds and steps.

    Raises:
        SystemExit: If a run differs from the request.
    """
    wanted = {name: getattr(options, name) for name in ("env", "preset", "seeds")}
    if options.steps:
        wanted["steps"] = int(float(options.steps))
    for run in runs:
        refuse_other(run, wanted)


def refuse_other(run: Path, wanted: dict[str, Any]) -> None:
    """Exit with an error if a run exists and its fields differ from the required values.

    Args:
        run: Folder of a run, which may not exist yet.
        wanted: Required values of fields of `rlgen.runs.spec.RunSpec`.
    """
    if not folder.is_run(run):
        return
    spec = folder.read(run)["spec"]
    for name, value in wanted.items():
        if spec[name] != value:
            sys.exit(
                f"{run} was trained with {name}={spec[name]}, but this comparison requires "
                f"{value}; use the same value, or choose another --out"
            )


def train_all(options: Any) -> tuple[list[Path], int]:
    """Train all methods, except finished runs; return the run folders and the exit code."""
    runs = [options.out / method for method in options.methods]
    check_runs(runs, options)
    for method, run in zip(options.methods, runs, strict=True):
        code = train(method, run, train_options(options))
        if code:
            return runs, code
    return runs, 0


def write_comparison(text: str, options: Any) -> None:
    """Write `comparison.md`, and print it."""
    results.write(options.out / "comparison.md", text.encode())
    print(f"\n{text}\nThe comparison is in {options.out / 'comparison.md'}")


def train(method: str, run: Path, options: str) -> int:
    """Train a run; if it is interrupted, resume it, and if it is finished, leave it unchanged.

    Args:
        method: Recipe of the run.
        run: Folder of the run.
        options: Options of `rlgen train`, in one string as on the command line.

    Returns:
        The exit code.
    """
    if not folder.is_run(run):
        return run_command(f"train {method} --out {shlex.quote(str(run))} {options}")
    done, planned = checkpoint.updates(run), folder.read(run)["plan"]["num_updates"]
    if done and done[-1] >= planned:
        print(f"{run} is already trained")
        return 0
    return run_command(f"train --resume {shlex.quote(str(run))}")


def costs(runs: Sequence[Path]) -> dict[str, list[str]]:
    """Return table rows with the env steps of each kind, gradient steps and seconds of each run."""
    last = [read_metrics(run / "metrics.jsonl")[-1] for run in runs]
    kinds = sorted({kind for line in last for kind in line["env_steps"]})
    rows = {
        f"env steps: {kind}": [f"{line['env_steps'].get(kind, 0):,.0f}" for line in last]
        for kind in kinds
    }
    rows["gradient steps"] = [f"{line['gradient_updates']:,.0f}" for line in last]
    rows["seconds, all seeds in parallel"] = [f"{line['wall_seconds']:,.0f}" for line in last]
    return rows


def table(heads: Sequence[str], rows: dict[str, list[str]]) -> str:
    """Format a Markdown table whose first column contains the names of the rows."""
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])


def run_command(command: str) -> int:
    """Print a command as a user would type it, run it, and return its exit code."""
    print(f"\n$ rlgen {command}", flush=True)
    return rlgen(shlex.split(command))
