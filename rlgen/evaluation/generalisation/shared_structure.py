"""Structure shared by the levels of a family (dispersion D), and coverage κ of an episode.

D measures how much the valuable states differ between levels. D is 0 if all levels have the same
valuable states, and 1 if these states differ as much as possible. States are identified by a
feature, such as the position. κ is the time limit of an episode divided by the number of feature
values in a level.

D and κ indicate which kind of exploration bonus is likely to help. If D is near 0, a bonus for
states that are new in the whole run works even with short episodes. If D is near 1, the states that
matter on the next level were already visited on earlier levels and are no longer new in the run. A
bonus for states that are new in the episode remains useful if κ is at least 1, because episodes are
then long enough to cover a level.

Source of the framework: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses
for Exploration in Contextual MDPs", section 3, which considers values of a feature over contexts.
The numbers D and κ are rlgen's own.
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

DISCOUNT = 0.99  # discount of the optimal values


class Structure(NamedTuple):
    """Dispersion and coverage of one feature over the levels of a family.

    For the value V(z) of a feature value z, see `shared_structure`.
    """

    feature: str
    num_levels: int
    dispersion: float  # D, from 0 (V(z) equal on all levels) to 1 (as different as possible)
    variance: float  # variance of V(z) over levels, mean over z
    coverage: float  # κ: time limit / number of feature values that a level has, mean over levels


def shared_structure(
    env: LevelEnv, levels: PyTree, feature: str = "position", discount: float = DISCOUNT
) -> Structure:
    """Compute the dispersion and the coverage of levels [M, ...] for one feature.

    V(z) of a level is the smallest optimal value of the level's states whose feature equals z. If
    the level has no such state, V(z) is 0. The dispersion is the mean of
    Var V(z) / (E V(z) (1 - E V(z))) over all z that occur on at least one level, where variance and
    expectation are over levels.

    Args:
        env: Environment of the levels.
        levels: Levels [M, ...].
        feature: Name of the feature, a key of `FEATURES`.
        discount: Discount of the optimal values.

    Raises:
        ValueError: The environment does not provide the values of features, or lacks this feature.
    """
    registry.require(env, LevelEnv.feature_values, "shared structure")
    registry.require_all(env, FEATURES[feature], f"shared structure of {feature}")
    of = partial(env.feature_values, feature=feature, discount=discount)
    # One level at a time, because the values of all levels need far more memory than the levels.
    values = np.asarray(jax.jit(lambda levels: jax.lax.map(of, levels))(levels), np.float64)
    limit = np.asarray(levels.max_steps_in_episode, np.float64)
    num_values = np.maximum((values > 0).sum(1), 1)  # V(z) is 0 if the level lacks z
    dispersion, variance = dispersion_of(values)
    coverage = float((limit / num_values).mean())
    return Structure(feature, len(values), dispersion, variance, coverage)


def dispersion_of(values: Float[np.ndarray, "M Z"]) -> tuple[float, float]:
    """Return the dispersion of V(z), which lies in [0, 1], and the mean over z of Var V(z)."""
    mean, variance = values.mean(0), values.var(0)
    seen = mean > 0
    most = mean * (1 - mean)  # largest variance of a variable in [0, 1] with this mean
    share = np.divide(variance, most, out=np.zeros_like(mean), where=most > 1e-9)
    return float(share[seen].mean()), float(variance[seen].mean())


def structures(env: LevelEnv, num_levels: int, seed: int = 0) -> Iterator[Structure]:
    """Sample levels and, for each feature of the environment, yield the levels' structure."""
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
