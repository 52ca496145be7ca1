"""What the adapters of other packages share: their import, and the types of their states."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlgen.types import PyTree


def import_module(name: str, env: str, package: str) -> Any:
    """A module of a package that an environment needs.

    Raises:
        ValueError: the package is missing.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the environment {env} needs the package {package} ({error}): "
            f'pip install "rlgen[{env}]"'
        ) from error


def as_type(x: Any, dtype: Any) -> Array:
    """An array that is not weakly typed, so that loops keep its type."""
    return jax.lax.convert_element_type(x, dtype)


def typed_as(tree: PyTree, like: PyTree) -> PyTree:
    """A tree with the types of another one, or of itself, none of them weak."""
    return jax.tree.map(lambda x, old: as_type(x, jnp.result_type(old)), tree, like)
