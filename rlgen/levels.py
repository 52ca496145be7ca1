"""Sets of levels with content hashes, which can be indexed inside jit and saved as `.npz` files."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from rlgen.protocols import LevelEnv
from rlgen.registry import has
from rlgen.types import PyTree, Task

FORMAT = "rlgen-levels-1"
KNOWN = ("hash", "optimal_steps", "optimal_return")
_HASHED = 4096  # levels hashed per call
OPEN_SPLITS = ("train", "validation", "seen")
"""Splits that are not sealed: levels for training, levels for the choice of agents, and levels that
also occur in training, because the family is too small to hold them out. Evaluations on these
levels are not counted (see `rlgen.runs.test_set_access`), and no run rejects them (see
`rlgen.held_out`)."""


@no_type_check  # JAX also builds this class with leaves that are not arrays
@struct.dataclass
class LevelSet:
    """M stacked levels with their hashes, optima and names.

    If the environment has no solver, `optimal_steps` is -1 and `optimal_return` is NaN for all
    levels. If the environment has a solver, `optimal_steps` is -1 and `optimal_return` is 0 for
    unsolvable levels.
    """

    level: PyTree  # [M, ...]
    hash: UInt32[Array, "M 2"]
    optimal_steps: Int[Array, " M"]
    optimal_return: Float[Array, " M"]
    names: tuple[str, ...] = struct.field(pytree_node=False)
    split: str = struct.field(pytree_node=False, default="test")
    version: str = struct.field(pytree_node=False, default="1")

    def __len__(self) -> int:
        """Number of levels, M."""
        return len(self.names)


class Suite(NamedTuple):
    """A named set of held-out levels and the environment in which they are played."""

    name: str
    env: LevelEnv
    levels: LevelSet


class DistributionShift(NamedTuple):
    """Levels outside an environment's training distribution: a suite, or new values of fields.

    `LevelEnv.ladder()` returns such descriptions. `rung` is the rung of `rlgen ladder` to which
    the levels belong. Agents that were trained in the environment can play these levels, since
    observations and actions are the same. Either `suite` or `fields` is given.
    """

    rung: Literal["V2", "V3"]  # V2: beyond the training range (size, …); V3: new combinations
    about: str  # a few words that complete the phrase "levels ..."
    suite: str = ""  # name of a suite of the environment, without the name of the family
    fields: Mapping[str, object] = MappingProxyType({})  # new values of the environment's fields


def make_level_set(
    env: LevelEnv,
    level: PyTree,
    names: tuple[str, ...] = (),
    split: str = "test",
    version: str = "1",
) -> LevelSet:
    """Build a level set from levels `[M, ...]`.

    The hashes of the levels are computed and, if the environment has a solver, their optima.

    Raises:
        ValueError: the number of names differs from the number of levels.
    """
    num_levels = jax.tree.leaves(level)[0].shape[0]
    names = names or tuple(f"{split}-{i:04d}" for i in range(num_levels))
    if len(names) != num_levels:
        raise ValueError(f"{len(names)} names for {num_levels} levels; give one name per level")
    hashes = jax.jit(jax.vmap(env.level_hash))(level)
    if has(env, LevelEnv.solve):
        solution = jax.jit(jax.vmap(env.solve))(level)
        steps, optimal = solution.steps, solution.optimal_return
    else:
        steps, optimal = jnp.full(num_levels, -1, jnp.int32), jnp.full(num_levels, jnp.nan)
    return LevelSet(level, hashes, steps, optimal, names, split, version)


def save_levels(path: Path | str, levels: LevelSet) -> None:
    """Save a level set as `.npz` with plain arrays and a JSON header; nothing is pickled."""
    # Arrays are named by their paths, such as `level.walls`, so that the file can be read without
    # rlgen.
    arrays = {f"level{jax.tree_util.keystr(p)}": np.asarray(x) for p, x in _leaves(levels.level)}
    header = {
        "format": FORMAT,
        "names": levels.names,
        "split": levels.split,
        "version": levels.version,
    }
    arrays |= {name: np.asarray(getattr(levels, name)) for name in KNOWN}
    arrays["header"] = np.asarray(json.dumps(header))
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]


def load_levels(path: Path | str, like: PyTree) -> LevelSet:
    """Load a level set of the family to which the level `like` belongs.

    Raises:
        ValueError: the file is not a level set, is damaged, or holds levels of another family. For
            levels of another family, the message names the first array that does not fit.
    """
    data, header = _read(path)
    num = len(header["names"])
    wanted = {f"level{jax.tree_util.keystr(where)}": leaf for where, leaf in _leaves(like)}
    wanted |= {"hash": np.zeros(2, np.uint32), "optimal_steps": np.int32(0)}
    wanted |= {"optimal_return": np.float32(0)}
    for name, leaf in wanted.items():
        shape = (num, *np.shape(leaf))
        if name not in data or data[name].shape != shape:
            found = data[name].shape if name in data else "nothing"
            raise ValueError(f"{path}: {name} should have shape {shape}, found {found}")
    # The arrays get the dtypes of `like`, for which programs are compiled, regardless of the dtypes
    # in the file.
    arrays = {n: jnp.asarray(data[n], jnp.asarray(leaf).dtype) for n, leaf in wanted.items()}
    known = {name: arrays.pop(name) for name in KNOWN}
    # `arrays` kept the order of the leaves of `like`.
    level = jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))
    names, split, version = tuple(header["names"]), header["split"], header["version"]
    return LevelSet(level, names=names, split=split, version=version, **known)


def _read(path: Path | str) -> tuple[dict, dict]:
    try:
        # Pickles are rejected, because level files are shared between users and loading a pickle
        # can run any code.
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        header = json.loads(str(data["header"]))
        if header["format"] == FORMAT and {"names", "split", "version"} <= header.keys():
            return data, header
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a level file of rlgen, or it is damaged") from error
    raise ValueError(
        f"{path} is a level file in another format; this version of rlgen reads {FORMAT!r}"
    )


def _leaves(tree: PyTree) -> list:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def plain_level(level: PyTree) -> PyTree:
    """Return the level of a meta-learner's `Task`; a plain level is returned unchanged."""
    return level.level if isinstance(level, Task) else level


def take(levels: LevelSet, rows: np.ndarray | slice | list[int]) -> LevelSet:
    """Select levels of a set by indices, a mask or a slice; runs on the host."""
    # Converts a mask or a slice to indices, which can also select from the tuple of names.
    rows = np.arange(len(levels))[rows]
    part = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), levels)
    return replace(part, names=tuple(levels.names[i] for i in rows))


def exclude(
    levels: LevelSet, hashes: UInt32[Array, "K 2"] | UInt32[np.ndarray, "K 2"]
) -> tuple[LevelSet, int]:
    """Remove the levels that occur in another set, such as a training set.

    If `levels` contains equal levels, only the first of them is kept. Runs on the host.

    Args:
        levels: set to select from.
        hashes: hashes of the levels to remove.

    Returns:
        The remaining levels and the number of removed levels.
    """
    seen, kept = set(words(hashes)), []
    for i, word in enumerate(words(levels.hash)):
        if word not in seen:
            kept.append(i)
            seen.add(word)
    return take(levels, np.array(kept, int)), len(levels) - len(kept)


def sealed_if_large(levels: LevelSet) -> LevelSet:
    """Return sampled levels with the split `seen` if two of them are equal.

    If 100 samples are not distinct, the family has so few levels that holding 100 of them out would
    change the distribution of the training levels. For a family of F equally likely levels, all 100
    samples are distinct with probability exp(-4950 / F): 1 % for F = 1,075 and 61 % for F = 10,000.
    """
    distinct = len(set(words(levels.hash))) == len(levels)
    return levels if distinct else replace(levels, split="seen")


def disjoint(train: UInt32[Array, "K 2"], test: UInt32[Array, "M 2"]) -> bool:
    """Return whether two sets of level hashes have no hash in common."""
    return set(words(train)).isdisjoint(words(test))


def words(hashes: UInt32[Array, "K 2"] | UInt32[np.ndarray, "K 2"]) -> list[int]:
    """Convert each hash to one 64-bit Python integer."""
    # The integers are computed in NumPy, because JAX has no 64-bit integers by default.
    high, low = np.asarray(hashes).astype(np.uint64).T
    return ((high << np.uint64(32)) | low).tolist()


def hash_levels(env: LevelEnv, level: PyTree) -> UInt32[np.ndarray, "M 2"]:
    """Hash M levels in batches of equal size, so that the function compiles once."""
    num = jax.tree.leaves(level)[0].shape[0]
    size = min(_HASHED, num)
    call = jax.jit(jax.vmap(env.level_hash))
    found = []
    for start in range(0, num, size):
        at = np.minimum(np.arange(start, start + size), num - 1)  # pads with the last level
        found.append(np.asarray(call(jax.tree.map(lambda x, at=at: jnp.asarray(x[at]), level))))
    return np.concatenate(found)[:num]


def level_stream(seed: int, number: int) -> np.random.PCG64:
    """Random number generator for one level of a suite whose levels are generated on the host.

    Level generators use the raw 64-bit words of PCG64, which NumPy guarantees never to change.
    NumPy gives no such guarantee for its distributions. Level i of a suite is therefore always the
    same, and does not depend on the number of levels that are generated.

    Args:
        seed: seed of the suite.
        number: index of the level.
    """
    return np.random.PCG64([seed, number])
