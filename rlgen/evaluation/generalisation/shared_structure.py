"""Structure shared by the levels of a family (dispersion D), and coverage κ of an episode.

The two numbers indicate which kind of exploration bonus is likely to help. If the valuable states
differ from level to level (dispersion D near 1), visits on earlier levels have already used up the
novelty, counted over the whole run, of states that matter on the next level. Novelty within an
episode then remains useful, if episodes are long enough to cover a level (coverage κ of 1 or more).
If levels share their valuable states (D near 0), novelty over the whole run works even with short
episodes.

Source of the framework: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses
for Exploration in Contextual MDPs", section 3: values of a feature, over contexts. The numbers D
and κ are rlgen's.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from rlgen import registry
from rlgen.protocols import FEATURES, LevelEnv, has_feature
from rlgen.types import PyTree

DISCOUNT = 0.99  # of the optimal values


class Structure(NamedTuple):
    """Dispersion and coverage of one feature over the levels of a family."""

    feature: str
    num_levels: int
    dispersion: float  # D, from 0 (equal V(z) on all levels) to 1 (differs as much as possible)
    variance: float  # Var V(z) over levels, mean over z
    coverage: float  # κ: time limit / number of feature values that a level has, mean over levels


def shared_structure(
    env: LevelEnv, levels: PyTree, feature: str = "position", discount: float = DISCOUNT
) -> Structure:
    """Compute the structure that levels [M, ...] share.

    V(z) of a level is the smallest optimal value of all states whose feature has the value z, or 0
    if the level has no such state. D is the mean of Var V(z) / (E V(z) (1 - E V(z))) over all z
    that occur on some level; variance and expectation are over levels.

    Args:
        env: Environment of the levels.
        levels: Levels [M, ...].
        feature: Name of the feature, a key of `FEATURES`.
        discount: Discount of the optimal values.

    Raises:
        ValueError: The environment does not provide the values of features, or has no such feature.
    """
    registry.require(env, LevelEnv.feature_values, "shared structure")
    registry.require_all(env, FEATURES[feature], f"shared structure of {feature}")
    of = partial(env.feature_values, feature=feature, discount=discount)
    # Sequentially: the values of all levels at once would need far more memory than the levels.
    values = np.asarray(jax.jit(lambda levels: jax.lax.map(of, levels))(levels), np.float64)
    limit = np.asarray(levels.max_steps_in_episode, np.float64)
    num_values = np.maximum((values > 0).sum(1), 1)  # 0 marks a value that the level lacks
    dispersion, variance = dispersion_of(values)
    coverage = float((limit / num_values).mean())
    return Structure(feature, len(values), dispersion, variance, coverage)


def dispersion_of(values: Float[np.ndarray, "M Z"]) -> tuple[float, float]:
    """Return D and the mean variance of values V(z) in [0, 1] on M levels."""
    mean, variance = values.mean(0), values.var(0)
    seen = mean > 0
    most = mean * (1 - mean)  # largest variance of a variable in [0, 1] with this mean
    share = np.divide(variance, most, out=np.zeros_like(mean), where=most > 1e-9)
    return float(share[seen].mean()), float(variance[seen].mean())


def structures(env: LevelEnv, num_levels: int, seed: int = 0) -> Iterator[Structure]:
    """Yield the structure for every feature of an environment, over its base distribution."""
    keys = jax.random.split(jax.random.key(seed), num_levels)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    for feature in FEATURES:
        if has_feature(env, feature):
            yield shared_structure(env, levels, feature)


def visits_of(
    positions: Array | np.ndarray, num_positions: int, counted: Array | np.ndarray
) -> Float[np.ndarray, " Z"]:
    """Count the visits to each position, for heat maps.

    Args:
        positions: Indices of positions below `num_positions`, of any shape.
        num_positions: Number of positions Z.
        counted: Mask of the entries to count, with the shape of `positions`.
    """
    chosen = np.asarray(positions)[np.asarray(counted)]
    return np.bincount(chosen.ravel(), minlength=num_positions).astype(float)
