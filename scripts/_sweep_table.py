"""Results of a sweep as one table: CSV, Markdown and JSON files, and a table in the terminal."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _sweep_points import describe, short_names
from _sweep_run import CUT, DONE, FAILED, VALIDATION, WAITING, Row
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.stats.formatting import show
from rlgen.runs.folder import write_atomically
from rlgen.runs.progress import duration

FORMAT = "rlgen-sweep-1"
FILES = ("sweep.csv", "sweep.md", "sweep.json")
NUMBERS = (
    "mean", "mean_low", "mean_high", "iqm", "train_solve_rate", "env_steps", "seconds", "look",
)  # fmt: skip


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Sort rows, best first, by score or, if no row has a score, by training solve rate.

    Rows of points without this value are placed last.
    """
    by_score = any(row.get("mean") is not None for row in rows)
    key = "mean" if by_score else "train_solve_rate"
    known = [row for row in rows if row["state"] == DONE and row.get(key) is not None]
    rest = [row for row in rows if not any(row is one for one in known)]
    return [*sorted(known, key=lambda row: -row[key]), *rest]


def write(out: Path, rows: Sequence[Row], facts: Mapping[str, Any]) -> None:
    """Write `sweep.csv`, `sweep.md` and `sweep.json` atomically, with the best point first.

    Args:
        out: Folder of the sweep.
        rows: Rows of the points.
        facts: Settings of the whole sweep: `suite`, `attempts`, `evaluation_seed`, `split` and
            `options`.
    """
    ordered = ranked(rows)
    options = _options(ordered)
    write_atomically(out / "sweep.csv", _csv(ordered, options))
    write_atomically(out / "sweep.md", _markdown(ordered, options, facts))
    content = {"format": FORMAT, **facts, "points": ordered}
    write_atomically(out / "sweep.json", json.dumps(content, indent=1, allow_nan=False) + "\n")


def read(out: Path) -> dict[str, Any] | None:
    """Read the table that `write` wrote, or return None if the folder contains no sweep.

    Raises:
        ValueError: If the file is damaged or has another format.
    """
    path = out / "sweep.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        _ = dict(content["options"])
        _ = [
            row["name"] + row["fingerprint"] + describe(row["values"]) for row in content["points"]
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged or not in the format {FORMAT}, and was not changed; choose another "
            "--out, or remove the file (the runs in the folder are then kept and resumed)"
        ) from error
    return content


def show_table(
    out: Path, rows: Sequence[Row], facts: Mapping[str, Any], console: Console | None = None
) -> None:
    """Print the table, for terminals of at least 80 columns, with notes on how to interpret it."""
    console = console or Console()
    ordered = ranked(rows)
    title = Text(str(out), style="bold")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("point", overflow="fold")
    for head in _heads(ordered, facts):
        table.add_column(Text(head), justify="right", no_wrap=True)
    for row in ordered:
        table.add_row(Text(_label(row)), *map(Text, _cells(row)))
    console.print(table)
    for note in _notes(ordered, facts):
        console.print(Text(note, style="dim"))
    scored = [out / row["name"] for row in ordered if row.get("mean") is not None]
    if len(scored) > 1:
        console.print(Text(_next(scored, facts)), soft_wrap=True)
    for row in ordered:
        if row["state"] == FAILED:
            said = Text(f"{row['name']} failed: {row['error']}", style="red")
            console.print(said, soft_wrap=True)


def _notes(ordered: Sequence[Row], facts: Mapping[str, Any]) -> list[str]:
    notes = []
    scored = [row for row in ordered if row.get("mean") is not None]
    if scored:
        notes.append(f"Interval: {scored[0]['interval']}.")
    if any(row.get("train_solve_rate") is not None for row in ordered):
        notes.append("Training: mean solve rate over seeds and the last tenth of the updates.")
    left = [row for row in ordered if row["state"] in (CUT, WAITING)]
    if left:
        notes.append(
            f"{len(left)} of {len(ordered)} points are not done; the same command resumes them."
        )
    if scored and len(ordered) > 1:
        notes.append(_warning(facts, len(scored)))
    return notes


def _next(scored: Sequence[Path], facts: Mapping[str, Any]) -> str:
    """Return a suggested next command."""
    if facts["suite"] == VALIDATION:
        return f"Evaluate the best point on other levels: rlgen ladder {scored[0]}"
    command = f"rlgen compare {scored[0]} {scored[1]} --suite {facts['suite']}"
    return f"Is the first clearly better? {command}"


def _warning(facts: Mapping[str, Any], num_scored: int) -> str:
    """Return a warning about the selection bias of the best score."""
    suite = facts["suite"]
    if facts["split"] in ("train", "validation"):
        return (
            f"Levels of the split {facts['split']} are meant for model selection. The best of "
            f"{num_scored} scores is biased upwards: report the chosen point's score on other "
            "levels."
        )
    if facts["split"] == "seen":
        return (
            f"Levels of {suite} also occur in training, so its scores are not scores on unseen "
            f"levels. The best of {num_scored} scores is biased upwards."
        )
    return (
        f"{suite} is a test suite, and this sweep uses it for model selection. Every point's "
        f"folder records this use. The best of {num_scored} scores is biased upwards. Report the "
        "chosen point's score on a suite that was not used for selection."
    )


def _heads(ordered: Sequence[Row], facts: Mapping[str, Any]) -> list[str]:
    kind = next((row["score"] for row in ordered if row.get("score")), "")
    score = [f"{kind or 'score'}, mean\n{facts['suite']}"] if facts["suite"] else []
    return [*score, "training", "time", "state"]


def _label(row: Row) -> str:
    number = row["name"].partition("-")[0]
    return f"{number}  " + describe(row["values"]).replace(", ", "\n" + " " * (len(number) + 2))


def _cells(row: Row) -> list[str]:
    score = [_score(row)] if "score" in row else []
    train, seconds = row.get("train_solve_rate"), row.get("seconds")
    return [
        *score,
        "-" if train is None else f"{100 * train:.1f} %",
        "-" if seconds is None else duration(seconds),
        row["state"],
    ]


def _score(row: Row) -> str:
    if row["mean"] is None:
        return "-"
    value = show(row["mean"], row["score"])
    if row["mean_low"] is None:
        return value
    low, high = (show(row[k], row["score"]).removesuffix(" %") for k in ("mean_low", "mean_high"))
    return f"{value} [{low}, {high}]"


def _options(rows: Sequence[Row]) -> dict[str, str]:
    """Return the short names of all options that vary, by full name."""
    return short_names({name: "" for row in rows for name in row["values"]})


def _csv(rows: Sequence[Row], options: Mapping[str, str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["point", *options, "score", *NUMBERS, "state", "error"])
    for row in rows:
        values = [row["values"].get(name, "") for name in options]
        numbers = [row.get(name) for name in NUMBERS]
        score = row.get("score", "")
        writer.writerow([row["name"], *values, score, *numbers, row["state"], row["error"]])
    return text.getvalue()


def _markdown(rows: Sequence[Row], options: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    heads = ["point", *options.values(), *(x.replace("\n", ", ") for x in _heads(rows, facts))]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        values = [row["values"].get(name, "") for name in options]
        lines.append([row["name"], *values, *_cells(row)])
    text = "\n".join(
        "| " + " | ".join(x.replace("|", "\\|") for x in line) + " |" for line in lines
    )
    failed = [f"- {row['name']} failed: {row['error']}" for row in rows if row["state"] == FAILED]
    return "\n".join([text, "", *failed, ""])
