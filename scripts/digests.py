"""Compare the results of this working tree with those of an earlier revision, bit for bit.

    python scripts/digests.py HEAD
    python scripts/digests.py v0.1.0 --only plr eval --keep kept

Use the script for refactorings, which move and rename code but change no result. It copies the
revision and the working tree, including uncommitted changes, to a temporary folder, so you can
continue to edit files. Both copies (trees) train the same small runs on CPU. The script compares
three things: the arrays of the last checkpoint, the columns of `metrics.jsonl` except wall-clock
times, and an evaluation of the first run. For each run and each tree, the script prints a digest of
all values that are compared. If a name differs between the trees, it must be listed in `RENAMED`;
digests use the names of the working tree.

Programs are compiled with few optimisations. Compilation is then faster, and programs that differ
only in the order of their results do not round differently.

Exit code: 0 if all values are equal, 1 if any value differs, 2 if a comparison was impossible.
"""

import argparse
import csv
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

RENAMED: dict[str, str] = {
    "num_queued": "levels_per_slot",
    "sampler.replay_prob": "sampler.decision.replay_prob",
    "slots.memory": "slots.score_state",
    "slots.row": "slots.buffer_index",
    "slots.note": "slots.level_info",
    "buffer.memory.score": "buffer.level_info.score_state",
    "buffer.memory": "buffer.level_info",
    "population.rivals": "population.antagonists",
    "population.rivals_running": "population.antagonists_running",
    "turn": "level_index",
    "looks_next": "explore_next",
    "pairs_at_a_time": "pair_batch_size",
    "tenancy": "updates_per_level",
    "life_return": "lifetime_return",
    "life_antagonist_return": "lifetime_antagonist_return",
    "life_regret": "lifetime_regret",
    "life_gap": "lifetime_gap",
    "lives_ended": "lifetimes_ended",
    "lives_cut": "lifetimes_truncated",
    "lost_agents": "diverged_agents",
    "standing": "normalised_scores",
}
"""Old names and their new names, such as `{"width": "num_columns", "slots.row": "slots.index"}`.

A name is one component of a path, or several components with dots between them. Paths identify
leaves of a checkpoint, fields (options with `_` in place of `-`), metrics, and values in an
evaluation. Each tree is called with the names that it knows. An entry may therefore stay after both
trees have the new name.
"""

CLOCK = ("wall_seconds", "compile_seconds", "steps_per_second")  # metrics that are not compared
TEXTS = ("versions", "meaning", "of_levels", "digest")
"""Parts of an evaluation that are not compared: versions, descriptions of intervals, digests."""
NUM_SHOWN = 20  # number of differences shown per part of a run
NUM_LINES = 20  # number of lines shown from the end of a failed command's error output

Values: TypeAlias = dict[str, np.ndarray]
Found: TypeAlias = dict[str, Values]  # for each compared part of a run, arrays by name

_AGENT = """
    --num-slots=8 --student.num-steps=64
    --student.learner.num-minibatches=2 --student.learner.bptt-steps=16
    --student.learner.network.hidden-size=16 --student.learner.network.head-size=8
    --student.learner.network.conv-features=4
"""
# Replay starts at the third update. Soon afterwards, buffer rows are replaced.
_REPLAY = "--env=maze --env.max-steps=48 --sampler.capacity=24 --sampler.min-fill=0.5"
_LIVES = "--env=gridworld --num-slots=4 --student.rollout-steps=8 --student.eval-episodes=8"
_GROOVE = """
    --student.num-workers=8 --student.num-inner-updates=2 --student.block=2
    --student.rule.hidden-size=8 --sampler.capacity=8 --sampler.min-fill=0.25
    --sampler.source.shortest=2 --sampler.source.longest=8
"""
_TA_LPG = """
    --student.num-workers=4 --student.learner.net.hidden-size=8
    --sampler.shortest=2 --sampler.longest=6
"""
# After the fifth update, all 32 levels have been played. From then on, every second update proposes
# 16 generated levels.
_DRED = """
    --env=cave --env.max-steps=24 --num-queued=2
    --sampler.capacity=48 --sampler.admit=any --sampler.data.path= --sampler.data.num-levels=32
    --sampler.source.model.num-epochs=2 --sampler.source.model.num-latents=16
    --sampler.source.model.hidden-size=16
"""
_PAIRED = "--env=cart-pole --env.max-steps=48 --sampler.teacher.network.hidden-size=16"
RUNS = {  # for each recipe: env steps per update, as in the plan in config.json, and options
    "plr": (512, f"{_AGENT} {_REPLAY} --sampler.replay-prob=0.5"),
    "accel": (512, f"{_AGENT} {_REPLAY} --sampler.replay-prob=0.7 --bonus=counts*episodic"),
    "groove": (768, f"{_LIVES} {_GROOVE}"),
    "ta-lpg": (900, f"{_LIVES} {_TA_LPG}"),
    "dred": (512, f"{_AGENT} {_DRED}"),
    "paired": (1024, f"{_AGENT} {_PAIRED}"),
}
EVALUATED, EVAL = "plr", "eval"
EVAL_OPTIONS = "--suite=maze/test-25 --attempts=2 --seed=3 --json"


class Tree(NamedTuple):
    """Copy of the revision or of the working tree, and the folder of its runs."""

    label: str
    code: Path
    runs: Path


class CannotCompareError(Exception):
    """Raised if the revision is unknown or a run failed, so that no comparison is possible."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the trees and return the exit code."""
    given = _parse(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"  # also for this process, which reads checkpoints
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that temporary files are removed
    try:
        with tempfile.TemporaryDirectory(prefix="rlgen-digests-") as scratch:
            return _compare_trees(given, Path(scratch).resolve())
    except (CannotCompareError, OSError) as error:
        print(f"digests: {error}", file=sys.stderr)
        return 2


def spelling(name: str, known: Collection[str], renamed: Mapping[str, str] = RENAMED) -> str:
    """Return the spelling of a name, old or new, that is in `known`; if neither is, the name."""
    return next((text for text in _spellings(name, renamed) if text in known), name)


def with_names_of(
    old: Mapping[str, Any], new: Collection[str], renamed: Mapping[str, str] = RENAMED
) -> dict[str, Any]:
    """Return the entries of `old` under the names that `new` uses for them.

    A name is kept if it is in `new`, or if no other spelling of the name is free in `new`.
    """
    found = {name: value for name, value in old.items() if name in new}
    free = set(new) - set(found)
    for name, value in old.items():
        if name not in found:
            other = spelling(name, free, renamed)
            free.discard(other)
            found[other] = value
    return found


def differences(old: Values, new: Values) -> list[str]:
    """Return one line per difference: first names missing on one side, then different arrays."""
    names = sorted({**new, **old}, key=lambda name: name in old and name in new)
    said = {name: _difference(old.get(name), new.get(name)) for name in names}
    return [f"{name} {how}" for name, how in said.items() if how]


def digest(found: Found) -> str:
    """Return 12 hexadecimal digits of SHA-256 over parts, names, types, shapes and bytes."""
    total = hashlib.sha256()
    arrays = {(part, name): x for part, values in found.items() for name, x in values.items()}
    for (part, name), x in sorted(arrays.items(), key=lambda entry: entry[0]):
        total.update(json.dumps([part, name, str(x.dtype), x.shape]).encode())
        total.update(x.tobytes())
    return total.hexdigest()[:12]


def flatten(value: Any, path: str = "") -> Values:
    """Flatten JSON to arrays by dotted path; numbers and lists become float64, null becomes NaN."""
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list) and any(isinstance(x, dict | list | str) for x in value):
        parts = [(str(i), x) for i, x in enumerate(value)]
    else:
        return {path: np.array(value, None if isinstance(value, str) else np.float64)}
    nested = [flatten(x, f"{path}.{name}" if path else name) for name, x in parts]
    return {name: x for values in nested for name, x in values.items()}


def columns(lines: Sequence[str], renamed: Mapping[str, str] = RENAMED) -> Values:
    """Return the columns of a metrics file over its updates, without wall-clock times."""
    rows = [flatten(json.loads(line)) for line in lines]
    names = dict.fromkeys(name for row in rows for name in row)
    kept = [name for name in names if spelling(name, CLOCK, renamed) not in CLOCK]
    absent = np.array(np.nan)
    by_name = {name: [row.get(name, absent) for row in rows] for name in kept}
    return {name: np.stack(np.broadcast_arrays(*column)) for name, column in by_name.items()}


def _spellings(name: str, renamed: Mapping[str, str]) -> list[str]:
    """Return the name and its variants with parts renamed, from old to new or from new to old."""
    found = [name]
    for pair in renamed.items():
        for old, new in (pair, pair[::-1]):
            whole = rf"(?<![^.]){re.escape(old)}(?![^.])"  # whole components: next to dots or ends
            found += [re.sub(whole, lambda _, new=new: new, text) for text in found]
            found = list(dict.fromkeys(found))
    return found


def _difference(old: np.ndarray | None, new: np.ndarray | None) -> str:
    """Describe how and by how much two arrays differ; "" if they are bit-identical."""
    if old is None or new is None:
        return "is missing in the new tree" if new is None else "is missing in the old tree"
    if (old.dtype, old.shape) != (new.dtype, new.shape):
        return f"was {old.dtype}{list(old.shape)}, is {new.dtype}{list(new.shape)}"
    if old.tobytes() == new.tobytes():
        return ""
    rows = (np.frombuffer(x.tobytes(), np.uint8).reshape(old.size, -1) for x in (old, new))
    where = np.not_equal(*rows).any(axis=1)
    was, now = old.ravel()[where], new.ravel()[where]
    said = f"differs in {where.sum()} of {old.size}"
    if old.dtype.kind in "US":
        return f"{said}: was {str(was[0])!r}, is {str(now[0])!r}"
    gaps = np.abs(was.astype(np.float64) - now.astype(np.float64))
    return f"{said}, max abs difference {gaps.max():.3g}"


def _compare_trees(given: argparse.Namespace, scratch: Path) -> int:
    runs = Path(given.keep).resolve() if given.keep else scratch / "runs"
    label = _export(given.revision, scratch / "old")
    _copy_working_tree(scratch / "new")
    old = Tree(f"old tree ({label})", scratch / "old", runs / "old")
    new = Tree("new tree (working tree)", scratch / "new", runs / "new")
    for tree in (old, new):
        tree.runs.mkdir(parents=True)
        _check_import(tree)
    start = time.monotonic()

    def run(tree: Tree, name: str) -> Found:
        elapsed = time.monotonic() - start
        print(f"[{elapsed:4.0f} s] {name}: {tree.label}", file=sys.stderr, flush=True)
        return _evaluate(tree) if name == EVAL else _train(tree, name, given.updates)

    wanted = {*given.only, *([EVALUATED] if EVAL in given.only else [])}
    names = [name for name in (*RUNS, EVAL) if name in wanted]
    are_equal = [_report(name, run(old, name), run(new, name)) for name in names]
    print(f"[{time.monotonic() - start:4.0f} s] done", file=sys.stderr)
    return 0 if all(are_equal) else 1


def _report(name: str, old: Found, new: Found) -> bool:
    """Print the digests and the differences of a run; return whether the trees agree."""
    old = {part: with_names_of(values, new.get(part, {})) for part, values in old.items()}
    found = {part: differences(old.get(part, {}), new.get(part, {})) for part in {**new, **old}}
    num = sum(map(len, found.values()))
    sizes = ", ".join(f"{len(values)} {part}" for part, values in new.items())
    says = f"{num} DIFFERENT" if num else "equal"
    print(f"{name:<6}  old {digest(old)}  new {digest(new)}  {says}  ({sizes})")
    for part, lines in found.items():
        more = [f"and {len(lines) - NUM_SHOWN} more"] * (len(lines) > NUM_SHOWN)
        print("".join(f"    {part}: {x}\n" for x in lines[:NUM_SHOWN] + more), end="", flush=True)
    return num == 0


def _train(tree: Tree, name: str, updates: int) -> Found:
    """Train a run, and read its last checkpoint and its metrics."""
    (steps, options), out = RUNS[name], tree.runs / name
    # With an even number of updates there are two chunks, which tests that states are carried over.
    chunk = updates // (1 if updates % 2 else 2)
    length = ["--steps", str(updates * steps), "--chunk", str(chunk), "--seed", "7"]
    command = ["train", name, *_spelled(tree, name, options.split()), *length, "--out", str(out)]
    _python(tree, "-m", "rlgen", *command)
    lines = (out / "metrics.jsonl").read_text().splitlines()
    if len(lines) != updates:
        raise CannotCompareError(
            f"{name}: the run made {len(lines)} updates instead of {updates}; correct the env "
            "steps per update in RUNS"
        )
    return {"leaves": _checkpoint(out), "metrics": columns(lines)}


def _evaluate(tree: Tree) -> Found:
    """Evaluate a trained run, and read its printed and saved results."""
    run, out = tree.runs / EVALUATED, tree.runs / EVAL
    command = ["-m", "rlgen", "eval", str(run), *EVAL_OPTIONS.split(), "--out", str(out)]
    texts = {"printed values": _python(tree, *command)}
    texts |= {file: (out / file).read_text() for file in ("results.json", "results.csv")}
    texts = {part: text.replace(str(tree.runs), "RUNS") for part, text in texts.items()}
    rows = csv.reader(io.StringIO(texts.pop("results.csv")))
    table = {head: np.array(cells) for head, *cells in zip(*rows, strict=True)}
    found = {part: _without_beside(flatten(json.loads(text))) for part, text in texts.items()}
    with np.load(out / "episodes.npz") as file:
        episodes = {name: file[name] for name in file.files}
    return {**found, "results.csv": table, "episodes.npz": episodes}


def _without_beside(values: Values) -> Values:
    return {name: x for name, x in values.items() if not {*TEXTS} & {*name.split(".")}}


def _checkpoint(run: Path) -> Values:
    """Return the arrays of the newest checkpoint; leaves without elements are not stored."""
    import orbax.checkpoint as ocp

    newest = max(path for path in (run / "checkpoints").iterdir() if path.name.isdigit())
    with ocp.StandardCheckpointer() as reader:
        stored = reader.restore((newest / "state").absolute())
    return {name: np.asarray(x) for name, x in stored.items()}


def _spelled(tree: Tree, recipe: str, options: Sequence[str]) -> list[str]:
    """Return the options as the tree spells them.

    If any option has several spellings, the tree's output of `--help` is searched for them.
    """
    values = {}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        values[name.replace("-", "_")] = value
    known: Collection[str] = values
    if any(len(_spellings(name, RENAMED)) > 1 for name in values):
        names = [option for option in options if option.startswith(("--env=", "--bonus="))]
        listed = _python(tree, "-m", "rlgen", "train", recipe, *names, "--help")
        known = {name.replace("-", "_") for name in re.findall(r"--([\w.-]+)", listed)}
    spelled = {spelling(name, known): value for name, value in values.items()}
    return [f"--{name.replace('_', '-')}={value}" for name, value in spelled.items()]


def _python(tree: Tree, *arguments: str) -> str:
    """Run Python in a tree and return what it prints."""
    command, variables = [sys.executable, *arguments], _environment(tree)
    done = subprocess.run(command, cwd=tree.code, env=variables, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join(done.stderr.splitlines()[-NUM_LINES:])
        said = f"python {shlex.join(arguments)} ended with {done.returncode}"
        raise CannotCompareError(f"{tree.label}: {said}:\n{tail}")
    return done.stdout


def _environment(tree: Tree) -> dict[str, str]:
    """Return the environment variables for a tree; the trees share one compilation cache."""
    flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    return {
        **os.environ,
        "PYTHONPATH": str(tree.code),
        "PYTHONHASHSEED": "0",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
        "JAX_COMPILATION_CACHE_DIR": str(tree.code.with_name("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "MPLBACKEND": "Agg",
        "COLUMNS": "120",  # so that --help does not wrap option names
    }


def _check_import(tree: Tree) -> None:
    """Check that Python imports the rlgen of the tree when it runs in the tree.

    Raises:
        CannotCompareError: If Python imports another installation.
    """
    ask = "import importlib.util as u; print(getattr(u.find_spec('rlgen'), 'origin', None))"
    origin = _python(tree, "-c", ask).strip()
    if not Path(origin).resolve().is_relative_to(tree.code):
        raise CannotCompareError(
            f"{tree.label}: Python does not import rlgen from this tree, but from {origin}"
        )


def _export(revision: str, folder: Path) -> str:
    """Write the files of a revision to a folder, and return the revision's name and commit."""
    unknown = f"unknown revision {revision!r}; name a commit, a branch or a tag"
    commit = _git("rev-parse", "--verify", f"{revision}^{{commit}}", failure=unknown).strip()
    archive = folder.with_suffix(".tar")
    _git("archive", "--format=tar", f"--output={archive}", commit)
    shutil.unpack_archive(archive, folder, "tar")
    return f"{revision}, {commit[:10]}"


def _copy_working_tree(folder: Path) -> None:
    """Copy all files that git tracks or would add, with their current content."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file() or source.is_symlink():  # false for a tracked file that was deleted
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def _git(*arguments: str, failure: str = "") -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        said = done.stderr.decode().strip()
        raise CannotCompareError(failure or f"git {shlex.join(arguments)}: {said}")
    return done.stdout.decode()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = (*RUNS, EVAL)
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("revision", metavar="REV", help="revision to compare with")
    parser.add_argument(
        "--only", nargs="+", choices=names, default=names, help="runs to compare (default: all)"
    )
    parser.add_argument("--keep", metavar="FOLDER", help="keep the runs in this new folder")
    parser.add_argument(
        "--updates", type=int, default=20, metavar="N", help="updates per run (default: 20)"
    )
    given = parser.parse_args(arguments)
    if given.updates < 1:
        parser.error(f"--updates must be at least 1, got {given.updates}")
    return given


if __name__ == "__main__":
    sys.exit(main())
