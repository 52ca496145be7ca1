"""Fitted models of levels as files: plain arrays and one JSON header, nothing pickled.

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
"""The file in a folder that `rlgen fit-generator` wrote."""


class Generator(NamedTuple):
    """What proposals need."""

    decoder: PyTree
    mean: Float[Array, "M L"]  # of the latent of every level of the set
    std: Float[Array, "M L"]


class Fitted(NamedTuple):
    """A fitted model; `encoder` can be dropped, `fitted._replace(encoder=())`, to propose."""

    generator: Generator
    encoder: PyTree = ()


class Saved(NamedTuple):
    """A model, what it learned, and on what."""

    model: LevelModel
    fitted: Fitted
    env_name: str
    digest: str  # of the levels, see `digest_of`
    version: str  # of the rlgen that fitted it


class _File(NamedTuple):
    """A file's content."""

    path: Path
    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


def digest_of(hashes: UInt32[Array, "M 2"] | UInt32[np.ndarray, "M 2"]) -> str:
    """What two sets of the same levels, in the same order, have in common, and no others."""
    return hashlib.sha256(np.ascontiguousarray(hashes, "<u4").tobytes()).hexdigest()


def save_model(
    path: Path | str, model: LevelModel, env_name: str, fitted: Fitted, digest: str
) -> None:
    """Write a fitted model as `.npz`.

    Args:
        path: of the file.
        model: one that rlgen ships.
        env_name: of the environment, as the registry knows it.
        fitted: with or without the encoder, which proposals do not need.
        digest: of the levels it was fitted on, see `digest_of`.
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
    with Path(path).open("wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def load_model(path: Path | str, env: LevelEnv | None = None) -> Saved:
    """A fitted model.

    Args:
        path: of the file, or of the folder that `rlgen fit-generator` wrote.
        env: whose levels it is to propose; by default that of the name in the file.

    Raises:
        ValueError: nothing there; a file that is damaged, of another format, or of a model that
            this rlgen does not know; or one fitted on levels of other parts.
    """
    file = _read(path)
    header = file.header
    known = registry.names("level-models")
    if header["model"] not in known:
        raise ValueError(
            f"{file.path} holds a model of the kind {header['model']!r}; this rlgen reads "
            f"{', '.join(known)}"
        )
    try:
        its_env: LevelEnv = registry.make_env(header["env"]) if env is None else env
        _check_parts(file, its_env)
        model = registry.load("level-models", header["model"]).build(its_env)
        model = config.override(model, header["fields"])
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(file.path) in text else f"{file.path}: {text}") from error
    fitted = _fitted(file, model, its_env, header["encoder"])
    return Saved(model, fitted, header["env"], header["levels"], header["rlgen"])


def load_fitted(path: Path | str, model: LevelModel, env: LevelEnv) -> Fitted:
    """What a model of the same kind and sizes has learned, without the encoder.

    Args:
        path: of the file, or of the folder that `rlgen fit-generator` wrote.
        model: that is to propose with it.
        env: whose levels it proposes.

    Raises:
        ValueError: as of `load_model`, or another kind or other sizes than the model's.
    """
    file = _read(path)
    if file.header["model"] != _kind_of(model):
        raise ValueError(
            f"{file.path} holds a model of the kind {file.header['model']!r}; needed is one of "
            f"{_kind_of(model)!r}"
        )
    _check_parts(file, env)
    return _fitted(file, model, env, False)


def _read(path: Path | str) -> _File:
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"there is no file {path} with a fitted model of levels")
    damaged = f"{path} is not a fitted model of levels of rlgen, or it is damaged"
    wanted = {"rlgen": str, "model": str, "fields": dict, "env": str, "parts": list}
    wanted |= {"levels": str, "num_levels": int, "encoder": bool}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        header = json.loads(str(arrays["header"]))
        form = header["format"]
    except (
        *(OSError, EOFError, KeyError, TypeError, ValueError, AttributeError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),
    ) as error:
        raise ValueError(damaged) from error
    if form != FORMAT:
        raise ValueError(f"{path} is of the format {form!r}; this rlgen reads {FORMAT!r}")
    if not all(isinstance(header.get(name), kind) for name, kind in wanted.items()):
        raise ValueError(damaged)
    return _File(path, header, arrays)


def _check_parts(file: _File, env: LevelEnv) -> None:
    """Refuse a model of other levels than the environment's."""
    registry.require(env, LevelEnv.codec, f"the model in {file.path}")
    codec: LevelCodec = env.codec()
    theirs, ours = file.header["parts"], _described(codec)
    if theirs == ours:
        return
    pairs = [(a, b) for a, b in zip(theirs, ours, strict=False) if a != b]
    stated, found = pairs[0] if pairs else (f"{len(theirs)} parts", f"{len(ours)} parts")
    raise ValueError(
        f"{file.path} was fitted on levels of {file.header['env']}, which have {_words(stated)}; "
        f"here it is {_words(found)}. Fit a model on this environment's levels with "
        "`rlgen fit-generator`, or give the environment the fields that it had"
    )


def _fitted(file: _File, model: LevelModel, env: LevelEnv, encoder: bool) -> Fitted:
    """The arrays as the model has them, checked by shape."""
    num_levels = max(1, file.header["num_levels"])
    like = jax.eval_shape(_blank(model, env, num_levels), jax.random.key(0))
    like = like if encoder else like._replace(encoder=())
    found = []
    for name, leaf in _named(like).items():
        array = file.arrays.get(name)
        shape = "nothing" if array is None else array.shape
        if array is None or shape != leaf.shape:
            raise ValueError(f"{file.path}: {name} should have shape {leaf.shape}, found {shape}")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ValueError(f"{file.path}: {name} holds what is no finite number")
        found.append(jnp.asarray(array, leaf.dtype))
    return jax.tree.unflatten(jax.tree.structure(like), found)


def _blank(model: LevelModel, env: LevelEnv, num_levels: int) -> Callable[[Array], PyTree]:
    """What makes a model that has learned nothing, for its shapes."""

    def make(key: Array) -> PyTree:
        levels = jax.vmap(env.sample_level)(jax.random.split(key, num_levels))
        return model.finish(model.begin(key, levels), levels)

    return make


def _kind_of(model: LevelModel) -> str:
    """The name under which a model is registered; its dotted path outside rlgen."""
    return registry.name_of("level-models", type(model).__module__)


def _described(codec: LevelCodec) -> list[dict[str, Any]]:
    """The parts of levels as JSON holds them."""
    parts = [{"part": type(part).__name__, **dataclasses.asdict(part)} for part in codec.parts]
    return json.loads(json.dumps(parts))


def _words(part: dict[str, Any] | str) -> str:
    if isinstance(part, str):
        return part
    fields = [f"{name}={value}" for name, value in part.items() if name != "part"]
    return f"{part.get('part')}({', '.join(fields)})"


def _named(tree: PyTree) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {f"fitted{jax.tree_util.keystr(path)}": leaf for path, leaf in leaves}
