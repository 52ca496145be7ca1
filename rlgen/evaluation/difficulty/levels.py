"""Statistics of a family's levels for a difficulty card: number, solutions, returns, features.

The statistics are measured on M sampled levels. A random policy plays one episode on each level.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.stats import chi2
from scipy.stats import t as student

from rlgen import registry
from rlgen.evaluation.generalisation.shared_structure import shared_structure
from rlgen.evaluation.stats.intervals import binomial
from rlgen.levels import words
from rlgen.protocols import FEATURES, Actor, LevelEnv, has_feature
from rlgen.rollout import EpisodeResult, play
from rlgen.types import Key, PyTree

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
CONFIDENCE = 0.95
STRUCTURE_LEVELS = 200  # levels of the sample used for the shared structure

_BATCH = 64  # levels solved at a time


@dataclass(frozen=True)
class RandomActor(Actor):
    """Actor that chooses every action with equal probability."""

    num_actions: int

    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Return the carry, random actions, their log-probabilities, and values of 0."""
        action = jax.random.randint(key, first.shape, 0, self.num_actions, jnp.int32)
        zero = jnp.zeros(first.shape)
        return carry, action, zero - math.log(self.num_actions), zero

    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Return values of 0."""
        return jnp.zeros(first.shape)


class Distinct(NamedTuple):
    """Estimate of the number of levels of a family from a sample."""

    sampled: int  # sample size M
    seen: int  # different levels in the sample
    pairs: int  # pairs of equal levels
    estimate: float  # number of equally likely levels that gives `pairs` on average; NaN if 0 pairs
    low: float  # lower bound of the 95 % interval
    high: float  # upper bound of the 95 % interval; infinite if there are no equal pairs
    coverage: float  # estimated probability that the next level is already in the sample


class Sample(NamedTuple):
    """Sampled levels of a family, and indices of the different levels among them."""

    level: PyTree  # [M, ...]
    words: list[int]  # hash of each level
    rows: Int[np.ndarray, " U"]  # first row of each of the U different levels, ascending
    where: Int[np.ndarray, " M"]  # for each level, the index into `rows` of its first occurrence


def sample_levels(key: Key, env: LevelEnv, num: int) -> Sample:
    """Sample M levels of the base distribution, and find the different levels by their hashes."""

    @jax.jit
    def draw(keys: Key) -> tuple[PyTree, Array]:
        level = jax.vmap(env.sample_level)(keys)
        return level, jax.vmap(env.level_hash)(level)

    level, hashes = draw(jax.random.split(key, num))
    found = words(hashes)
    place: dict[int, int] = {}
    where = np.array([place.setdefault(word, len(place)) for word in found])
    rows = np.unique(where, return_index=True)[1]
    return Sample(level, found, rows, where)


def distinct(hashes: Sequence[int]) -> Distinct:
    """Estimate the number of levels of a family from the number of equal pairs in a sample.

    M levels drawn uniformly from N levels have M (M - 1) / (2 N) equal pairs on average. If some
    levels are more likely than others, the estimate of N is the inverse of the probability that two
    sampled levels are equal, which is less than the number of levels. If the sample has no equal
    pair, there is only a lower bound. The interval assumes that the number of equal pairs has a
    Poisson distribution. The coverage is the Good-Turing estimate.

    Sources: the birthday problem; Good, 1953, "The Population Frequencies of Species and the
    Estimation of Population Parameters".
    """
    counts = np.unique(np.asarray(hashes, np.uint64), return_counts=True)[1].astype(float)
    num = len(hashes)
    every, pairs = num * (num - 1) / 2, float((counts * (counts - 1) / 2).sum())
    # The bounds of a Poisson mean are chi-square quantiles. With 0 pairs, the bound is one-sided.
    most = float(chi2.ppf((1 + CONFIDENCE) / 2 if pairs else CONFIDENCE, 2 * pairs + 2)) / 2
    least = float(chi2.ppf((1 - CONFIDENCE) / 2, 2 * pairs)) / 2 if pairs else 0.0
    low = every / most if pairs else max(every / most, float(num))
    return Distinct(
        num,
        len(counts),
        int(pairs),
        every / pairs if pairs else math.nan,
        low,
        every / least if least else math.inf,
        1 - float((counts == 1).sum()) / num,
    )


def quantiles(x: np.ndarray, bins: int = 20) -> dict[str, Any]:
    """Return the mean, quantiles and a histogram of numbers.

    Args:
        x: The numbers.
        bins: Maximum number of bins of the histogram.

    Raises:
        ValueError: A value is not finite.
    """
    x = np.asarray(x, float)
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {x.size} values are not finite")
    edges = _edges(x, bins)
    counts = np.histogram(x, edges)[0]
    found = {f"q{round(100 * q):02d}": float(np.quantile(x, q)) for q in QUANTILES}
    shape = {"counts": counts.tolist(), "edges": edges.tolist()}
    return {"mean": float(x.mean()), **found, "histogram": shape}


def _edges(x: Float[np.ndarray, " M"], bins: int) -> Float[np.ndarray, " B"]:
    """Edges of bins of equal width.

    If all values are whole numbers, every bin covers the same number of whole numbers.
    """
    low, high = float(x.min()), float(x.max())
    if (x == np.round(x)).all():
        step = max(1, math.ceil((high - low + 1) / bins))
        return np.arange(low, high + step + 1, step) - 0.5
    return np.linspace(low, high, bins + 1)


def mean_interval(x: np.ndarray) -> dict[str, float]:
    """Mean of one number per level, with Student's t interval for the mean over the family.

    If there is only one level, the bounds are NaN.

    Raises:
        ValueError: A value is not finite.
    """
    x = np.asarray(x, float)
    if not np.isfinite(x).all():
        raise ValueError(f"{(~np.isfinite(x)).sum()} of {x.size} values are not finite")
    mean, half = float(x.mean()), math.nan
    if x.size > 1:
        spread = float(x.std(ddof=1)) / math.sqrt(x.size)  # standard error
        half = float(student.ppf((1 + CONFIDENCE) / 2, x.size - 1)) * spread
    return {"value": mean, "low": mean - half, "high": mean + half}


def rate(flags: np.ndarray) -> dict[str, float]:
    """Fraction of levels for which a flag is True, with the exact binomial interval."""
    low, high = binomial(np.asarray(flags.sum()), flags.size, CONFIDENCE)
    return {"value": float(flags.mean()), "low": float(low), "high": float(high)}


def solved(env: Any, sample: Sample) -> dict[str, Any]:
    """Fraction of solvable levels, length of the shortest solutions, and mean optimal return.

    A level that occurs several times in the sample is solved once.
    """
    solution = _expand(sample, _each(env.solve, sample))
    solvable = np.asarray(solution.solvable, bool)
    steps = np.asarray(solution.steps)[solvable]
    return {
        "solvable": rate(solvable),
        "optimal_steps": quantiles(steps) if steps.size else None,
        "num_unsolvable": int((~solvable).sum()),
        "return": mean_interval(np.asarray(solution.optimal_return)),
    }


def features(env: Any, sample: Sample) -> dict[str, Any]:
    """Mean, quantiles and histogram of every feature; only the mean if the feature is boolean."""
    found = _expand(sample, _each(env.level_features, sample))
    return {
        name: {"mean": float(x.mean())} if x.dtype == bool else quantiles(x)
        for name, x in found.items()
    }


def random_policy(key: Key, env: Any, sample: Sample) -> dict[str, Any]:
    """Mean return, length and solve rate of random actions, with one episode per level.

    If the environment does not define success, there is no solve rate.
    """
    level, actor = sample.level, RandomActor(env.num_actions)
    limit = jnp.asarray(level.max_steps_in_episode).max()

    @jax.jit
    def run(key: Key, level: PyTree, limit: Array) -> EpisodeResult:
        return play(key, env, actor, (), level, limit)

    played = jax.device_get(run(key, level, limit))
    told = {"return": mean_interval(played.episode_return), "steps": mean_interval(played.length)}
    if registry.has(env, LevelEnv.success):
        success = env.success(jnp.asarray(played.episode_return), jnp.asarray(played.terminated))
        told["solve_rate"] = rate(np.asarray(success))
    return told


def structure(env: Any, sample: Sample) -> list[dict[str, Any]]:
    """Dispersion and coverage of every feature that the environment has; see `shared_structure`."""
    level = jax.tree.map(lambda x: x[:STRUCTURE_LEVELS], sample.level)
    names = [name for name in FEATURES if has_feature(env, name)]
    return [shared_structure(env, level, name)._asdict() for name in names]


def _each(function: Callable[[PyTree], PyTree], sample: Sample) -> PyTree:
    """Apply a function to each of the different levels, in batches to limit memory use."""
    level = jax.tree.map(lambda x: x[sample.rows], sample.level)
    run = jax.jit(lambda level: jax.lax.map(function, level, batch_size=_BATCH))
    return jax.device_get(run(level))


def _expand(sample: Sample, found: PyTree) -> PyTree:
    """Copy results [U, ...] of the different levels to all sampled levels [M, ...]."""
    return jax.tree.map(lambda x: np.asarray(x)[sample.where], found)
