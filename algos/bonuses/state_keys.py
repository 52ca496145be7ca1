"""Keys ψ(s) of the states before and after each step; count-based bonuses count visits to keys.

A key is either the observation or a feature of the environment's state, such as the agent's
position. Features have few values, so a table can have a cell for each value. Observations are
hashed to 64 bits. Among K different observations, the probability that any two collide is about
K²/2⁶⁵.

An observation is hashed as the environment returns it. If the observation contains the number of
steps so far, every step of an episode has a new key. Henaff et al., 2022, "Exploration via
Elliptical Episodic Bonuses", report this failure: with a turn counter in the observation, the
episodic count-based bonus is constant.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Shaped, UInt32

from rlgen import registry
from rlgen.protocols import FEATURES, Bonus, LevelEnv, level_hash, num_feature_values
from rlgen.types import PyTree, Rollout, Visit

KeyName: TypeAlias = Literal["position", "event", "observation"]
KEYS = ("position", "event", "observation")


class Visits(NamedTuple):
    """Keys before and after each step: integers, or pairs of hashes along an extra last axis."""

    before: Shaped[Array, "T N *lanes"]
    after: Shaped[Array, "T N *lanes"]  # meaningless where `known` is False
    known: Bool[Array, "T N"]  # whether the state after the step is known


@dataclass(frozen=True)
class KeyedBonus(Bonus, abstract=True):
    """Base class of count-based bonuses with an exact or hashed table.

    Attributes:
        env: Environment that provides the key.
        key: Kind of key whose visits are counted: `position`, `event` or `observation`.
    """

    env: LevelEnv
    key: KeyName = "position"

    @property
    def features(self) -> tuple[str, ...]:
        """The counted feature; empty if observations are counted."""
        return features_of(self.key)

    @property
    def pairs(self) -> bool:
        """True if observations are counted: the bonus then depends on the next observation."""
        return not self.features

    def wants_exact(self, table: str, log_size: int) -> bool:
        """Return whether the table has one cell per key value.

        With `table="auto"`, the result is true if the key has at most 2^log_size values.
        """
        if table != "auto":
            return table == "exact"
        # `num_values` is 0 if the key is not enumerable.
        return 0 < num_values(self.env, self.key) <= 2**log_size


def default_key(env: LevelEnv) -> KeyName:
    """Return "position" if the environment provides positions, else "observation"."""
    return "position" if registry.has(env, LevelEnv.position) else "observation"


def check_key(env: LevelEnv, key: str, needed_by: str) -> None:
    """Check that a kind of key is known and that the environment provides it.

    Raises:
        ValueError: If one of the checks fails. The message lists the known kinds of keys or names
            the missing capability.
    """
    if key not in KEYS:
        raise ValueError(f"{needed_by}: key={key!r} is not one of {', '.join(KEYS)}")
    if key in FEATURES:
        registry.require_all(env, FEATURES[key], f"{needed_by} with key={key}")


def check_table(key: str, table: str, tables: tuple[str, ...], needed_by: str) -> None:
    """Check that a kind of table is known, and that `exact` is used only for enumerable keys.

    Raises:
        ValueError: If one of the checks fails. The message names the table and the alternatives.
    """
    if table not in tables:
        raise ValueError(f"{needed_by}: table={table!r} is not one of {', '.join(tables)}")
    if table == "exact" and key not in FEATURES:
        raise ValueError(
            f"{needed_by}: table=exact needs a cell for each value of the key, but key={key} has "
            f"too many values; choose table={tables[-1]}"
        )


def check_ranges(component: object, bounds: dict[str, tuple[int, int]], needed_by: str) -> None:
    """Check that fields lie within inclusive bounds.

    Raises:
        ValueError: If a field is out of bounds. The message names the field, its value and its
            bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(component, name)
        if not low <= value <= high:
            raise ValueError(f"{needed_by}: {name}={value} is not in {low} .. {high}")


def num_values(env: LevelEnv, key: str) -> int:
    """Return the number of values of the key, or 0 if the values are not enumerable."""
    return num_feature_values(env, key) if key in FEATURES else 0


def features_of(key: str) -> tuple[str, ...]:
    """Return the features that a rollout has to record for the key."""
    return (key,) if key in FEATURES else ()


def read_visits(rollout: Rollout, key: str, bins: int) -> Visits:
    """Return the keys before and after each step of a rollout.

    Args:
        rollout: Rollout [T, N]. If the key is a feature, `visits` must contain the feature;
            otherwise the rollout must contain `last_obs`.
        key: One of `KEYS`.
        bins: Number of bins per unit. Floats in observations are rounded to the nearest bin; with
            0, floats are not rounded.
    """
    if key in FEATURES:
        # Features are recorded before the environment resets, so the state after a step is always
        # known.
        assert isinstance(rollout.visits, dict)
        visit: Visit = rollout.visits[key]
        return Visits(visit.before, visit.after, jnp.ones_like(rollout.first))
    # Each observation [T + 1, N] is hashed once, although it follows one step and precedes another.
    every = jax.tree.map(lambda x, last: jnp.concatenate([x, last]), rollout.obs, rollout.last_obs)
    hashed = jax.vmap(jax.vmap(lambda obs: level_hash(_rounded(obs, bins))))(every)
    # If a step ends an episode, the next observation is the first of another episode.
    return Visits(hashed[:-1], hashed[1:], ~rollout.done)


def lanes(keys: Shaped[Array, "T N *lanes"]) -> UInt32[Array, "T N 2"]:
    """Return two independent hashes of each key; an observation's key is already such a pair."""
    return keys if keys.ndim == 3 else jax.vmap(jax.vmap(level_hash))(keys)


def _rounded(obs: PyTree, bins: int) -> PyTree:
    """Discretise the floats of an observation, so that rounding errors do not change its hash."""

    def leaf(x: Array) -> Array:
        x = jnp.asarray(x)
        if not bins or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        # As integers, 0.0 and -0.0 have equal hashes; as floats, their bits differ.
        return jnp.round(x * bins).astype(jnp.int32)

    return jax.tree.map(leaf, obs)
