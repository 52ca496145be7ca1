"""How much structure the levels of a family share, and how much one episode can cover.

Two numbers that tell which exploration bonus to expect something of. Where what is valuable differs
from level to level (dispersion D near 1), counts over a whole run have exhausted by old levels what
matters in the next one, and novelty within an episode is what is left; it needs episodes long
enough to cover a level (coverage κ of 1 or more). Where levels share what is valuable (D near 0),
novelty over a whole run works, however short the episodes.

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

DISCOUNT = 0.99


class Structure(NamedTuple):
    """What the levels of one family share in the values of one feature."""

    feature: str
    num_levels: int
    dispersion: float  # D, from 0 (the same in all levels) to 1
    variance: float  # over levels, of a value; mean over the feature's values
    coverage: float  # κ: steps of an episode for each value of the feature that a level has


def shared_structure(
    env: LevelEnv, levels: PyTree, feature: str = "position", discount: float = DISCOUNT
) -> Structure:
    """The structure that levels [M, ...] share.

    V(z) of a level is the least optimal value of the states that look alike under the feature, z; 0
    where the level has none. D is the mean over z of Var V(z) / (E V(z) (1 - E V(z))) over levels,
    over those z that some level has.

    Raises:
        ValueError: the environment does not tell such values, or has no such feature.
    """
    registry.require(env, LevelEnv.feature_values, "shared structure")
    registry.require_all(env, FEATURES[feature], f"shared structure of {feature}")
    of = partial(env.feature_values, feature=feature, discount=discount)
    # One after the other: the values of all at once would take more memory than the levels.
    values = np.asarray(jax.jit(lambda levels: jax.lax.map(of, levels))(levels), np.float64)
    limit = np.asarray(levels.max_steps_in_episode, np.float64)
    num_values = np.maximum((values > 0).sum(1), 1)
    dispersion, variance = dispersion_of(values)
    coverage = float((limit / num_values).mean())
    return Structure(feature, len(values), dispersion, variance, coverage)


def dispersion_of(values: Float[np.ndarray, "M Z"]) -> tuple[float, float]:
    """D and the mean variance of values V(z), each from 0 to 1, of M levels."""
    mean, variance = values.mean(0), values.var(0)
    seen = mean > 0
    most = mean * (1 - mean)
    share = np.divide(variance, most, out=np.zeros_like(mean), where=most > 1e-9)
    return float(share[seen].mean()), float(variance[seen].mean())


def structures(env: LevelEnv, num_levels: int, seed: int = 0) -> Iterator[Structure]:
    """Of every feature that an environment has, over levels of its base distribution."""
    keys = jax.random.split(jax.random.key(seed), num_levels)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    for feature in FEATURES:
        if has_feature(env, feature):
            yield shared_structure(env, levels, feature)


def visits_of(
    positions: Array | np.ndarray, num_positions: int, counted: Array | np.ndarray
) -> Float[np.ndarray, " Z"]:
    """How often each position was visited: for heat maps.

    Args:
        positions: any shape, below `num_positions`.
        num_positions: Z.
        counted: of the same shape; what counts.
    """
    chosen = np.asarray(positions)[np.asarray(counted)]
    return np.bincount(chosen.ravel(), minlength=num_positions).astype(float)
