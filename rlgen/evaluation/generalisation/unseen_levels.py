"""Finite training sets and what goes with them: the set of a run, and levels that are not in it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.levels import LevelSet, exclude, take
from rlgen.protocols import LevelEnv, Student
from rlgen.types import Key, PyTree

_STREAM = 0x7E57  # of levels to test on; training sets are drawn from other keys
_ROUNDS = 4


def training_set(curriculum: Any) -> LevelSet | None:
    """The finite set that a curriculum trains on; None if there is none, or if it trains a rule."""
    if curriculum.student.offers(Student.learner_with_rule):
        return None
    return curriculum.sampler.level_set


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
    chosen = sampler.level_set
    if chosen is None:
        return None
    if sampler.is_set_sampled:
        return _fresh(env, chosen, num)
    known = env.suites()
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
        return level, jax.vmap(env.level_hash)(level)

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


def _shapes(levels: LevelSet) -> list:
    return [(x.shape[1:], x.dtype) for x in jax.tree.leaves(levels.level)]
