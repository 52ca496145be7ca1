"""Save and load results of evaluations as plain files that are safe to open and share.

A results folder contains three files:

- `results.json`: summary and tables of scores, scores by class of levels, percentiles over levels
  and, if measured, generalisation gaps and CVaR (mean score on the worst levels);
- `results.csv`: one row per run, seed and level;
- `episodes.npz`: every episode, so that saved evaluations can be compared with later evaluations.

The first file holds digests of its other keys and of the episodes, which are verified whenever the
folder is read; see `rlgen.evaluation.report.digest`.
"""

import csv
import io
import json
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlgen.evaluation.episodes import Evaluation, Json, hex_hash, plain, printable
from rlgen.evaluation.generalisation.gap import Gap, Gaps, LevelInformation
from rlgen.evaluation.report import digest
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.selection_bias import SelectionBias
from rlgen.evaluation.stats.settings import DEFAULT, Intervals
from rlgen.evaluation.stats.summary import TAU, some

FORMAT = "rlgen-results-1"
FILES = ("results.json", "results.csv", "episodes.npz")


class Results(NamedTuple):
    """Contents of a results folder."""

    evaluations: tuple[Evaluation, ...]
    gaps: tuple[Gaps, ...]  # for runs with a finite training set
    worst: tuple[CVaR, ...]  # for runs with the second evaluation that CVaR needs
    is_verified: bool  # False if the results have no digest, because version 0.1 saved them


def to_json(
    evaluations: Sequence[Evaluation],
    intervals: Intervals = DEFAULT,
    seed: int = 0,
    gaps: Sequence[Gaps] = (),
    worst: Sequence[CVaR] = (),
) -> dict[str, Json]:
    """Convert the results, without the individual episodes, to JSON values; NaN becomes null.

    The following entries exist only under these conditions:
    - `relative`: if a baseline was evaluated;
    - `generalisation`: if `gaps` is given, for runs with a finite training set;
    - `cvar`: if `worst` is given, for runs with the second evaluation that CVaR needs;
    - `classes`: if levels differ in difficulty;
    - `normalised_scores`: if returns can be normalised.
    """
    found = analyse(evaluations, intervals, seed)
    summary, first = found.summary, evaluations[0]
    content = {
        "format": FORMAT,
        "suite": first.suite,
        "suite_version": first.suite_version,
        "score": summary.score,
        "interval": {"meaning": summary.meaning, "seed": seed} | asdict(intervals),
        "levels": _levels(first),
        "profile_tau": TAU,
        "runs": [
            {
                "num_seeds": e.shape[0],
                "num_attempts": e.shape[2],
                "meta": e.meta,
                **_fields(result),
                "per_seed": _per_seed(e),
            }
            for e, result in zip(evaluations, summary.runs, strict=True)
        ],
        "comparisons": [_fields(c) for c in summary.comparisons],
    }
    if found.relatives:
        content["relative"] = [_fields(one) for one in found.relatives]
    if gaps:
        content["generalisation"] = [_known(_fields(one)) for one in gaps]
    if found.classes is not None:
        content["classes"] = _fields(found.classes)
    if found.normalised is not None:
        content["normalised_scores"] = _fields(found.normalised)
    if worst:
        content["cvar"] = [_fields(one) for one in worst]
    return {name: plain(value) for name, value in content.items()}


def save(
    folder: Path | str,
    evaluations: Sequence[Evaluation],
    overwrite: bool = False,
    intervals: Intervals = DEFAULT,
    seed: int = 0,
    gaps: Sequence[Gaps] = (),
    worst: Sequence[CVaR] = (),
) -> None:
    """Write `results.json`, `results.csv` and `episodes.npz`, each atomically.

    All three files are written completely under temporary names before the first file is replaced.
    After an interruption, the folder therefore has either all old results or all new results. If
    some of the files were replaced and others not, `read` reports it, and the new `results.json` is
    complete under its temporary name.

    Raises:
        ValueError: `folder` is a file, or it already has results and `overwrite` is False.
    """
    folder = Path(folder)
    check_free(folder, overwrite)
    # All contents are computed before anything is written, so an error leaves the folder unchanged.
    found = to_json(evaluations, intervals, seed, gaps, worst)
    arrays = {}  # named `{index of the run}/{field}`, each [S, M, A]
    for i, e in enumerate(evaluations):
        arrays |= {f"{i}/episode_return": e.episode_return, f"{i}/length": e.length}
        if not isinstance(e.success, tuple):
            arrays[f"{i}/success"] = e.success
    # JSON has no NaN: `plain` has replaced every NaN, and `allow_nan=False` checks this.
    found[digest.KEY] = digest.digests(found, arrays)
    content = json.dumps(found, indent=1, allow_nan=False)
    archive = io.BytesIO()
    np.savez_compressed(archive, **arrays)
    folder.mkdir(parents=True, exist_ok=True)
    data = {"episodes.npz": archive.getvalue(), "results.csv": _csv(evaluations).encode()}
    # Replaced last: if a new folder has `results.json`, the other two files are complete.
    data["results.json"] = content.encode()
    for name, one in data.items():
        _write_part(folder / name, one)
    for name in data:
        os.replace(digest.part_of(folder / name), folder / name)


def load(folder: Path | str) -> tuple[Evaluation, ...]:
    """Load only the evaluations from a folder that `save` wrote.

    The function `read` loads all contents and documents the errors.
    """
    return read(folder).evaluations


def read(folder: Path | str) -> Results:
    """Read a folder that `save` wrote; nothing in it is executed or unpickled.

    Raises:
        ValueError: The folder has no results, or the results have another format, are damaged, or
            do not agree with their digests. If seeds or levels are missing, the message names them.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file():
        raise ValueError(f"{folder} has no results.json; run `rlgen eval` to create results")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged, or it was not written by rlgen") from error
    if found != FORMAT:
        raise ValueError(
            f"{path} has the format {found!r}; this version of rlgen reads only {FORMAT!r}"
        )
    arrays = _episodes(folder)
    is_verified = digest.verify(path, content, arrays)
    try:
        return Results(
            tuple(_evaluation(content, arrays, i) for i in range(len(content["runs"]))),
            tuple(_gaps(one) for one in content.get("generalisation", [])),
            tuple(_cvar(one) for one in content.get("cvar", [])),
            is_verified,
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"{folder}: episodes.npz is damaged or from other runs ({error})"
        ) from error


def _episodes(folder: Path) -> dict[str, np.ndarray]:
    """Read the arrays of `episodes.npz`."""
    path = folder / "episodes.npz"
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # A damaged archive can also raise NotImplementedError (compression), RuntimeError (encryption)
    # or MemoryError (shape), depending on the damaged byte.
    except (OSError, EOFError, ValueError, RuntimeError, MemoryError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    except (AttributeError, IndexError, SyntaxError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path} is missing or damaged ({error}); {digest.ADVICE}")


def check_free(folder: Path | str, overwrite: bool = False, files: Sequence[str] = FILES) -> None:
    """Reject a folder in which results would be overwritten; call this before evaluating.

    Raises:
        ValueError: `folder` is a file, or it contains one of `files` and `overwrite` is False.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a folder for the results")
    taken = [name for name in files if (folder / name).exists()]
    if taken and not overwrite:
        raise ValueError(
            f"{folder} already has {taken[0]}; add --overwrite to replace the results, or choose "
            "another folder with --out"
        )


def write(path: Path, data: bytes) -> None:
    """Replace a file atomically: an interruption leaves either the old or the new content."""
    _write_part(path, data)
    os.replace(digest.part_of(path), path)


def _write_part(path: Path, data: bytes) -> None:
    """Write the temporary file with which a file is replaced."""
    # `os.replace` is atomic only within a file system, so the temporary file is in the same folder.
    with open(digest.part_of(path), "wb") as file:
        file.write(data)
        file.flush()
        # Otherwise a power failure after the replacement could leave an empty file.
        os.fsync(file.fileno())


def _levels(e: Evaluation) -> list[dict[str, Json]]:
    columns = (e.level_names, map(hex_hash, e.level_hashes), e.optimal_steps, e.optimal_return)
    names = ("name", "hash", "optimal_steps", "optimal_return")
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _per_seed(e: Evaluation) -> dict[str, np.ndarray]:
    """Values for each seed and level, [S, M], by column name: means over attempts."""
    unknown = np.full(e.shape[:2], np.nan)
    return {
        "solve_rate": unknown if isinstance(e.success, tuple) else e.success.mean(axis=-1),
        "mean_return": e.episode_return.mean(axis=-1),
        "relative_return": e.relative_return.mean(axis=-1),
        "mean_length": e.length.mean(axis=-1),
        "solved_length": e.solved_length,
    }


def _csv(evaluations: Sequence[Evaluation]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = tuple(_per_seed(evaluations[0]))
    start = ("run", "suite", "suite_version", "seed", "level", "hash", "attempts", "optimal_steps")
    writer.writerow(start + columns)
    for e in evaluations:
        per_seed = _per_seed(e)
        for seed, i in np.ndindex(e.shape[0], e.shape[1]):
            steps = e.optimal_steps[i]
            texts = (_cell(e.run), _cell(e.suite), _cell(e.suite_version), seed)
            level = (_cell(e.level_names[i]), hex_hash(e.level_hashes[i]), e.shape[2])
            numbers = (per_seed[name][seed, i] for name in columns)
            row = (*texts, *level, "" if steps < 0 else steps)
            writer.writerow((*row, *("" if np.isnan(x) else f"{x:.6g}" for x in numbers)))
    return out.getvalue()


def _cell(text: str) -> str:
    """Escape text that a spreadsheet would interpret as a formula."""
    text = printable(text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _fields(record: Any) -> dict:
    """Convert a named tuple, and named tuples nested in it, to dicts."""

    def convert(x: Any) -> Any:
        # Named tuples are tested first, because they are also tuples.
        if _is_record(x):
            return _fields(x)
        if isinstance(x, dict):
            return {name: convert(value) for name, value in x.items()}
        is_records = isinstance(x, tuple) and x and _is_record(x[0])
        return [_fields(one) for one in x] if is_records else x

    return {name: convert(value) for name, value in record._asdict().items()}


def _is_record(x: Any) -> bool:
    """Return whether a value is a named tuple."""
    return isinstance(x, tuple) and type(x) is not tuple


def _known(fields: dict) -> dict:
    """Drop the fields whose value is `()`, which means unknown."""
    return {name: x for name, x in fields.items() if not (isinstance(x, tuple) and x == ())}


def _evaluation(content: dict, arrays: dict[str, np.ndarray], i: int) -> Evaluation:
    run, levels = content["runs"][i], content["levels"]
    # Inverse of `hex_hash`: 16 hexadecimal digits to two uint32.
    bits = [[int(level["hash"][:8], 16), int(level["hash"][8:], 16)] for level in levels]
    optimum = [level["optimal_return"] for level in levels]
    names = tuple(level["name"] for level in levels)
    needed = ("episode_return", "length", *(("success",) * (content["score"] == "solve rate")))
    # Checked before `Evaluation` is built, so that the error names the missing seeds and levels.
    _check_whole(run, names, {name: arrays.get(f"{i}/{name}") for name in needed})
    return Evaluation(
        run=run["run"],
        suite=content["suite"],
        suite_version=content["suite_version"],
        level_names=names,
        level_hashes=np.array(bits, np.uint32),
        optimal_steps=np.array([level["optimal_steps"] for level in levels]),
        optimal_return=np.array([np.nan if x is None else x for x in optimum]),
        episode_return=arrays[f"{i}/episode_return"],
        length=arrays[f"{i}/length"],
        success=arrays.get(f"{i}/success", ()),
        meta=run["meta"],
    )


def _check_whole(run: dict, names: tuple[str, ...], episodes: dict[str, np.ndarray | None]) -> None:
    """Raise an error that names the missing seeds, levels or attempts, if any are missing."""
    asked = (run["num_seeds"], len(names), run["num_attempts"])
    for what, x in episodes.items():
        if x is None or x.shape != asked:
            found = "is missing" if x is None else f"has {_counts(x.shape)}"
            raise ValueError(
                f"run {run['run']!r}: {what} {found}, but results.json has {_counts(asked)}"
            )
        # Index of the seed and of the level for every missing attempt.
        seeds, levels = np.nonzero(~np.isfinite(x).all(axis=-1))
        if len(seeds):
            # `some` shows only the first entries. The bound keeps the list short if everything is
            # missing.
            where = [f"seed {s} on {names[m]}" for s, m in zip(seeds[:1000], levels, strict=False)]
            raise ValueError(f"run {run['run']!r}: {what} is missing for {some(where)}")


def _counts(shape: tuple[int, ...]) -> str:
    """Describe the numbers of seeds, levels and attempts."""
    if len(shape) != 3:
        return f"shape {shape}"
    return f"{shape[0]} seeds, {shape[1]} levels and {shape[2]} attempts"


def _array(values: Any) -> np.ndarray:
    """Convert JSON numbers to a float array; null becomes NaN."""
    return np.array(values, np.float64)  # None becomes NaN


def _interval(fields: dict) -> Interval:
    value, low, high = (_array(fields[name]) for name in ("value", "low", "high"))
    return Interval(value, low, high, fields["kind"])


def _gap(fields: dict) -> Gap:
    # All fields except the last, `per_seed`, are intervals.
    train, test, gap = (_interval(fields[name]) for name in Gap._fields[:-1])
    return Gap(train, test, gap, _array(fields["per_seed"]))


def _gaps(fields: dict) -> Gaps:
    """Rebuild `Gaps` from JSON; the fields that `_known` dropped become `()`."""
    return Gaps(
        fields["run"],
        num_levels=fields["num_levels"],
        num_played=fields["num_played"],
        num_unseen=fields["num_unseen"],
        num_suite=fields["num_suite"],
        returns=_gap(fields["returns"]),
        solve_rate=_gap(fields["solve_rate"]) if "solve_rate" in fields else (),
        information=_information(fields["information"]) if "information" in fields else (),
        shift_gap=_array(fields["shift_gap"]) if "shift_gap" in fields else (),
    )


def _information(fields: dict) -> LevelInformation:
    # All fields except the last, `most`, are arrays.
    per_seed, raw, online, accuracy = (_array(fields[k]) for k in LevelInformation._fields[:-1])
    return LevelInformation(per_seed, raw, online, accuracy, fields["most"])


def _cvar(fields: dict) -> CVaR:
    return CVaR(
        fields["run"],
        fields["suite"],
        fields["score"],
        fields["num_levels"],
        _array(fields["alpha"]),
        np.array(fields["num_worst"], np.int64),
        _array(fields["each_seed"]),
        _interval(fields["mean"]),
        **_selection(fields),
    )


def _selection(fields: dict) -> dict[str, Any]:
    """Read the bias of CVaR; results of version 0.1 lack it, and it is then unknown (NaN)."""
    unknown = np.full(len(fields["alpha"]), np.nan)
    found = fields.get("selection_bias")
    if found is None:
        bias = SelectionBias(unknown, np.nan, np.zeros(len(unknown), np.int64))
    else:
        needed = np.array(found["needed"], np.int64)
        bias = SelectionBias(_array(found["bias"]), float(_array(found["tolerance"])), needed)
    return {"num_attempts": fields.get("num_attempts", 0), "selection_bias": bias}
