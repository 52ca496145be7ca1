"""Features and solutions of the levels in a curriculum log.

A curriculum log records levels that a run has played (see `rlgen.runs.curriculum_log`).
"""

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
"""Largest number of levels that are analysed. It is limited because solving levels takes time."""
BATCH = 500  # levels per call of a compiled function


class Facts(NamedTuple):
    """Features and optimal returns of M levels of a log."""

    place: tuple[Int[np.ndarray, " M"], ...]  # indices of update, seed and slot in arrays [U, S, n]
    features: dict[str, np.ndarray]  # [M] each; bool, or float with NaN where undefined
    optimal_return: Float[np.ndarray, " M"] | tuple[()]  # () if the environment has no solver

    def of(self, values: np.ndarray) -> np.ndarray:
        """Select the entries of these levels from an array [U, S, n] of the log."""
        return values[self.place]


def open_log(run: Path, allow_imports: bool = False) -> tuple[Any, LevelLog]:
    """Load the environment and the curriculum log of a run.

    Args:
        run: Run folder.
        allow_imports: Whether to import modules from outside rlgen that the run's record names.

    Raises:
        ValueError: The folder is not a run, has no log, or the log is damaged.
    """
    _, env, curriculum = folder.rebuild(folder.read(run), allow_imports)
    return env, read(run, jax.device_get(curriculum.sampler.example_level()))


def find_facts(env: Any, log: LevelLog, limit: int = MAX_LEVELS) -> Facts:
    """Compute features and optimal returns of at most `limit` levels of a log.

    If the log has more levels, one is chosen from each of `limit` equal parts of the run. The same
    levels are chosen each time a log is analysed. A negative feature of an unsolvable level, such
    as a shortest path of -1, becomes NaN.
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
    """Draw one index from each of `limit` equal parts of the range 0 to num - 1.

    If `num` is at most `limit`, all indices are returned. The position within a part is random,
    because a fixed stride that is a multiple of the number of slots would always select the same
    slots.
    """
    if num <= limit:
        return np.arange(num)
    edges = np.linspace(0, num, limit + 1)
    shift = np.random.default_rng(0).random(limit)
    return np.minimum(edges[:-1] + shift * np.diff(edges), num - 1).astype(int)


def _batched(function: Any, level: PyTree) -> Any:
    """Apply a function of one level to all levels, in batches of equal size that compile once."""
    num = jax.tree.leaves(level)[0].shape[0]
    size = min(BATCH, num)
    call = jax.jit(jax.vmap(function))
    found = []
    for start in range(0, num, size):
        at = np.minimum(np.arange(start, start + size), num - 1)  # pads with the last level
        batch = jax.tree.map(lambda x, at=at: jnp.asarray(x[at]), level)
        found.append(jax.device_get(call(batch)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:num], *found)


def _masked(feature: np.ndarray, solvable: np.ndarray) -> np.ndarray:
    """Replace negative values of unsolvable levels with NaN; boolean features are unchanged."""
    if feature.dtype == bool:
        return feature
    return np.where(~solvable & (feature < 0), np.nan, feature.astype(float))
