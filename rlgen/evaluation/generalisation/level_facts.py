"""What can be computed of the levels in a curriculum log: their features and their solutions."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from rlgen import registry
from rlgen.protocols import LevelEnv
from rlgen.runs import folder
from rlgen.runs.curriculum_log import LevelLog, read
from rlgen.types import PyTree

MAX_LEVELS = 4000
"""Levels that are looked at: solving them takes time."""
BATCH = 500


class Facts(NamedTuple):
    """What is known of M levels of a log."""

    place: tuple[Int[np.ndarray, " M"], ...]  # update, seed and slot: indices into [U, S, n]
    features: dict[str, np.ndarray]  # [M] each; bool, or float with NaN where there is none
    optimal_return: Float[np.ndarray, " M"] | tuple[()]  # () if the environment has no solver

    def of(self, values: np.ndarray) -> np.ndarray:
        """The levels' own of an array [U, S, n] of the log."""
        return values[self.place]


def open_log(run: Path, allow_imports: bool = False) -> tuple[Any, LevelLog]:
    """Environment and curriculum log of a run.

    Raises:
        ValueError: not a run, no log in it, or a damaged one.
    """
    _, env, curriculum = folder.rebuild(folder.read(run), allow_imports)
    return env, read(run, jax.device_get(curriculum.sampler.example_level()))


def find_facts(env: Any, log: LevelLog, limit: int = MAX_LEVELS) -> Facts:
    """Features and optimal returns of at most `limit` levels, drawn evenly over the run.

    The same log gives the same levels. A feature below 0 of a level that cannot be solved, such as
    its shortest path, is none.
    """
    place = np.unravel_index(_evenly(log.score.size, limit), log.score.shape)
    level = jax.tree.map(lambda x: x[place], log.level)
    features = (
        dict(_batched(env.level_features, level))
        if registry.has(env, LevelEnv.level_features)
        else {}
    )
    if not registry.has(env, LevelEnv.solve):
        return Facts(place, features, ())
    solution = _batched(env.solve, level)
    features.setdefault("solvable", solution.solvable)
    shown = {name: _masked(x, solution.solvable) for name, x in features.items()}
    return Facts(place, shown, solution.optimal_return.astype(float))


def _evenly(num: int, limit: int) -> Int[np.ndarray, " M"]:
    """One of each of `limit` equal parts of `0 .. num - 1`; by chance, so no slot is missed."""
    if num <= limit:
        return np.arange(num)
    edges = np.linspace(0, num, limit + 1)
    shift = np.random.default_rng(0).random(limit)
    return np.minimum(edges[:-1] + shift * np.diff(edges), num - 1).astype(int)


def _batched(function: Any, level: PyTree) -> Any:
    """A function of one level, of all of them; in batches of one size, so that it compiles once."""
    num = jax.tree.leaves(level)[0].shape[0]
    size = min(BATCH, num)
    call = jax.jit(jax.vmap(function))
    found = []
    for start in range(0, num, size):
        at = np.minimum(np.arange(start, start + size), num - 1)
        batch = jax.tree.map(lambda x, at=at: jnp.asarray(x[at]), level)
        found.append(jax.device_get(call(batch)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:num], *found)


def _masked(feature: np.ndarray, solvable: np.ndarray) -> np.ndarray:
    if feature.dtype == bool:
        return feature
    return np.where(~solvable & (feature < 0), np.nan, feature.astype(float))
