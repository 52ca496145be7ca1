"""Helpers that the adapters for other packages share: imports, and dtypes of states."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from rlgen.types import PyTree


def import_module(name: str, env: str, package: str) -> Any:
    """Import a module of a package that an environment needs.

    Args:
        name: Full name of the module.
        env: Family that needs the module; also the name of the extra to install.
        package: Name of the package for the error message.

    Raises:
        ValueError: The package is not installed; the message gives the command to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the environment {env} needs the package {package} ({error}); "
            f'install it: pip install "rlgen[{env}]"'
        ) from error


def as_type(x: Any, dtype: Any) -> Array:
    """Convert to an array that is not weakly typed, so that its type stays the same in a loop."""
    return jax.lax.convert_element_type(x, dtype)


def typed_as(tree: PyTree, like: PyTree) -> PyTree:
    """Convert the leaves of a tree to the dtypes of the leaves of `like`, without weak types."""
    return jax.tree.map(lambda x, old: as_type(x, jnp.result_type(old)), tree, like)
