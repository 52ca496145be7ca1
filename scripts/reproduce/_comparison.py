"""What the comparisons in this folder share: runs that are trained once, and tables in Markdown."""

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
    """The options that all comparisons have.

    Args:
        about: the script's docstring, whose first line is shown.
        methods: recipes compared by default.
        defaults: of `env`, `steps`, `seeds`, `attempts` and `out`.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("--methods", nargs="+", default=list(methods), help="recipes")
    parser.add_argument("--env")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--steps", help="env steps of each seed; '': the recipe's own")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--attempts", type=int, help="on each held-out level")
    parser.add_argument("--out", type=Path)
    parser.add_argument("train_options", nargs="*", help="after --: of `rlgen train`")
    parser.set_defaults(**defaults)
    return parser


def train_options(options: Any) -> str:
    """What they say to `rlgen train`."""
    steps = f"--steps {options.steps} " if options.steps else ""
    return (
        f"--env {options.env} --preset {options.preset} {steps}--seeds {options.seeds} --devices "
        f"{options.devices} {shlex.join(options.train_options)}"
    )


def check_runs(runs: Sequence[Path], options: Any) -> None:
    """Refuse to compare with runs of another size, before anything is trained."""
    wanted = {name: getattr(options, name) for name in ("env", "preset", "seeds")}
    if options.steps:
        wanted["steps"] = int(float(options.steps))
    for run in runs:
        refuse_other(run, wanted)


def refuse_other(run: Path, wanted: dict[str, Any]) -> None:
    """Refuse to compare with one run of another size.

    Args:
        run: a folder, of a run or not yet there.
        wanted: fields of `rlgen.runs.spec.RunSpec`.
    """
    if not folder.is_run(run):
        return
    spec = folder.read(run)["spec"]
    for name, value in wanted.items():
        if spec[name] != value:
            sys.exit(
                f"{run} was trained with {name}={spec[name]}, and this comparison asks for "
                f"{value}; ask for the same, or choose another --out"
            )


def train_all(options: Any) -> tuple[list[Path], int]:
    """The folders of all methods' runs, trained as far as they were not; and the exit code."""
    runs = [options.out / method for method in options.methods]
    check_runs(runs, options)
    for method, run in zip(options.methods, runs, strict=True):
        code = train(method, run, train_options(options))
        if code:
            return runs, code
    return runs, 0


def write_comparison(text: str, options: Any) -> None:
    """Write `comparison.md`, and show it."""
    results.write(options.out / "comparison.md", text.encode())
    print(f"\n{text}\nThe comparison is {options.out / 'comparison.md'}")


def train(method: str, run: Path, options: str) -> int:
    """Train a run, go on with one that was interrupted, or leave a finished one as it is.

    Args:
        method: the recipe.
        run: its folder.
        options: of `rlgen train`, as they are typed.
    """
    if not folder.is_run(run):
        return run_command(f"train {method} --out {shlex.quote(str(run))} {options}")
    done, planned = checkpoint.updates(run), folder.read(run)["plan"]["num_updates"]
    if done and done[-1] >= planned:
        print(f"{run} is trained already")
        return 0
    return run_command(f"train --resume {shlex.quote(str(run))}")


def costs(runs: Sequence[Path]) -> dict[str, list[str]]:
    """Env steps of each kind, gradient steps and seconds of each run: rows of a table."""
    last = [read_metrics(run / "metrics.jsonl")[-1] for run in runs]
    kinds = sorted({kind for line in last for kind in line["env_steps"]})
    rows = {
        f"env steps: {kind}": [f"{line['env_steps'].get(kind, 0):,.0f}" for line in last]
        for kind in kinds
    }
    rows["gradient steps"] = [f"{line['gradient_updates']:,.0f}" for line in last]
    rows["seconds, all seeds side by side"] = [f"{line['wall_seconds']:,.0f}" for line in last]
    return rows


def table(heads: Sequence[str], rows: dict[str, list[str]]) -> str:
    """A table in Markdown; the names of the rows are its first column."""
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])


def run_command(command: str) -> int:
    """Show a command as a user would type it, and run it; its exit code."""
    print(f"\n$ rlgen {command}", flush=True)
    return rlgen(shlex.split(command))
