"""Side products of a run: the sampler's buffer as `levels.npz`, and TensorBoard files."""

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
    """The filled rows of all seeds' buffers, M levels."""

    level: PyTree  # [M, ...]
    score: np.ndarray  # [M]
    hash: np.ndarray  # [M, 2]
    seed: np.ndarray  # [M] position among the run's seeds
    row: np.ndarray  # [M] row in that seed's buffer
    past: dict[str, np.ndarray]  # [M] each: `origin`, `depth`, `age`; {} if the sampler keeps none;
    # also `lifetime` of tasks, whose levels these are


def find_buffer(sampler: Sampler, states: TrainState) -> Buffer | None:
    """The levels that a sampler holds, out of numpy states [S, ...]; None if it keeps none."""
    held = sampler.buffer(states.sampler)
    if held is None:
        return None
    score = np.asarray(held.score)  # [S, K]
    filled = np.arange(score.shape[1]) < np.asarray(held.size)[:, None]
    seed, row = np.nonzero(filled)
    level, hashes = jax.tree.map(lambda x: np.asarray(x)[seed, row], (held.level, held.hash))
    past = _past(held, states.sampler, seed, row)
    if isinstance(level, Task):
        past["lifetime"] = np.asarray(level.lifetime)
    return Buffer(plain_level(level), score[seed, row], hashes, seed, row, past)


def save_buffer(
    path: Path, env: Any, sampler: Sampler, states: TrainState, features: bool = False
) -> None:
    """Write the sampler's levels, if it holds any; nothing is pickled.

    The file is one that `rlgen.levels.load_levels` reads, with the arrays `score`, `seed`, where
    the sampler knows them `origin` (see `rlgen.types`), `depth` (edits since it was generated) and
    `age` (updates since it was first met), of a meta-learner's tasks `lifetime`, and on request
    `feature.…` beside it. Optimal lengths are left unknown: solving takes too long to do it between
    chunks.

    Raises:
        OSError: no space.
    """
    buffer = find_buffer(sampler, states)
    if buffer is None or buffer.score.size == 0:
        return
    names = [f"seed-{s}-row-{r:04d}" for s, r in zip(buffer.seed, buffer.row, strict=True)]
    header = {"format": levels.FORMAT, "names": names, "split": "train", "version": "1"}
    flat = jax.tree_util.tree_flatten_with_path(buffer.level)[0]
    arrays = {f"level{jax.tree_util.keystr(where)}": leaf for where, leaf in flat}
    if features and registry.has(env, LevelEnv.level_features):
        found = jax.jit(jax.vmap(env.level_features))(buffer.level)
        arrays |= {f"feature.{name}": np.asarray(values) for name, values in found.items()}
    part = path.with_name(f".{path.name}.part")
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
    """What a sampler that keeps lineages (PLR's) knows of some of its rows."""
    lineage = getattr(held.level_info, "lineage", None)  # a sampler's own notes; some have none
    if lineage is None:
        return {}
    found = {name: np.asarray(x)[seed, row] for name, x in lineage._asdict().items()}
    last_update = np.asarray(state.num_updates)[seed] - 1
    return {"origin": found["origin"], "depth": found["depth"], "age": last_update - found["born"]}


def keep_training_set(run: Path, sampler: Sampler) -> None:
    """Write a finite training set into the run folder as `train_levels.npz`, or compare with it.

    Raises:
        ValueError: a resumed run would go on with other levels than it began with.
        OSError: no space.
    """
    chosen, path = sampler.level_set, run / "train_levels.npz"
    if chosen is None:
        return
    if not path.exists():
        part = run / ".train_levels.part.npz"  # numpy would add the suffix by itself
        levels.save_levels(part, chosen)
        part.replace(path)
        return
    like = plain_level(sampler.example_level())
    if not np.array_equal(levels.load_levels(path, like).hash, chosen.hash):
        raise ValueError(
            f"the run began with the levels in {path}, and its settings now give others; "
            "restore the level file that it was trained on"
        )


def pinned_files(run: Path, student: Student) -> None:
    """Write down what the learner was given from outside the run, or compare with it.

    They stay the same as long as what it was given does, such as a hash of the rule it follows.

    Raises:
        ValueError: a resumed run would go on with something else than it began with.
        OSError: no space.
    """
    for name, content in student.pinned_files().items():
        path = run / name
        if not path.exists():
            write_atomically(path, content)
        elif path.read_bytes() != content:
            raise ValueError(
                f"what the run began with, see {path}, has changed since; restore it to go on"
            )


def save_files(run: Path, student: Student, states: TrainState, spec: Mapping[str, Any]) -> None:
    """Write the files that a student makes of its states [S, ...], if it makes any.

    They may leave the run: the student is told of what run they are, to say so in them.

    Args:
        run: its folder.
        student: whose files.
        states: after the last update.
        spec: of the run's record, which is the same after a resumption.

    Raises:
        OSError: no space; older files are untouched.
    """
    origin = {name: spec[name] for name in ("recipe", "env", "preset", "seed")}
    origin["rlgen"] = __version__
    for name, content in student.files(states.student, origin).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(run / name, content)


def check_tensorboard(wanted: bool) -> None:
    """Refuse what an extra is missing for, before a run is begun.

    Raises:
        ValueError: tensorboardX is not installed.
    """
    try:
        missing = wanted and importlib.util.find_spec("tensorboardX") is None
    except ValueError:  # how Python says that a module is blocked
        missing = True
    if missing:
        raise ValueError("--tensorboard needs the extra: pip install 'rlgen[tensorboard]'")


@contextmanager
def tensorboard_writer(run: Path, wanted: bool) -> Iterator[Any]:
    """A writer into the run folder, or None."""
    if not wanted:
        yield None
        return
    from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]

    writer = SummaryWriter(str(run / "tensorboard"))
    try:
        yield writer
    finally:
        writer.close()
