"""Sets of levels as data: indexable inside jit, hashed, saved as plain `.npz`."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, UInt32

from rlgen.protocols import LevelEnv
from rlgen.types import PyTree

FORMAT = "rlgen-levels-1"
KNOWN = ("hash", "optimal_steps", "optimal_return")


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class LevelSet:
    """M stacked levels and what is known of each.

    `optimal_steps` is -1 and `optimal_return` NaN where the environment has no solver; unsolvable
    levels have -1 and 0.
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
    """A named set of held-out levels and the environment they are played in."""

    name: str
    env: LevelEnv
    levels: LevelSet


class Shift(NamedTuple):
    """Levels outside an environment's training distribution: a suite, or a change of its fields.

    What `ladder()` of an environment is made of. An agent of the environment can play them as it
    is: observations and actions are the same.
    """

    rung: Literal["V2", "V3"]  # V2: beyond the range (size, density, …); V3: new combinations
    about: str  # a few words, after "levels"
    suite: str = ""  # of the environment, without the family; or
    fields: Mapping[str, object] = MappingProxyType({})  # the environment's fields that change


def level_hash(level: PyTree) -> UInt32[Array, "2"]:
    """64 bits of content hash of one level of any family, from its arrays' bits.

    Two multiplicative mixes with unlike constants (the finaliser of MurmurHash3), so that equal
    levels hash alike and K different ones collide with probability about K²/2⁶⁵.
    """
    words = jnp.concatenate([_words(leaf) for leaf in jax.tree.leaves(level)])
    position = jnp.arange(words.size, dtype=jnp.uint32)

    def mix(salt: int) -> Array:
        x = words ^ (position * jnp.uint32(0x9E3779B1) + jnp.uint32(salt))
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return (x ^ (x >> 16)).sum(dtype=jnp.uint32)

    return jnp.stack([mix(0x243F6A88), mix(0xB7E15162)])


def hash_of(env: LevelEnv, level: PyTree) -> UInt32[Array, "2"]:
    """The environment's own hash of a level where it has one, the general one otherwise."""
    own = getattr(env, "level_hash", None)
    return own(level) if own else level_hash(level)


def make_level_set(
    env: LevelEnv,
    level: PyTree,
    names: tuple[str, ...] = (),
    split: str = "test",
    version: str = "1",
) -> LevelSet:
    """Stack of levels `[M, ...]` with hashes and, where the environment can solve, optima.

    Raises:
        ValueError: the number of names is not the number of levels.
    """
    num_levels = jax.tree.leaves(level)[0].shape[0]
    names = names or tuple(f"{split}-{i:04d}" for i in range(num_levels))
    if len(names) != num_levels:
        raise ValueError(f"{len(names)} names for {num_levels} levels; give one name a level")
    hashes = jax.jit(jax.vmap(lambda one: hash_of(env, one)))(level)
    solve = getattr(env, "solve", None)
    if solve is None:
        steps, optimal = jnp.full(num_levels, -1, jnp.int32), jnp.full(num_levels, jnp.nan)
    else:
        solution = jax.jit(jax.vmap(solve))(level)
        steps, optimal = solution.steps, solution.optimal_return
    return LevelSet(level, hashes, steps, optimal, names, split, version)


def save_levels(path: Path | str, levels: LevelSet) -> None:
    """Write a level set as `.npz` with plain arrays and one JSON header; nothing is pickled."""
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
    """Read a level set of the family to which the level `like` belongs.

    Raises:
        ValueError: not such a file, damaged, or of another family; the message names the array.
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
    arrays = {n: jnp.asarray(data[n], jnp.asarray(leaf).dtype) for n, leaf in wanted.items()}
    known = {name: arrays.pop(name) for name in KNOWN}
    level = jax.tree.unflatten(jax.tree.structure(like), list(arrays.values()))
    names, split, version = tuple(header["names"]), header["split"], header["version"]
    return LevelSet(level, names=names, split=split, version=version, **known)


def _read(path: Path | str) -> tuple[dict, dict]:
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        header = json.loads(str(data["header"]))
        if header["format"] == FORMAT and {"names", "split", "version"} <= header.keys():
            return data, header
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a level file of rlgen, or it is damaged") from error
    raise ValueError(f"{path} is a level file of another format; this rlgen reads {FORMAT!r}")


def _leaves(tree: PyTree) -> list:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _words(leaf: PyTree) -> UInt32[Array, " W"]:
    x = jnp.ravel(jnp.asarray(leaf))
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return x.astype(jnp.uint32)
