"""Checkpoints: the complete training state as orbax arrays, with metadata in a JSON file.

    checkpoints/00000120/state/       orbax; one array per leaf, named by the leaf's path
    checkpoints/00000120/meta.json    update, counters, run, leaves, and a checksum of every file

A checkpoint is written under a temporary name, flushed to disk and then renamed to its update
number. A folder whose name is a number is therefore complete. Arrays are written and read as numpy
arrays, so a checkpoint does not depend on the devices of the run that wrote it.
"""

import contextlib
import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rlgen.types import PyTree

FORMAT = "rlgen-checkpoint-1"


def save(run: Path, update: int, state: PyTree, meta: dict[str, Any], keep: int = 2) -> None:
    """Write the state after `update` updates, then delete all but the `keep` newest checkpoints.

    Args:
        run: Run folder.
        update: Number of updates done.
        state: Training state, as numpy arrays.
        meta: Further entries of `meta.json`: the run's fingerprint and its counters.
        keep: Number of checkpoints to keep.

    Raises:
        OSError: The disk is full or not writable; older checkpoints are unchanged.
    """
    folder = run / "checkpoints"
    part, done = folder / f"saving-{update:08d}", folder / f"{update:08d}"
    # Arrays of size 0 are not saved; `restore` creates them from their shapes.
    arrays = {path: leaf for path, leaf in _arrays(state).items() if leaf.size}
    try:
        folder.mkdir(exist_ok=True)
        _remove_unfinished(folder)  # left by an interrupted save
        with _quiet(), ocp.StandardCheckpointer() as writer:
            writer.save((part / "state").absolute(), arrays)
        record = {"format": FORMAT, "update": update, "leaves": _layout(state), **meta}
        record["files"] = {name: _checksum(part / name) for name in _files(part)}
        # This file is written after the arrays, because it contains the checksums of the arrays'
        # files.
        (part / "meta.json").write_text(json.dumps(record))
        _flush(part)
        if done.exists():  # a checkpoint of the same update of the same run has the same content
            shutil.rmtree(done)
        part.rename(done)
        _flush_entry(folder)  # makes the rename itself durable
    except Exception as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise OSError(_first_line(error)) from error
    # Older checkpoints are deleted only after the new one is durable.
    for old in updates(run)[:-keep]:
        # Renamed first, so that an interrupted deletion leaves no incomplete checkpoint.
        dropped = folder / f"saving-{old:08d}"
        (folder / f"{old:08d}").rename(dropped)
        shutil.rmtree(dropped)


def updates(run: Path) -> list[int]:
    """Update numbers of all complete checkpoints, oldest first."""
    folder = run / "checkpoints"
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(path.name) for path in found if path.name.isdigit())


def read_meta(run: Path, update: int) -> dict[str, Any]:
    """Read the metadata of one checkpoint after verifying the size and checksum of every file.

    Raises:
        ValueError: The checkpoint does not exist or is damaged. No file is changed.
    """
    path = run / "checkpoints" / f"{update:08d}"
    if not path.is_dir():
        known = ", ".join(map(str, updates(run))) or "none"
        raise ValueError(f"{run} has no checkpoint {update}; it has {known}")
    try:
        meta = json.loads((path / "meta.json").read_text())
        # The assignment to `_` only checks that these entries exist.
        files, _ = meta["files"], (meta["update"], meta["leaves"])
        if meta["format"] != FORMAT:
            raise ValueError("unknown format")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(_damaged(run, update, "meta.json is unreadable")) from error
    for name, checksum in files.items():
        if not (path / name).is_file() or _checksum(path / name) != checksum:
            raise ValueError(_damaged(run, update, f"{name} is missing, truncated or changed"))
    return meta


def restore(run: Path, update: int, like: PyTree) -> PyTree:
    """Load the state of a checkpoint as numpy arrays, in the tree structure of `like`.

    Args:
        run: Run folder.
        update: Update number of the checkpoint.
        like: State of arrays or `jax.ShapeDtypeStruct`s with the expected structure.

    Raises:
        ValueError: The checkpoint is damaged, or its leaves differ from those of `like`.
    """
    meta = read_meta(run, update)
    path = run / "checkpoints" / f"{update:08d}"
    expected = _layout(like)
    if meta["leaves"] != expected:
        raise ValueError(
            f"checkpoint {path} belongs to a different program: "
            f"{_difference(meta['leaves'], expected)}"
        )
    wanted = {n: np.empty(shape, dtype) for n, (shape, dtype) in expected.items() if 0 not in shape}
    try:
        with _quiet(), ocp.StandardCheckpointer() as reader:
            arrays = reader.restore((path / "state").absolute(), wanted)
    except Exception as error:  # orbax and tensorstore raise many types of exceptions
        raise ValueError(_damaged(run, update, _first_line(error))) from error
    empty = {n: np.zeros(shape, dtype) for n, (shape, dtype) in expected.items() if 0 in shape}
    arrays = {**arrays, **empty}
    flat, structure = jax.tree_util.tree_flatten_with_path(like)
    restored = [_wrap(arrays[_name(key_path)], leaf) for key_path, leaf in flat]
    return jax.tree.unflatten(structure, restored)


def set_aside(run: Path, after: int) -> list[str]:
    """Rename the checkpoints of updates after `after`, so that no run continues from them.

    Returns:
        New paths of the renamed checkpoints.
    """
    moved = []
    for update in [found for found in updates(run) if found > after]:
        path = run / "checkpoints" / f"{update:08d}"
        # The new name is not a number, so `updates` does not find the folder.
        target = path.with_name(f"{path.name}.set-aside")
        while target.exists():
            target = target.with_name(f"{target.name}-2")
        path.rename(target)
        moved.append(str(target))
    return moved


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep orbax from logging tracebacks of errors that rlgen reports in one line."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _arrays(state: PyTree) -> dict[str, np.ndarray]:
    """Return all leaves as numpy arrays, by path; random keys are converted to integers."""
    flat = jax.tree_util.tree_flatten_with_path(state)[0]
    return {_name(path): np.asarray(_key_data(leaf)) for path, leaf in flat}


def _layout(state: PyTree) -> dict[str, list]:
    # `eval_shape` also accepts abstract states. `_key_data` converts random keys to integers.
    data = jax.eval_shape(lambda tree: jax.tree.map(_key_data, tree), state)
    flat = jax.tree_util.tree_flatten_with_path(data)[0]
    return {_name(path): [list(leaf.shape), str(leaf.dtype)] for path, leaf in flat}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _wrap(array: np.ndarray, like: Any) -> Any:
    # Random keys are not numpy arrays, so the checkpoint contains them as integers.
    return jax.random.wrap_key_data(jnp.asarray(array)) if _is_key(like) else array


def _files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def _checksum(path: Path) -> list[int]:
    # A CRC detects accidental damage; it does not protect against deliberate changes.
    data = path.read_bytes()
    return [len(data), zlib.crc32(data)]


def _flush(folder: Path) -> None:
    """Flush a folder's files to disk, so that they are complete before the folder is renamed."""
    for path in [*folder.rglob("*"), folder]:
        _flush_entry(path)


def _flush_entry(path: Path) -> None:
    # A folder can be opened only for reading. `fsync` flushes it nevertheless.
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_unfinished(folder: Path) -> None:
    for path in folder.glob("saving-*"):
        shutil.rmtree(path, ignore_errors=True)


def _damaged(run: Path, update: int, why: str) -> str:
    older = [u for u in updates(run) if u != update]
    advice = (
        f"to use another checkpoint, add --checkpoint {older[-1]}"
        if older
        else "this run has no other checkpoint"
    )
    path = run / "checkpoints" / f"{update:08d}"
    return f"checkpoint {path} is damaged ({why}) and was left unchanged; {advice}"


def _difference(found: dict[str, list], expected: dict[str, list]) -> str:
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            texts = [_shape(leaves.get(name)) for leaves in (expected, found)]
            return f"{name} should be {texts[0]}, found {texts[1]}"
    return "its leaves are in a different order"


def _shape(entry: list | None) -> str:
    return "absent" if entry is None else f"{entry[1]}{entry[0]}"


def _first_line(error: BaseException) -> str:
    if "No space left" in str(error):
        return "no space left on the device"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
