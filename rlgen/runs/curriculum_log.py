"""Curriculum log of a run: the levels that its slots played, with their scores and episodes.

    curriculum/00000050.npz     one chunk of updates; the file name is the number of the last update

In each update, a few evenly spaced slots are logged. For each of these slots, the log has the first
level that the slot played, with the level's score, origin and weight. The level's lineage (see
`Sampler.lineage`) is logged if the sampler keeps it, and statistics of the episodes on the level
are logged if the student counts episodes. Files contain plain arrays and a JSON header; nothing is
pickled. Quantities that take long to compute from a level, such as its features or its solution,
are not logged. Programs that read the log compute such quantities.
"""

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from rlgen.levels import plain_level
from rlgen.runs import metrics
from rlgen.types import EpisodeStats, PyTree, Task, UpdateRecord

FORMAT = "rlgen-curriculum-1"
FOLDER = "curriculum"
ORIGINS = ("new", "replay", "mutant")
"""Names of the values 0, 1 and 2 of `Slots.origin`."""


class Kept(NamedTuple):
    """Logged data of one update with n slots.

    For a chunk of U updates and S seeds, every array is `[S, U, n, ...]`.
    """

    level: PyTree  # [n, ...]
    score: Float[Array, " n"]  # -inf if the level was not scored
    origin: Int[Array, " n"]  # index into `ORIGINS`
    weight: Float[Array, " n"]  # 0 if the level did not contribute gradients
    row: Int[Array, " n"]  # row in the sampler's buffer; -1 if the level is not in it
    lineage: dict[str, Array]  # [n] each
    episodes: EpisodeStats | tuple[()]  # [n]; () if the student does not count episodes


class LevelLog(NamedTuple):
    """Complete log of a run as numpy arrays: U updates, S seeds, n slots."""

    update: Int[np.ndarray, " U"]  # starting at 1
    env_steps: Float[np.ndarray, " U"]  # cumulative, of one seed; NaN if missing in the metrics
    share: Float[np.ndarray, "U 3"]  # fraction of all slots with each origin: new, replay, mutant
    slot: Int[np.ndarray, " n"]  # indices of the logged slots
    level: PyTree  # [U, S, n, ...]
    score: Float[np.ndarray, "U S n"]
    origin: Int[np.ndarray, "U S n"]
    weight: Float[np.ndarray, "U S n"]
    row: Int[np.ndarray, "U S n"]
    lineage: dict[str, np.ndarray]  # [U, S, n] each; {} if the sampler keeps no lineage
    episodes: PyTree  # `EpisodeStats` of [U, S, n]; () if the student does not count episodes


def kept_slots(num_slots: int, num_kept: int) -> Int[np.ndarray, " n"]:
    """Indices of at most `num_kept` evenly spaced slots.

    Some samplers treat blocks of adjacent slots differently; evenly spaced slots cover all blocks.
    """
    num = min(num_kept, num_slots)
    # These are the middles of `num` intervals of equal length. `max` avoids division by 0.
    return ((np.arange(num) + 0.5) * num_slots / max(num, 1)).astype(np.int32)


def keep(met: UpdateRecord, num_kept: int) -> Kept | tuple[()]:
    """Select the part of an update's record that the log keeps; () if `num_kept` is 0."""
    if num_kept == 0:
        return ()
    slots = met.slots
    at = kept_slots(slots.buffer_index.shape[0], num_kept)
    past = dict(met.lineage)
    if isinstance(slots.level, Task):
        past["lifetime"] = slots.level.lifetime
    # These arrays are [N, R, ...] for N slots with a queue of R levels; only the first level of a
    # queue is logged. Origin and weight are [N].
    level, row, score, lineage, episodes = jax.tree.map(
        lambda x: x[at, 0],
        (plain_level(slots.level), slots.buffer_index, met.score, past, met.episodes),
    )
    return Kept(level, score, slots.origin[at], slots.weight[at], row, lineage, episodes)


def write(run: Path, before: int, slot: Int[np.ndarray, " n"], kept: Kept | tuple[()]) -> None:
    """Atomically write the logged data of a chunk, `[S, U, n, ...]`, into a separate file.

    Args:
        run: Run folder.
        before: Number of updates before the chunk.
        slot: Indices of the logged slots.
        kept: Logged data as numpy arrays; if (), no file is written.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    if not isinstance(kept, Kept):
        return
    last = before + kept.score.shape[1]
    arrays = {name: np.asarray(x).swapaxes(0, 1) for name, x in _named(kept).items()}  # [U, S, ...]
    header = {"format": FORMAT, "first": before + 1, "last": last, "slots": slot.tolist()}
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    # The name does not end in `.npz`, so an unfinished file is never read as a part of the log.
    part = folder / f".{last:08d}.part"
    with open(part, "wb") as file:
        arrays["header"] = np.asarray(json.dumps(header))
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        # The file is flushed before the rename. Otherwise the new name could reach the disk before
        # the content.
        os.fsync(file.fileno())
    part.replace(folder / f"{last:08d}.npz")


def cut(run: Path, update: int) -> None:
    """Remove the files of updates after `update`, which a resumed run will write again."""
    folder = run / FOLDER
    # These files were left by interrupted writes.
    for path in folder.glob(".*.part"):
        path.unlink()
    for path in _files(run):
        if int(path.stem) > update:
            path.unlink()


def has_log(run: Path) -> bool:
    """Return whether a run has a curriculum log."""
    return bool(_files(run))


def read(run: Path, like: PyTree) -> LevelLog:
    """Read the complete log of a run.

    Args:
        run: Run folder.
        like: Single level (or task) with the structure and shapes of the run's levels.

    Raises:
        ValueError: There is no log, or a file is damaged or from another run. The message names the
            run folder or the file.
    """
    paths, like = _files(run), plain_level(like)
    if not paths:
        raise ValueError(
            f"{run} has no curriculum log: it was trained with --log-levels 0, or with a version "
            "of rlgen that did not write one"
        )
    parts = [_read(path) for path in paths]
    # Optional arrays are used only if every file has them. The arrays of a level are required:
    # `_check` reports a file that lacks one of these arrays.
    names = set.intersection(*(set(arrays) for _, arrays in parts))
    flat = jax.tree_util.tree_flatten_with_path({"level": like})[0]
    leaves = [_name(path) for path, _ in flat]
    shapes = {name: np.shape(leaf) for name, (_, leaf) in zip(leaves, flat, strict=True)}
    cell = (parts[0][1]["score"].shape[1], len(parts[0][0]["slots"]))  # (S, n) of the first file
    for path, part in zip(paths, parts, strict=True):
        _check(path, part, {name: cell + shapes.get(name, ()) for name in names | set(leaves)})
    whole = {name: np.concatenate([arrays[name] for _, arrays in parts]) for name in names}
    update = np.concatenate([np.arange(h["first"], h["last"] + 1) for h, _ in parts])
    env_steps, share = _from_metrics(run, update, whole["origin"])
    level = jax.tree.unflatten(jax.tree.structure(like), [whole[name] for name in leaves])
    lineage = {name.removeprefix("lineage."): whole[name] for name in _below(names, "lineage.")}
    counted = _below(names, "episodes.")
    episodes = (
        EpisodeStats._make(whole[f"episodes.{n}"] for n in EpisodeStats._fields) if counted else ()
    )
    own = {name: whole[name] for name in ("score", "origin", "weight", "row")}
    slot = np.asarray(parts[0][0]["slots"])
    return LevelLog(
        update, env_steps, share, slot, level, lineage=lineage, episodes=episodes, **own
    )


def _from_metrics(
    run: Path, update: Int[np.ndarray, " U"], origin: Int[np.ndarray, "U S n"]
) -> tuple[Float[np.ndarray, " U"], Float[np.ndarray, "U 3"]]:
    """Read the env steps [U] and the fraction of each origin [U, 3] from the run's metrics.

    If an update has no metrics, its env steps are NaN and its fractions are those of the logged
    slots.
    """
    lines = {line.get("update"): line for line in metrics.read(run / "metrics.jsonl")}
    steps = np.full(len(update), np.nan)
    share = np.stack([(origin == i).mean((1, 2)) for i in range(len(ORIGINS))], axis=1)
    for i, at in enumerate(update.tolist()):
        line = lines.get(at, {})
        if "env_steps" in line:
            steps[i] = sum(line["env_steps"].values())
        if all(f"levels_{name}" in line for name in ORIGINS):
            share[i] = [np.mean(line[f"levels_{name}"]) for name in ORIGINS]
    return steps, share


def _read(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays.pop("header")))
        known = header["format"] == FORMAT and header["last"] == int(path.stem)
        if known and header["first"] >= 1 and header["slots"] and arrays["score"].ndim == 3:
            return header, arrays
    except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(_damaged(path)) from error
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # corrupted bytes
        raise ValueError(_damaged(path)) from error
    raise ValueError(_damaged(path))


def _check(path: Path, part: tuple[dict, dict], shapes: dict[str, tuple]) -> None:
    """Raise an error if an array of the file does not have the shape `[U, *shape]`."""
    header, arrays = part
    num_updates = header["last"] - header["first"] + 1
    for name, shape in shapes.items():
        # [U, S, n, ...]. U is the number of updates in this file. S, n and the level's shape must
        # be equal in all files.
        wanted = (num_updates, *shape)
        found = arrays[name].shape if name in arrays else "nothing"
        if found != wanted:
            raise ValueError(
                f"{path} is damaged or from another run: {name} should have shape {wanted}, found "
                f"{found}"
            )


def _damaged(path: Path) -> str:
    return f"{path} is damaged, or it is not a curriculum log in the format {FORMAT!r}"


def _files(run: Path) -> list[Path]:
    """Files of the log, in the order of updates."""
    return sorted(path for path in (run / FOLDER).glob("*.npz") if path.stem.isdigit())


def _named(kept: Kept) -> dict[str, np.ndarray]:
    return {_name(path): x for path, x in jax.tree_util.tree_flatten_with_path(kept)[0]}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _below(names: set[str], prefix: str) -> list[str]:
    return sorted(name for name in names if name.startswith(prefix))
