"""Finite training sets and what goes with them: the set of a run, and levels that are not in it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen import registry
from rlgen.levels import LevelSet, exclude, hash_of, take
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

_STREAM = 0x7E57  # of levels to test on; training sets are drawn from other keys
_ROUNDS = 4


def training_set(curriculum: Any) -> LevelSet | None:
    """The finite set that a curriculum trains on; None if there is none, or if it trains a rule."""
    if hasattr(curriculum.student, "learner_with_rule"):
        return None
    return getattr(curriculum.sampler, "level_set", None)


def some_levels(levels: LevelSet, num: int) -> LevelSet:
    """All levels of a set, or of a larger one `num` drawn at random, always the same."""
    if len(levels) <= num:
        return levels
    rows = np.random.default_rng(0).permutation(len(levels))[:num]
    return take(levels, np.sort(rows))


def unseen_levels(env: Any, sampler: Any, num: int) -> LevelSet | None:
    """At most `num` levels like those of a sampler's finite set, none of which is in it.

    For a set that was sampled from the family, fresh samples; for any other of an environment that
    has the suites `train` and `test`, the suite `test`; otherwise nothing is known of where the
    set's levels come from, and there are none.
    """
    chosen = getattr(sampler, "level_set", None)
    if chosen is None:
        return None
    if is_sampled(sampler):
        return _fresh(env, chosen, num)
    known = getattr(env, "suites")() if registry.has(env, "suites") else {}  # noqa: B009
    if not {"train", "test"} <= set(known):
        return None
    others = exclude(known["test"]().levels, chosen.hash)[0]
    alike = _shapes(others) == _shapes(chosen)
    return some_levels(others, num) if alike and len(others) else None


def _fresh(env: LevelEnv, chosen: LevelSet, num: int) -> LevelSet | None:
    """Fresh samples of the family; a few rounds, as a small one may hold no others."""

    @jax.jit
    def sample(keys: Key) -> tuple[PyTree, Array]:
        level = jax.vmap(env.sample_level)(keys)
        return level, jax.vmap(lambda one: hash_of(env, one))(level)

    others, found = take(chosen, []), []
    for i in range(_ROUNDS):
        key = jax.random.fold_in(jax.random.key(_STREAM), i)
        found.append(sample(jax.random.split(key, num)))
        level, hashes = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
        names = tuple(f"unseen-{n:04d}" for n in range(len(hashes)))
        # Nobody asks for the optima, and finding them takes seconds.
        unknown = (jnp.full(len(hashes), -1, jnp.int32), jnp.full(len(hashes), jnp.nan))
        others = exclude(LevelSet(level, hashes, *unknown, names), chosen.hash)[0]
        if len(others) >= num:
            break
    return take(others, slice(num)) if len(others) else None


def is_sampled(sampler: Any) -> bool:
    """Whether the set is of the environment's `sample_level`: not from a file or from elsewhere."""
    owner = _owner(sampler)
    given = getattr(owner, "levels", ())
    return getattr(owner, "path", None) == "" and not isinstance(given, LevelSet)


def _owner(sampler: Any) -> Any:
    """The innermost part of a sampler that has the set."""
    if not dataclasses.is_dataclass(sampler):
        return sampler
    parts = (getattr(sampler, field.name, None) for field in dataclasses.fields(sampler))
    inner = [part for part in parts if hasattr(part, "level_set")]
    return _owner(inner[0]) if inner else sampler


def _shapes(levels: LevelSet) -> list:
    return [(x.shape[1:], x.dtype) for x in jax.tree.leaves(levels.level)]
