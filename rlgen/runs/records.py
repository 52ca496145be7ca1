"""Write additional files of a run: levels, records of external inputs, student files, TensorBoard.

External inputs, such as a learned rule, are files outside the run folder on which the results of
the run depend.
"""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlgen import __version__, levels, registry
from rlgen.levels import plain_level
from rlgen.protocols import LevelEnv, Sampler, Student
from rlgen.runs.folder import write_atomically
from rlgen.types import PyTree, Task, TrainState


class Buffer(NamedTuple):
    """Filled rows of the level buffers of all seeds, M levels in total."""

    level: PyTree  # [M, ...]
    score: np.ndarray  # [M]
    hash: np.ndarray  # [M, 2]
    seed: np.ndarray  # [M], index among the run's seeds
    row: np.ndarray  # [M], row in that seed's buffer
    past: dict[str, np.ndarray]  # [M] each
    # `past` has `origin`, `depth` and `age` if the sampler keeps lineages, and `lifetime` if the
    # buffer holds tasks.


def find_buffer(sampler: Sampler, states: PyTree) -> Buffer | None:
    """Return the levels in a sampler's buffer, or None if the sampler has no buffer.

    Args:
        sampler: Sampler of the run.
        states: States of the sampler for all seeds, as numpy arrays [S, ...].
    """
    held = sampler.buffer(states)
    if held is None:
        return None
    score = np.asarray(held.score)  # [S, K]
    # Rows are filled in order, so the first `size` of a buffer's K rows are in use, [S, K].
    filled = np.arange(score.shape[1]) < np.asarray(held.size)[:, None]
    seed, row = np.nonzero(filled)
    level, hashes = jax.tree.map(lambda x: np.asarray(x)[seed, row], (held.level, held.hash))
    past = _past(held, states, seed, row)
    if isinstance(level, Task):
        past["lifetime"] = np.asarray(level.lifetime)
    return Buffer(plain_level(level), score[seed, row], hashes, seed, row, past)


def save_buffer(
    path: Path, env: Any, sampler: Sampler, states: TrainState, features: bool = False
) -> None:
    """Write the levels in the sampler's buffer to a file that `rlgen.levels.load_levels` can read.

    If there is no buffer, or it is empty, no file is written. Nothing is pickled. In addition to
    the levels, the file has these arrays:

    - `score` and `seed` (index of the training seed whose buffer holds the level);
    - `origin` (see `rlgen.types`), `depth` (edits since the level was generated) and `age` (updates
      since the level was first played), if the sampler keeps lineages;
    - `lifetime`, if the buffer holds the tasks of a meta-learner;
    - `feature.…` for each level feature, if `features` is True.

    The length of the shortest solution and the optimal return are stored as unknown, because
    solving the levels between chunks would take too long.

    Raises:
        OSError: The file cannot be written, for example because the disk is full.
    """
    buffer = find_buffer(sampler, states.sampler)
    if buffer is None or buffer.score.size == 0:
        return
    names = [f"seed-{s}-row-{r:04d}" for s, r in zip(buffer.seed, buffer.row, strict=True)]
    header = {"format": levels.FORMAT, "names": names, "split": "train", "version": "1"}
    flat = jax.tree_util.tree_flatten_with_path(buffer.level)[0]
    arrays = {f"level{jax.tree_util.keystr(where)}": leaf for where, leaf in flat}
    if features and registry.has(env, LevelEnv.level_features):
        found = jax.jit(jax.vmap(env.level_features))(buffer.level)
        arrays |= {f"feature.{name}": np.asarray(values) for name, values in found.items()}
    # The file is replaced atomically. It is not flushed to disk, because no resumed run reads it.
    part = path.with_name(f".{path.name}.part")
    # numpy gets an open file, because it would add the suffix `.npz` to a file name.
    with open(part, "wb") as file:
        np.savez(
            file,
            header=np.asarray(json.dumps(header)),
            hash=buffer.hash,
            optimal_steps=np.full(len(names), -1, np.int32),
            optimal_return=np.full(len(names), np.nan, np.float32),
            score=buffer.score,
            seed=buffer.seed,
            **buffer.past,
            **arrays,
        )
    part.replace(path)


def _past(held: Any, state: Any, seed: np.ndarray, row: np.ndarray) -> dict[str, np.ndarray]:
    """Return origin, depth and age of the given rows; {} if the sampler keeps no lineage."""
    # The type of `level_info` differs between samplers; PLR's has a lineage.
    lineage = getattr(held.level_info, "lineage", None)
    if lineage is None:
        return {}
    found = {name: np.asarray(x)[seed, row] for name, x in lineage._asdict().items()}
    # `born` is the index of the update in which the level was first played.
    last_update = np.asarray(state.num_updates)[seed] - 1
    return {"origin": found["origin"], "depth": found["depth"], "age": last_update - found["born"]}


def keep_training_set(run: Path, sampler: Sampler) -> None:
    """Write the sampler's finite training set to `train_levels.npz` in the run folder.

    If that file exists, compare the training set with the levels in the file instead. If the
    sampler has no finite training set, do nothing.

    Raises:
        ValueError: The file exists and contains different levels: a resumed run would not continue
            with the levels that it started with.
        OSError: The file cannot be written, for example because the disk is full.
    """
    chosen, path = sampler.level_set, run / "train_levels.npz"
    if chosen is None:
        return
    if not path.exists():
        part = run / ".train_levels.part.npz"  # numpy would append the suffix to any other name
        levels.save_levels(part, chosen)
        part.replace(path)
        return
    like = plain_level(sampler.example_level())
    # The hashes are compared in order: equal levels in a different order are also an error.
    if not np.array_equal(levels.load_levels(path, like).hash, chosen.hash):
        raise ValueError(
            f"the run started with the levels in {path}, but its settings now yield different "
            "levels; restore the level file that it was trained on"
        )


def pinned_files(run: Path, student: Student) -> None:
    """Record the student's external inputs in the run folder, or compare them with the record.

    The student provides one pinned file per input. The content of the file identifies the input,
    for example by a hash of the learned rule that the student follows.

    Raises:
        ValueError: An input differs from its record: a resumed run would not continue with the
            inputs that it started with.
        OSError: A file cannot be written, for example because the disk is full.
    """
    for name, content in student.pinned_files().items():
        path = run / name
        if not path.exists():
            write_atomically(path, content)
        elif path.read_bytes() != content:
            raise ValueError(
                f"the input recorded in {path} has changed since the run started; restore it to "
                "continue"
            )


def save_files(run: Path, student: Student, states: TrainState, spec: Mapping[str, Any]) -> None:
    """Write the files that a student exports from its states [S, ...], such as learned rules.

    These files may be used outside the run. The student therefore receives the run's origin
    (recipe, environment, preset, seed and version of rlgen) and writes it into the files.

    Args:
        run: Run folder.
        student: Student that exports the files.
        states: States after the last update.
        spec: Spec from the run's record. It does not change when the run is resumed.

    Raises:
        OSError: A file cannot be written, for example because the disk is full. The older version
            of this file is left unchanged.
    """
    origin = {name: spec[name] for name in ("recipe", "env", "preset", "seed")}
    origin["rlgen"] = __version__
    for name, content in student.files(states.student, origin).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(run / name, content)


def check_tensorboard(wanted: bool) -> None:
    """Check that tensorboardX is installed if `wanted` is True; called before a run starts.

    Raises:
        ValueError: `wanted` is True, but tensorboardX is not installed.
    """
    try:
        missing = wanted and importlib.util.find_spec("tensorboardX") is None
    except ValueError:  # raised if the module's entry in `sys.modules` has no spec
        missing = True
    if missing:
        raise ValueError("--tensorboard requires tensorboardX: pip install 'rlgen[tensorboard]'")


@contextmanager
def tensorboard_writer(run: Path, wanted: bool) -> Iterator[Any]:
    """Yield a TensorBoard writer for the run folder, or None if `wanted` is False."""
    if not wanted:
        yield None
        return
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    writer = SummaryWriter(str(run / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()
