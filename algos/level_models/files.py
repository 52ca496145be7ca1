"""Files of fitted level models: plain arrays and one JSON header, without pickle.

The parts of a level, such as its grid of cells, are defined in `rlgen.codec`.

To propose levels with a saved model:

    from rlgen.algos.level_models.files import load_model

    saved = load_model("runs/vae/generator.npz")
    levels, parents = saved.model.propose(key, saved.fitted, 36)
"""

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

import rlgen
from rlgen import config, registry
from rlgen.codec import LevelCodec
from rlgen.protocols import LevelEnv, LevelModel
from rlgen.types import PyTree

FORMAT = "rlgen-level-model-1"
NAME = "generator.npz"
"""Name of the file in a folder written by `rlgen fit-generator`."""


class Generator(NamedTuple):
    """The part of a fitted model that proposals need."""

    decoder: PyTree
    mean: Float[Array, "M L"]  # posterior mean of the latent of each level of the set
    std: Float[Array, "M L"]  # posterior standard deviation


class Fitted(NamedTuple):
    """A fitted model; `encoder` is `()` if it was dropped, because proposals do not need it."""

    generator: Generator
    encoder: PyTree = ()


class Saved(NamedTuple):
    """Content of a file: a model, its fitted parameters, and the origin of the parameters."""

    model: LevelModel
    fitted: Fitted
    env_name: str
    digest: str  # digest of the levels, see `digest_of`
    version: str  # version of rlgen that fitted the model


class _File(NamedTuple):
    """Content of a file, before the model is built."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def digest_of(hashes: UInt32[Array, "M 2"] | UInt32[np.ndarray, "M 2"]) -> str:
    """Return a SHA-256 digest; it is equal for sets with equal levels in equal order."""
    # Little-endian, so that the digest does not depend on the machine.
    return hashlib.sha256(np.ascontiguousarray(hashes, "<u4").tobytes()).hexdigest()


def save_model(
    path: Path | str, model: LevelModel, env_name: str, fitted: Fitted, digest: str
) -> None:
    """Write a fitted model as `.npz`.

    Args:
        path: Path of the file.
        model: Level model that ships with rlgen.
        env_name: Name of the environment in the registry.
        fitted: Fitted model, with or without the encoder, which proposals do not need.
        digest: Digest of the levels that the model was fitted on, see `digest_of`.
    """
    codec: LevelCodec = model.codec
    header = {
        "format": FORMAT,
        "rlgen": rlgen.__version__,
        "model": _kind_of(model),
        "fields": config.to_json(config.flatten(model)),
        "env": env_name,
        "parts": _described(codec),
        "levels": digest,
        "num_levels": int(fitted.generator.mean.shape[0]),
        "encoder": fitted.encoder != (),
    }
    arrays = {name: np.asarray(x) for name, x in _named(fitted).items()}
    arrays["header"] = np.asarray(json.dumps(header))
    # `savez` gets an open file, because it would append ".npz" to a path that lacks this suffix.
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_model(path: Path | str, env: LevelEnv | None = None) -> Saved:
    """Load a fitted model.

    Args:
        path: Path of the file, or of the folder written by `rlgen fit-generator`.
        env: Environment whose levels the model proposes; by default the one named in the file.

    Raises:
        ValueError: If the file is missing or damaged, if it has another format, if this version of
            rlgen does not know the model, or if the model was fitted on levels with other parts.
    """
    file = _read(path)
    header = file.header
    known = registry.names("level-models")
    if header["model"] not in known:
        raise ValueError(
            f"{file.path} contains the level model {header['model']!r}, but this version of rlgen "
            f"reads only {', '.join(known)}"
        )
    try:
        its_env: LevelEnv = registry.make_env(header["env"]) if env is None else env
        _check_parts(file, its_env)
        model = registry.load("level-models", header["model"]).build(its_env)
        model = config.override(model, header["fields"])
    except ValueError as error:
        # Errors from the registry or the config do not name the file; other errors do.
        text = str(error)
        raise ValueError(text if str(file.path) in text else f"{file.path}: {text}") from error
    fitted = _fitted(file, model, its_env, header["encoder"])
    return Saved(model, fitted, header["env"], header["levels"], header["rlgen"])


def load_fitted(path: Path | str, model: LevelModel, env: LevelEnv) -> Fitted:
    """Load the parameters of a fitted model into a given model, without the encoder.

    Args:
        path: Path of the file, or of the folder written by `rlgen fit-generator`.
        model: Model that will use the parameters; kind and sizes must equal those in the file.
        env: Environment whose levels the model proposes.

    Raises:
        ValueError: In the cases that `load_model` lists, or if the kind or the sizes in the file
            differ from those of `model`.
    """
    file = _read(path)
    if file.header["model"] != _kind_of(model):
        raise ValueError(
            f"{file.path} contains the level model {file.header['model']!r}, but "
            f"{_kind_of(model)!r} is required"
        )
    _check_parts(file, env)
    return _fitted(file, model, env, False)


def _read(path: Path | str) -> _File:
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no file {path} with a fitted level model")
    damaged = f"{path} is not a fitted level model of rlgen, or it is damaged"
    # Types of the header's fields.
    wanted = {"rlgen": str, "model": str, "fields": dict, "env": str, "parts": list}
    wanted |= {"levels": str, "num_levels": int, "encoder": bool}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays["header"]))
        form = header["format"]
    # All exceptions that a damaged zip, array or header can raise.
    except (
        *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    ) as error:
        raise ValueError(damaged) from error
    if form != FORMAT:
        raise ValueError(
            f"{path} has the format {form!r}, but this version of rlgen reads only {FORMAT!r}"
        )
    if not all(isinstance(header.get(name), kind) for name, kind in wanted.items()):
        raise ValueError(damaged)
    return _File(path, header, arrays)


def _check_parts(file: _File, env: LevelEnv) -> None:
    """Check that a model was fitted on levels with the same parts as this environment's levels."""
    registry.require(env, LevelEnv.codec, f"the model in {file.path}")
    codec: LevelCodec = env.codec()
    theirs, ours = file.header["parts"], _described(codec)
    if theirs == ours:
        return
    # Take the first pair of parts that differ. If there is no such pair, the numbers of parts
    # differ.
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=False) if a != b]
    stated, found = pairs[0] if pairs else (f"{len(theirs)} parts", f"{len(ours)} parts")
    raise ValueError(
        f"{file.path} was fitted on levels of {file.header['env']} with {_words(stated)}, but "
        f"levels of this environment have {_words(found)}. Fit a model on levels of this "
        "environment with `rlgen fit-generator`, or give the environment the fields that it had "
        "when the model was fitted"
    )


def _fitted(file: _File, model: LevelModel, env: LevelEnv, encoder: bool) -> Fitted:
    """Check shapes and values of the arrays, and return them in the structure of the model."""
    num_levels = max(1, file.header["num_levels"])  # tracing needs at least one level
    # `eval_shape` gives the expected structure and shapes without computing anything.
    like = jax.eval_shape(_blank(model, env, num_levels), jax.random.key(0))
    like = like if encoder else like._replace(encoder=())
    found = []
    for name, leaf in _named(like).items():
        array = file.arrays.get(name)
        shape = "nothing" if array is None else array.shape
        if array is None or shape != leaf.shape:
            raise ValueError(f"{file.path}: {name} should have shape {leaf.shape}, found {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{file.path}: {name} contains values that are not finite numbers")
        found.append(jnp.asarray(array, leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _blank(model: LevelModel, env: LevelEnv, num_levels: int) -> Callable[[Array], PyTree]:
    """Return a function that creates an untrained model; tracing it gives the model's shapes."""

    def make(key: Array) -> PyTree:
        levels = jax.vmap(env.sample_level)(jax.random.split(key, num_levels))
        return model.finish(model.begin(key, levels), levels)

    return make


def _kind_of(model: LevelModel) -> str:
    """Return the registered name of a model or, for a model outside rlgen, its dotted path."""
    return registry.name_of("level-models", type(model).__module__)


def _described(codec: LevelCodec) -> list[dict[str, Any]]:
    """Return the parts of levels as JSON values."""
    parts = [{"part": type(part).__name__, **dataclasses.asdict(part)} for part in codec.parts]
    # The round trip turns tuples into lists, as in the parts that are read from a file.
    return json.loads(json.dumps(parts))


def _words(part: dict[str, Any] | str) -> str:
    if isinstance(part, str):
        return part
    fields = [f"{name}={value}" for name, value in part.items() if name != "part"]
    return f"{part.get('part')}({', '.join(fields)})"


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"fitted{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
