"""Streams of levels that share none: to train on, to choose by, to be judged by.

    train        levels of the training distribution, for whoever needs some
    validation   others: look at them as often as you like, to choose settings or checkpoints
    test         others, sealed: every look is counted (`rlgen.runs.test_set_access`)
    ood-NAME     beyond the training distribution, sealed as well

A stream is drawn by rejection: a level that came before in it or in an earlier stream, or that
cannot be solved, is drawn anew, and it is counted how many were. A name, the number asked for and
the levels before it settle which levels of an environment come, for ever.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from rlgen import registry
from rlgen.evaluation.suites import family_of
from rlgen.levels import LevelSet, Suite, take, words
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree, Solution

VERSION = "1"
REASONS: tuple[str, ...] = ("repeated", "of an earlier stream", "unsolvable")

_DRAWS = 12_800  # samples that are looked at before a family counts as too small
_BATCH = 128


class Stream(NamedTuple):
    """A suite, and what it took to make it."""

    suite: Suite
    rejected: dict[str, int]  # levels by reason, those of `REASONS`


class TooFewError(ValueError):
    """A family has fewer levels than a stream asks for."""


def draw_streams(env: Any, names: Sequence[str], num: int, taken: set[int]) -> list[Stream]:
    """Streams of distinct, solvable levels of an environment's base distribution.

    Args:
        env: whose `sample_level` is drawn from.
        names: of the streams, in order; with the family a name decides which levels come.
        num: levels of each.
        taken: hashes (see `rlgen.levels.words`) of levels that must not occur; those of
            the streams are added.

    Raises:
        TooFewError: so many were not found among some thousands.
    """
    sample = _sampler(env)
    return [_draw(env, name, num, taken, sample) for name in names]


def _draw(env: Any, name: str, num: int, taken: set[int], sample: Callable) -> Stream:
    key = jax.random.key(zlib.crc32(f"{family_of(env)}/{name}/v{VERSION}".encode()))
    rejected = Counter(dict.fromkeys(REASONS, 0))
    parts: list[tuple] = []
    own: set[int] = set()
    for i in range(_DRAWS // _BATCH):
        level, hashes, solution = sample(jax.random.fold_in(key, i))
        new = _chosen(words(hashes), solution.solvable, num - len(own), (own, taken), rejected)
        rows = np.array(list(new.values()), int)
        part = (level, hashes, solution.steps, solution.optimal_return)
        parts.append(jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], part))
        own |= set(new)
        if len(own) == num:
            break
    if len(own) < num:
        raise TooFewError(
            f"{family_of(env)} gave {len(own)} levels for the stream {name}, which asks for {num}: "
            f"among some {_DRAWS:,} samples there were no more that are new and can be solved; ask "
            "for fewer with --levels"
        )
    taken |= own
    level, hashes, steps, best = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)
    labels = tuple(f"{name}-{i:04d}" for i in range(num))
    levels = LevelSet(level, hashes, steps, best, labels, name, VERSION)
    return Stream(Suite(f"{family_of(env)}/{name}", env, levels), dict(rejected))


def suite_stream(suite: Suite, name: str, num: int, taken: set[int]) -> Stream:
    """At most `num` levels of a suite, evenly spread over it, none of which is taken.

    Raises:
        TooFewError: none is left.
    """
    rejected = Counter(dict.fromkeys(REASONS, 0))
    can = np.asarray(suite.levels.optimal_steps) >= 0
    if not registry.has(suite.env, LevelEnv.solve):
        can[:] = True
    found = words(suite.levels.hash)
    own = _chosen(found, can, len(found), (set(), taken), rejected)
    if not own:
        raise TooFewError(
            f"every level of {suite.name} is in an earlier stream or cannot be solved"
        )
    taken |= set(own)
    rows = np.array(list(own.values()))
    spread = np.unique(np.linspace(0, len(rows) - 1, min(num, len(rows))).round().astype(int))
    levels = replace(take(suite.levels, rows[spread]), split=name)
    made = Suite(f"{family_of(suite.env)}/{name}", suite.env, levels)
    return Stream(made, dict(rejected))


def digest(levels: LevelSet) -> str:
    """Eight hexadecimal digits of a set's hashes, whatever their order."""
    ordered = sorted(words(levels.hash))
    return f"{zlib.crc32(np.asarray(ordered, np.uint64).tobytes()):08x}"


def _sampler(env: Any) -> Callable:
    """Gives `_BATCH` levels, their hashes and solutions; without a solver all count as solvable."""

    @jax.jit
    @jax.vmap
    def sample(key: Key) -> tuple[PyTree, Array, Solution]:
        level = env.sample_level(key)
        unknown = Solution(jnp.bool_(True), jnp.int32(-1), jnp.float32(jnp.nan))
        solution = env.solve(level) if registry.has(env, LevelEnv.solve) else unknown
        return level, env.level_hash(level), solution

    return lambda key: jax.device_get(sample(jax.random.split(key, _BATCH)))


def _chosen(
    found: list[int],
    solvable: Bool[np.ndarray, " B"],
    num: int,
    before: tuple[set[int], set[int]],
    rejected: Counter[str],
) -> dict[int, int]:
    """Hash and row of the first `num` levels that are not rejected; of the others the reasons.

    Args:
        found: hashes.
        solvable: of each.
        num: most that are chosen; what comes after them is not looked at.
        before: hashes that the stream has, and those of earlier streams.
        rejected: reasons are added to it.
    """
    stream, taken = before
    own: dict[int, int] = {}
    for row, (word, can) in enumerate(zip(found, solvable, strict=True)):
        if len(own) == num:
            break
        if word in own or word in stream:
            rejected["repeated"] += 1
        elif word in taken:
            rejected["of an earlier stream"] += 1
        elif not can:
            rejected["unsolvable"] += 1
        else:
            own[word] = row
    return own
