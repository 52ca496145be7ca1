"""Keys ψ(s) of the states around a step, under which count-based bonuses count visits.

A key is a feature of the environment's state, such as the agent's position, or the observation.
Features have few values, so a table can have a cell for each. Observations are hashed to 64 bits;
the probability that any two of K different ones collide is about K²/2⁶⁵.

An observation is hashed as the environment returns it. If it contains a clock, every step of an
episode has a new key. Henaff et al., 2022, "Exploration via Elliptical Episodic Bonuses", report
this failure: a turn counter in the observation makes the episodic count-based bonus constant.
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
    """Keys around each step: integers, or pairs of hashes along a last axis."""

    before: Shaped[Array, "T N *lanes"]
    after: Shaped[Array, "T N *lanes"]  # of the true successor; meaningless where not `known`
    known: Bool[Array, "T N"]


@dataclass(frozen=True)
class KeyedBonus(Bonus, abstract=True):
    """Base class of count-based bonuses with an exact or hashed table of visits to one key.

    Attributes:
        env: Environment that provides the key.
        key: Key whose visits are counted: `position`, `event` or `observation`.
    """

    env: LevelEnv
    key: KeyName = "position"

    @property
    def features(self) -> tuple[str, ...]:
        """The counted feature; empty if observations are counted."""
        return features_of(self.key)

    @property
    def pairs(self) -> bool:
        """True if observations are counted, which includes the next one."""
        return not self.features

    def wants_exact(self, table: str, log_size: int) -> bool:
        """Return whether the table has one cell per key value.

        With `table="auto"` it does if the key has at most 2^log_size values.
        """
        if table != "auto":
            return table == "exact"
        # 0 values: the key is not enumerable.
        return 0 < num_values(self.env, self.key) <= 2**log_size


def default_key(env: LevelEnv) -> KeyName:
    """Return "position" if the environment provides positions, else "observation"."""
    return "position" if registry.has(env, LevelEnv.position) else "observation"


def check_key(env: LevelEnv, key: str, needed_by: str) -> None:
    """Check that a key is known and that the environment provides it.

    Raises:
        ValueError: If not; the message lists the known keys or names the missing capability.
    """
    if key not in KEYS:
        raise ValueError(f"{needed_by}: key={key!r} is not one of {', '.join(KEYS)}")
    if key in FEATURES:
        registry.require_all(env, FEATURES[key], f"{needed_by} with key={key}")


def check_table(key: str, table: str, tables: tuple[str, ...], needed_by: str) -> None:
    """Check that a kind of table is known, and that `exact` is used only for enumerable keys.

    Raises:
        ValueError: If not; the message names the table and the known ones.
    """
    if table not in tables:
        raise ValueError(f"{needed_by}: table={table!r} is not one of {', '.join(tables)}")
    if table == "exact" and key not in FEATURES:
        raise ValueError(
            f"{needed_by}: table=exact needs a cell for each value of the key, and key={key} has "
            f"too many; choose table={tables[-1]}"
        )


def check_ranges(component: object, bounds: dict[str, tuple[int, int]], needed_by: str) -> None:
    """Check that fields lie within inclusive bounds.

    Raises:
        ValueError: If not; the message names the field, its value and its bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(component, name)
        if not low <= value <= high:
            raise ValueError(f"{needed_by}: {name}={value} is not in {low} .. {high}")


def num_values(env: LevelEnv, key: str) -> int:
    """Return the number of values of the key; 0 if they are not enumerable."""
    return num_feature_values(env, key) if key in FEATURES else 0


def features_of(key: str) -> tuple[str, ...]:
    """Return the features that a rollout has to record for the key."""
    return (key,) if key in FEATURES else ()


def read_visits(rollout: Rollout, key: str, bins: int) -> Visits:
    """Return the keys around the steps of a rollout.

    Args:
        rollout: Rollout [T, N] with the key's feature in `visits`, or with `last_obs` for
            observations.
        key: One of `KEYS`.
        bins: Bins per unit to which floats in observations are rounded; 0 keeps their exact bits.
    """
    if key in FEATURES:
        # Features are recorded before the reset, so the true successor is always known.
        assert isinstance(rollout.visits, dict)
        visit: Visit = rollout.visits[key]
        return Visits(visit.before, visit.after, jnp.ones_like(rollout.first))
    # Each observation [T + 1, N] is hashed once, although it is both a successor and a state.
    every = jax.tree.map(lambda x, last: jnp.concatenate([x, last]), rollout.obs, rollout.last_obs)
    hashed = jax.vmap(jax.vmap(lambda obs: level_hash(_rounded(obs, bins))))(every)
    # After the end of an episode, the next observation is another episode's first.
    return Visits(hashed[:-1], hashed[1:], ~rollout.done)


def lanes(keys: Shaped[Array, "T N *lanes"]) -> UInt32[Array, "T N 2"]:
    """Return two independent hashes of each key; the key of an observation already is that pair."""
    return keys if keys.ndim == 3 else jax.vmap(jax.vmap(level_hash))(keys)


def _rounded(obs: PyTree, bins: int) -> PyTree:
    """Discretise the floats of an observation, so that rounding errors do not change its hash."""

    def leaf(x: Array) -> Array:
        x = jnp.asarray(x)
        if not bins or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        # Integers also merge 0.0 and -0.0, which are equal but differ in their bits.
        return jnp.round(x * bins).astype(jnp.int32)

    return jax.tree.map(leaf, obs)
