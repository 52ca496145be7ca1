"""Disjoint streams of levels for training, model selection and testing.

A stream is a named set of levels that is the same in every call:

    train        levels of the training distribution
    validation   further levels of this distribution, for the choice of settings or checkpoints
    test         further levels of this distribution, sealed
    ood-NAME     levels outside this distribution, sealed

Each evaluation on a sealed stream is counted (see `rlgen.runs.test_set_access`). Evaluations on the
other streams are not restricted.

A stream is drawn by rejection sampling. A level is rejected if it cannot be solved, or if it
occurred earlier in the stream or in an earlier stream. Rejected levels are counted by reason. The
levels of a stream are determined by the environment, the stream's name, the requested number and
the levels of earlier streams.
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
REASONS: tuple[str, ...] = (
    "repeated",
    "of an earlier stream",
    "unsolvable",
)  # to reject a level

_DRAWS = 12_800  # samples drawn before a family counts as too small
_BATCH = 128  # samples per call; another number would change the levels of a stream


class Stream(NamedTuple):
    """A suite of levels, with the numbers of levels that were rejected when it was drawn."""

    suite: Suite
    rejected: dict[str, int]  # number of rejected levels by reason (see `REASONS`)


class TooFewError(ValueError):
    """A family has fewer levels than a stream needs."""


def draw_streams(env: Any, names: Sequence[str], num: int, taken: set[int]) -> list[Stream]:
    """Draw streams of distinct, solvable levels from an environment's base distribution.

    Args:
        env: Environment whose `sample_level` draws the levels.
        names: Names of the streams, in order. The family and the name determine the random key.
        num: Number of levels in each stream.
        taken: Hashes (see `rlgen.levels.words`) of levels that must not occur. The hashes of the
            drawn levels are added to this set.

    Raises:
        TooFewError: The limited number of samples does not contain enough levels for a stream.
    """
    sample = _sampler(env)
    return [_draw(env, name, num, taken, sample) for name in names]


def _draw(env: Any, name: str, num: int, taken: set[int], sample: Callable) -> Stream:
    # CRC-32 is the same on every machine, unlike Python's `hash` of a string.
    key = jax.random.key(zlib.crc32(f"{family_of(env)}/{name}/v{VERSION}".encode()))
    rejected = Counter(dict.fromkeys(REASONS, 0))
    parts: list[tuple] = []
    own: set[int] = set()  # hashes of the levels accepted so far
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
            f"{family_of(env)} gave {len(own)} levels for the stream {name}, which needs {num}: "
            f"{_DRAWS:,} samples contained no more levels that are new and can be solved; request "
            "fewer with --levels"
        )
    taken |= own
    level, hashes, steps, best = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x)), *parts)
    labels = tuple(f"{name}-{i:04d}" for i in range(num))
    levels = LevelSet(level, hashes, steps, best, labels, name, VERSION)
    return Stream(Suite(f"{family_of(env)}/{name}", env, levels), dict(rejected))


def suite_stream(suite: Suite, name: str, num: int, taken: set[int]) -> Stream:
    """Build a stream of at most `num` levels of a suite.

    Levels that are in `taken` or cannot be solved are left out. The stream consists of evenly
    spaced levels among the remaining ones. The hashes of all remaining levels are added to `taken`.

    Raises:
        TooFewError: No level is left.
    """
    rejected = Counter(dict.fromkeys(REASONS, 0))
    can = np.asarray(suite.levels.optimal_steps) >= 0
    if not registry.has(suite.env, LevelEnv.solve):
        can[:] = True  # without a solver, -1 steps mean an unknown number
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
    """Return eight hexadecimal digits that identify a set of levels, independent of their order."""
    ordered = sorted(words(levels.hash))
    return f"{zlib.crc32(np.asarray(ordered, np.uint64).tobytes()):08x}"


def _sampler(env: Any) -> Callable:
    """Return a function of a key that samples `_BATCH` levels, their hashes and their solutions.

    If the environment has no solver, all levels count as solvable.
    """

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
    """Select the first `num` levels that are not rejected, and count why others are rejected.

    Args:
        found: Hashes of the candidate levels.
        solvable: Whether each candidate can be solved.
        num: Largest number of levels to select. Candidates after the last selected level are not
            examined.
        before: Hashes already in the stream, and hashes of earlier streams.
        rejected: Counter of reasons, updated in place.

    Returns:
        The row of each selected level by hash, in order.
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
