"""The finite level set that a run trains on, and levels of the same kind outside this set."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.levels import LevelSet, exclude, take
from rlgen.protocols import LevelEnv, Student
from rlgen.types import Key, PyTree

_STREAM = 0x7E57  # base key of unseen levels; training sets are drawn from other keys
_ROUNDS = 4  # rounds of sampling before a family counts as exhausted


def training_set(curriculum: Any) -> LevelSet | None:
    """Return the finite level set that a curriculum trains on.

    Returns None if the curriculum has no such set, or if it trains a learned rule.
    """
    if curriculum.student.offers(Student.learner_with_rule):
        return None
    return curriculum.sampler.level_set


def some_levels(levels: LevelSet, num: int) -> LevelSet:
    """Return a fixed random choice of `num` levels of a set; a smaller set is returned whole."""
    if len(levels) <= num:
        return levels
    rows = np.random.default_rng(0).permutation(len(levels))[:num]
    return take(levels, np.sort(rows))  # in the order of the set


def unseen_levels(env: Any, sampler: Any, num: int) -> LevelSet | None:
    """Return at most `num` levels of the same kind as a sampler's finite set, but outside the set.

    If the set was sampled from the family, the result consists of new samples. Otherwise, if the
    environment has the suites `train` and `test`, it consists of levels of the suite `test`. In all
    other cases the origin of the set is unknown, and the result is None. The result is also None if
    there is no finite set or no level is left.
    """
    chosen = sampler.level_set
    if chosen is None:
        return None
    if sampler.is_set_sampled:
        return _fresh(env, chosen, num)
    known = env.suites()
    if not {"train", "test"} <= set(known):
        return None
    others = exclude(known["test"]().levels, chosen.hash)[0]
    alike = _shapes(others) == _shapes(chosen)  # levels from a file may have another size
    return some_levels(others, num) if alike and len(others) else None


def _fresh(env: LevelEnv, chosen: LevelSet, num: int) -> LevelSet | None:
    """Sample distinct levels of the family that are not in the set.

    Sampling stops when `num` such levels are found. It also stops after `_ROUNDS` rounds, because a
    small family may have fewer than `num` such levels.
    """

    @jax.jit
    def sample(keys: Key) -> tuple[PyTree, Array]:
        level = jax.vmap(env.sample_level)(keys)
        return level, jax.vmap(env.level_hash)(level)

    others, found = take(chosen, []), []
    for i in range(_ROUNDS):
        key = jax.random.fold_in(jax.random.key(_STREAM), i)
        found.append(sample(jax.random.split(key, num)))
        level, hashes = jax.tree.map(lambda *x: jnp.concatenate(x), *found)
        names = tuple(f"unseen-{n:04d}" for n in range(len(hashes)))
        # The optima are not needed, and solving the levels would take seconds.
        unknown = (jnp.full(len(hashes), -1, jnp.int32), jnp.full(len(hashes), jnp.nan))
        others = exclude(LevelSet(level, hashes, *unknown, names), chosen.hash)[0]
        if len(others) >= num:
            break
    return take(others, slice(num)) if len(others) else None


def _shapes(levels: LevelSet) -> list:
    """Return the shape and dtype of each array of a single level."""
    return [(x.shape[1:], x.dtype) for x in jax.tree.leaves(levels.level)]
