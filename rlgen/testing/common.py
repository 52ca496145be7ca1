"""Helper functions of the laws: comparisons of pytrees, and synthetic data."""

import dataclasses
import difflib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.types import NEW, PyTree, Rollout, Slots


def assert_component(component: object, base: type) -> None:
    """Check that a component subclasses `base` and misspells no name that `base` declares.

    Without this check, a misspelt optional method would be treated as missing.
    """
    kind = type(component)
    assert isinstance(component, base), f"{kind.__name__} is not a {base.__name__}"
    known = [name for name in dir(base) if not name.startswith("_")]
    own: dict[str, Any] = {}
    for cls in kind.__mro__:
        own |= vars(cls) if cls not in base.__mro__ else {}
    fields = dataclasses.fields(component) if dataclasses.is_dataclass(component) else ()
    right = {*known, *(field.name for field in fields)}
    for name in (x for x in own if not x.startswith("_") and x not in right):
        # Other public names are allowed. Only a name that resembles a name of the base class is
        # suspicious.
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        assert not near, (
            f"{kind.__name__}.{name} is not a method of {base.__name__}, but {near[0]} is; if "
            f"{name} has another purpose, rename it"
        )


def assert_same(tree: PyTree, expected: PyTree, sentence: str) -> None:
    """Check that two trees are equal bit for bit, where NaN equals itself.

    The error message shows `sentence` and the first leaf that differs.
    """
    assert_shapes(tree, expected, sentence)
    for path, x, y in _pairs(tree, expected):
        assert not differs(x, y), f"{sentence}: {path or 'value'}\n{x}\n{y}"


def assert_close(tree: PyTree, expected: PyTree, sentence: str, tolerance: float = 1e-5) -> None:
    """Check that floats agree within relative and absolute tolerances, and other leaves exactly."""
    assert_shapes(tree, expected, sentence)
    for path, x, y in _pairs(tree, expected):
        if np.issubdtype(x.dtype, np.inexact):
            near = np.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True)
            assert near, f"{sentence}: {path or 'value'}\n{x}\n{y}"
        else:
            assert not differs(x, y), f"{sentence}: {path or 'value'}\n{x}\n{y}"


def assert_shapes(tree: PyTree, expected: PyTree, sentence: str) -> None:
    """Check that two trees have equal structures, shapes and dtypes."""
    found, right = jax.tree.structure(tree), jax.tree.structure(expected)
    assert found == right, f"{sentence}: structure {found}, not {right}"
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True):
        found, right = ((jnp.shape(z), jnp.result_type(z)) for z in (x, y))
        assert found == right, f"{sentence}: {jax.tree_util.keystr(path)} is {found}, not {right}"


def differs(x: PyTree, y: PyTree) -> bool:
    """Return whether any bit of any leaf differs."""
    # In a comparison of bytes, NaN equals itself, and 0.0 differs from -0.0.
    return any(x.tobytes() != y.tobytes() for _, x, y in _pairs(x, y))


def random_rollout(seed: int, num_steps: int, num_slots: int, levels_per_slot: int) -> Rollout:
    """Synthetic consistent rollout [T, N]; about a fifth of the steps end an episode."""
    rng = np.random.default_rng(seed)
    shape = (num_steps, num_slots)
    terminated = rng.random(shape) < 0.15
    truncated = ~terminated & (rng.random(shape) < 0.08)
    done = terminated | truncated
    ended_before = np.concatenate([np.zeros((1, num_slots), int), done.cumsum(0)[:-1]])
    value, after = rng.normal(size=(2, *shape))
    # The value in the next row, except after a truncation, where the next row belongs to another
    # episode.
    next_value = np.where(truncated, after, np.concatenate([value[1:], after[-1:]]))
    return Rollout(
        obs=jnp.asarray(rng.normal(size=(*shape, 4)), jnp.float32),
        action=jnp.asarray(rng.integers(0, 2, shape), jnp.int32),
        log_prob=jnp.asarray(-rng.random(shape), jnp.float32),
        value=jnp.asarray(value, jnp.float32),
        next_value=jnp.asarray(np.where(terminated, 0.0, next_value), jnp.float32),
        first=jnp.asarray(np.concatenate([np.ones((1, num_slots), bool), done[:-1]])),
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        level_index=jnp.asarray(ended_before % levels_per_slot, jnp.int32),
        reward=jnp.asarray(rng.normal(size=shape), jnp.float32),
        bonus=jnp.zeros(shape),
        carry=(),
    )


def new_slots(level: PyTree, memory: PyTree, note: PyTree = ()) -> Slots:
    """Slots with new levels [N, R, ...] and weight 1.

    Args:
        level: levels, [N, R, ...].
        memory: the score's memory of one level; repeated for all levels.
        note: the sampler's data of one level (`level_info`); repeated for all levels.
    """
    shape = jax.tree.leaves(level)[0].shape[:2]

    def repeated(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), tree)

    return Slots(
        level=level,
        score_state=repeated(memory),
        buffer_index=jnp.full(shape, -1, jnp.int32),
        origin=jnp.full(shape[0], NEW, jnp.int32),
        weight=jnp.ones(shape[0]),
        level_info=repeated(note),
    )


def _pairs(tree: PyTree, expected: PyTree) -> list[tuple[str, np.ndarray, np.ndarray]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [
        (jax.tree_util.keystr(path), _numpy(x), _numpy(y))
        for (path, x), y in zip(leaves, jax.tree.leaves(expected), strict=True)
    ]


def _numpy(x: PyTree) -> np.ndarray:
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.prng_key):
        # NumPy has no typed keys.
        x = jax.random.key_data(x)
    return np.asarray(x)
