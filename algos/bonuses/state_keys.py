"""What a step is filed under when visits are counted: the key ψ(s) of the states around it.

A key is a feature of the environment's state, such as the agent's position, or what the agent sees.
Features have few values, and a table can have a cell for each. Observations are hashed to 64 bits,
so that different ones collide with probability about K²/2⁶⁵ among K.

An observation is hashed as the environment gives it, clocks included: one that shows the time makes
every step of an episode new. Source of the warning: Henaff et al., 2022, "Exploration via
Elliptical Episodic Bonuses", where a turn counter in view makes the episodic count a constant.
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
    """The keys around each step: whole numbers, or pairs of hashes in a last axis."""

    before: Shaped[Array, "T N *lanes"]
    after: Shaped[Array, "T N *lanes"]  # of the true successor, where it is known
    known: Bool[Array, "T N"]


@dataclass(frozen=True)
class KeyedBonus(Bonus, abstract=True):
    """Base of bonuses by a table of visits, exact or hashed, filed under one key.

    Attributes:
        env: which gives the key.
        key: what visits are filed under: position, event or observation.
    """

    env: LevelEnv
    key: KeyName = "position"

    @property
    def features(self) -> tuple[str, ...]:
        """The feature that is counted, if it is one."""
        return features_of(self.key)

    @property
    def pairs(self) -> bool:
        """Whether observations are counted, and so the one that follows."""
        return not self.features

    def wants_exact(self, table: str, log_size: int) -> bool:
        """Whether to have a cell for each key: as `table` says, or where that is no larger."""
        if table != "auto":
            return table == "exact"
        return 0 < num_values(self.env, self.key) <= 2**log_size


def default_key(env: LevelEnv) -> KeyName:
    """The agent's position, or what it sees if the environment says no positions."""
    return "position" if registry.has(env, LevelEnv.position) else "observation"


def check_key(env: LevelEnv, key: str, needed_by: str) -> None:
    """Refuse a key that is unknown or that the environment cannot give.

    Raises:
        ValueError: names the key and those that there are.
    """
    if key not in KEYS:
        raise ValueError(f"{needed_by}: key={key!r} is none of {', '.join(KEYS)}")
    if key in FEATURES:
        registry.require_all(env, FEATURES[key], f"{needed_by} with key={key}")


def check_table(key: str, table: str, tables: tuple[str, ...], needed_by: str) -> None:
    """Refuse an unknown table, or an exact one of keys without number.

    Raises:
        ValueError: names the table and those that there are.
    """
    if table not in tables:
        raise ValueError(f"{needed_by}: table={table!r} is none of {', '.join(tables)}")
    if table == "exact" and key not in FEATURES:
        raise ValueError(
            f"{needed_by}: table=exact has a cell for each value of the key, and key={key} has "
            f"too many; choose table={tables[-1]}"
        )


def check_ranges(component: object, bounds: dict[str, tuple[int, int]], needed_by: str) -> None:
    """Refuse numbers outside their bounds.

    Raises:
        ValueError: names the field, its value and its bounds.
    """
    for name, (low, high) in bounds.items():
        value = getattr(component, name)
        if not low <= value <= high:
            raise ValueError(f"{needed_by}: {name}={value} is not in {low} .. {high}")


def num_values(env: LevelEnv, key: str) -> int:
    """How many values the key can have; 0 if they are not enumerated."""
    return num_feature_values(env, key) if key in FEATURES else 0


def features_of(key: str) -> tuple[str, ...]:
    """The features that a rollout has to record for the key."""
    return (key,) if key in FEATURES else ()


def read_visits(rollout: Rollout, key: str, bins: int) -> Visits:
    """The keys around the steps of a rollout.

    Args:
        rollout: [T, N], with the features of the key, or with `last_obs` for observations.
        key: one of `KEYS`.
        bins: cells a unit into which floats of an observation are rounded; 0 keeps all their bits.
    """
    if key in FEATURES:
        assert isinstance(rollout.visits, dict)
        visit: Visit = rollout.visits[key]
        return Visits(visit.before, visit.after, jnp.ones_like(rollout.first))
    every = jax.tree.map(lambda x, last: jnp.concatenate([x, last]), rollout.obs, rollout.last_obs)
    hashed = jax.vmap(jax.vmap(lambda obs: level_hash(_rounded(obs, bins))))(every)
    return Visits(hashed[:-1], hashed[1:], ~rollout.done)


def lanes(keys: Shaped[Array, "T N *lanes"]) -> UInt32[Array, "T N 2"]:
    """Two independent hashes of each key: those that it is made of, or of the number that it is."""
    return keys if keys.ndim == 3 else jax.vmap(jax.vmap(level_hash))(keys)


def _rounded(obs: PyTree, bins: int) -> PyTree:
    def leaf(x: Array) -> Array:
        x = jnp.asarray(x)
        if not bins or not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return jnp.round(x * bins).astype(jnp.int32)

    return jax.tree.map(leaf, obs)
