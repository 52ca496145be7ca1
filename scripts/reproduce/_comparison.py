"""What the comparisons in this folder share: runs that are trained once, and tables in Markdown."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlgen.cli import main as rlgen
from rlgen.evaluation.curves import read_metrics
from rlgen.runs import checkpoint, folder


def refuse_other(run: Path, wanted: dict[str, Any]) -> None:
    """Refuse to compare with a run of another size, before anything is trained.

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
