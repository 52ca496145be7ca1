"""The curriculum log of a run: which levels its slots met, and how that went.

    curriculum/00000050.npz     the updates of one chunk, named by the last of them

Of each update a few slots are kept, spread evenly over all, and of each the level that it met
first: with score, origin, weight and, where they are known, the level's past and its episodes.
Files hold plain arrays and a JSON header; nothing is pickled. Whatever can be computed from a level
(features, its solution) is left to the reader, as it takes time.
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
"""Names of the values of `Slots.origin`, in their order."""


class Kept(NamedTuple):
    """What stays of one update; `[S, U, n, ...]` of a chunk of U updates and S seeds."""

    level: PyTree  # [n, ...]
    score: Float[Array, " n"]  # -inf where nothing was learned
    origin: Int[Array, " n"]
    weight: Float[Array, " n"]
    row: Int[Array, " n"]  # in the sampler's buffer, -1 if none
    lineage: dict[str, Array]  # [n] each
    episodes: EpisodeStats | tuple[()]  # [n]; () of students that count none


class LevelLog(NamedTuple):
    """The log of a run as numpy arrays: U updates, S seeds, n slots."""

    update: Int[np.ndarray, " U"]  # 1 is the first
    env_steps: Float[np.ndarray, " U"]  # of one seed until then; NaN where the metrics lack it
    share: Float[np.ndarray, "U 3"]  # of all slots, by origin: new, replay, mutant
    slot: Int[np.ndarray, " n"]  # positions of the kept slots
    level: PyTree  # [U, S, n, ...]
    score: Float[np.ndarray, "U S n"]
    origin: Int[np.ndarray, "U S n"]
    weight: Float[np.ndarray, "U S n"]
    row: Int[np.ndarray, "U S n"]
    lineage: dict[str, np.ndarray]  # [U, S, n] each; {} if the sampler knows of none
    episodes: PyTree  # `EpisodeStats` of [U, S, n]; () of students that count none


def kept_slots(num_slots: int, num_kept: int) -> Int[np.ndarray, " n"]:
    """Positions of at most `num_kept` slots, spread evenly, so that each block has its share."""
    num = min(num_kept, num_slots)
    return ((np.arange(num) + 0.5) * num_slots / max(num, 1)).astype(np.int32)


def keep(met: UpdateRecord, num_kept: int) -> Kept | tuple[()]:
    """What the log keeps of one update: nothing if `num_kept` is 0."""
    if num_kept == 0:
        return ()
    slots = met.slots
    at = kept_slots(slots.buffer_index.shape[0], num_kept)
    past = dict(met.lineage)
    if isinstance(slots.level, Task):
        past["lifetime"] = slots.level.lifetime
    level, row, score, lineage, episodes = jax.tree.map(
        lambda x: x[at, 0],
        (plain_level(slots.level), slots.buffer_index, met.score, past, met.episodes),
    )
    return Kept(level, score, slots.origin[at], slots.weight[at], row, lineage, episodes)


def write(run: Path, before: int, slot: Int[np.ndarray, " n"], kept: Kept | tuple[()]) -> None:
    """Write what a chunk kept, `[S, U, n, ...]`, into a file of its own; atomic.

    Args:
        run: the run's folder.
        before: updates before the chunk.
        slot: positions of the kept slots.
        kept: numpy arrays, or nothing.

    Raises:
        OSError: no space.
    """
    if not isinstance(kept, Kept):
        return
    last = before + kept.score.shape[1]
    arrays = {name: np.asarray(x).swapaxes(0, 1) for name, x in _named(kept).items()}
    header = {"format": FORMAT, "first": before + 1, "last": last, "slots": slot.tolist()}
    folder = run / FOLDER
    folder.mkdir(exist_ok=True)
    part = folder / f".{last:08d}.part"
    with open(part, "wb") as file:
        arrays["header"] = np.asarray(json.dumps(header))
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / f"{last:08d}.npz")


def cut(run: Path, update: int) -> None:
    """Remove what was kept after an update, which a resumed run will write again."""
    folder = run / FOLDER
    for path in folder.glob(".*.part"):
        path.unlink()
    for path in _files(run):
        if int(path.stem) > update:
            path.unlink()


def has_log(run: Path) -> bool:
    """Whether a run kept anything."""
    return bool(_files(run))


def read(run: Path, like: PyTree) -> LevelLog:
    """The whole log of a run whose levels are like one level (or task), `like`.

    Raises:
        ValueError: there is no log, or a file is damaged or of another run; it is named.
    """
    paths, like = _files(run), plain_level(like)
    if not paths:
        raise ValueError(
            f"{run} has no curriculum log: it was trained with --log-levels 0, or by a version of "
            "rlgen that kept none"
        )
    parts = [_read(path) for path in paths]
    names = set.intersection(*(set(arrays) for _, arrays in parts))
    flat = jax.tree_util.tree_flatten_with_path({"level": like})[0]
    leaves = [_name(path) for path, _ in flat]
    shapes = {name: np.shape(leaf) for name, (_, leaf) in zip(leaves, flat, strict=True)}
    cell = (parts[0][1]["score"].shape[1], len(parts[0][0]["slots"]))
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
    """Env steps and the shares of origins; without metrics NaN, and those of the kept slots."""
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
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:  # flipped bits
        raise ValueError(_damaged(path)) from error
    raise ValueError(_damaged(path))


def _check(path: Path, part: tuple[dict, dict], shapes: dict[str, tuple]) -> None:
    """Refuse a file whose arrays are not `[U, *shape]`."""
    header, arrays = part
    num_updates = header["last"] - header["first"] + 1
    for name, shape in shapes.items():
        wanted = (num_updates, *shape)
        found = arrays[name].shape if name in arrays else "nothing"
        if found != wanted:
            raise ValueError(
                f"{path} is of another run, or damaged: {name} should have shape {wanted}, found "
                f"{found}"
            )


def _damaged(path: Path) -> str:
    return f"{path} is not a curriculum log of the format {FORMAT!r}, or it is damaged"


def _files(run: Path) -> list[Path]:
    """The log's files in the order of updates."""
    return sorted(path for path in (run / FOLDER).glob("*.npz") if path.stem.isdigit())


def _named(kept: Kept) -> dict[str, np.ndarray]:
    return {_name(path): x for path, x in jax.tree_util.tree_flatten_with_path(kept)[0]}


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _below(names: set[str], prefix: str) -> list[str]:
    return sorted(name for name in names if name.startswith(prefix))
