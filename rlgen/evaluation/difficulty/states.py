"""Sample states of a family's levels, labelled with their best actions, for kernel and table bits.

For kernel and table bits, see `rlgen.evaluation.difficulty.inductive_bias`.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from rlgen.evaluation.difficulty.levels import RandomActor
from rlgen.levels import words
from rlgen.protocols import LevelEnv
from rlgen.rollout import rollout
from rlgen.types import Key, PyTree

_BATCH = 128  # levels labelled at a time
_SPARE = 1.3  # levels sampled / levels needed; some levels are duplicates or have no solution
_ROUNDS = 8  # rounds of sampling before a family counts as too small
_WALK = (64, 64)  # number of levels and number of steps of random play


class TooFewError(ValueError):
    """A family has fewer levels than a card needs."""


class States(NamedTuple):
    """Observations and best actions of S states of each of K levels."""

    inputs: Float[np.ndarray, "K S F"]  # float32
    best: Bool[np.ndarray, "K S A"]  # mask of best actions
    words: list[int]  # hash of each level

    def take(self, rows: list[int]) -> "States":
        """Select levels by row."""
        return States(self.inputs[rows], self.best[rows], [self.words[i] for i in rows])


class Aliasing(NamedTuple):
    """Squared error caused by aliasing, relative to that of the constant answer 0.

    Observations are aliased if states with equal observations have different best actions.
    """

    floor: float  # lower bound of the error over all states
    of_repeated: float  # error over states whose observation occurs repeatedly; NaN if none does
    repeated: float  # fraction of states whose observation occurs repeatedly


class Draw(NamedTuple):
    """A training set and a test set that share no level."""

    train: States
    test: States  # one state of each level; all levels are different


def sampler(env: Any, num: int, states: int) -> Callable[[Key], States]:
    """Return a function that takes a key and samples levels with labelled states.

    The function samples `_SPARE` times `num` levels, rounded up to whole batches, and drops levels
    without a solution.

    Args:
        env: Environment of the levels.
        num: Number of levels needed.
        states: Number S of states per level.
    """
    flat, size = env.unpack, _BATCH * -(-round(_SPARE * num) // _BATCH)

    def one(key: Key) -> tuple[Array, Array, Array]:
        key_level, key_states, key_obs = jax.random.split(key, 3)
        level = env.sample_level(key_level)
        state, best = env.labelled_states(key_states, level, states)
        keys = jax.random.split(key_obs, states)
        obs = jax.vmap(lambda key, state: env.observe(key, state, None, level))(keys, state)
        return vectors(flat(obs), states), best, env.level_hash(level)

    run = jax.jit(lambda keys: jax.lax.map(one, keys, batch_size=_BATCH))

    def sample(key: Key) -> States:
        inputs, best, hashes = jax.device_get(run(jax.random.split(key, size)))
        kept = np.flatnonzero(best.any(2).all(1))  # every state has a best action
        found = words(hashes)
        return States(inputs[kept], best[kept], [found[i] for i in kept.tolist()])

    return sample


def draw(key: Key, sample: Callable[[Key], States], num_train: int, num_test: int) -> Draw:
    """Draw a training set and a test set.

    The first `num_test` different levels form the test set. The training set consists of the next
    levels that are not in the test set. Like an agent's training levels, it may contain duplicates.

    Raises:
        TooFewError: The family does not have enough levels with a solution.
    """
    parts: list[States] = []
    for i in range(_ROUNDS):
        parts.append(sample(jax.random.fold_in(key, i)))
        inputs = np.concatenate([part.inputs for part in parts])
        best = np.concatenate([part.best for part in parts])
        found = States(inputs, best, _words(parts))
        tests = _first_different(found.words, num_test)
        held = {found.words[row] for row in tests}
        rest = [row for row, word in enumerate(found.words) if word not in held]
        if len(tests) == num_test and len(rest) >= num_train:
            test = found.take(tests)
            test = States(test.inputs[:, :1], test.best[:, :1], test.words)
            return Draw(found.take(rest[:num_train]), test)
    raise TooFewError(
        f"the {len(_words(parts)):,} sampled levels with a solution do not contain {num_test} "
        f"different levels for testing and {num_train:,} other levels for training"
    )


def random_observations(key: Key, env: LevelEnv) -> Float[np.ndarray, "N F"]:
    """Return observations from random play, for families whose best actions are unknown."""
    num, steps = _WALK
    key_level, key_play = jax.random.split(key)
    flat, actor = env.unpack, RandomActor(env.num_actions)

    @jax.jit
    def run(key_level: Key, key_play: Key) -> Array:
        level = jax.vmap(env.sample_level)(jax.random.split(key_level, num))
        slots = jax.tree.map(lambda x: jnp.asarray(x)[:, None], level)
        played, _ = rollout(key_play, env, actor, (), slots, steps)
        obs = jax.tree.map(lambda x: x.reshape(num * steps, *x.shape[2:]), played.obs)
        return vectors(flat(obs), num * steps)

    return np.asarray(run(key_level, key_play))


def vectors(features: PyTree, num: int) -> Float[Array, "N F"]:
    """Flatten all leaves [N, ...] and concatenate them into one float32 vector per row."""
    leaves = [jnp.asarray(x, jnp.float32).reshape(num, -1) for x in jax.tree.leaves(features)]
    return jnp.concatenate(leaves, -1)


def targets(best: Bool[np.ndarray, "N A"]) -> Float[np.ndarray, "N A"]:
    """Regression targets of the kernel: y_a = 1[a optimal] / number of optimal actions - 1 / A."""
    return best / best.sum(1, keepdims=True) - 1 / best.shape[1]


def digests(inputs: Float[np.ndarray, "N F"]) -> list[bytes]:
    """Return a digest of 16 bytes for each row; equal rows have equal digests."""
    rows = np.ascontiguousarray(inputs + 0.0)  # turns -0.0 into 0.0, which has other bytes
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in rows]


def aliasing(observed: Sequence[Hashable], target: Float[np.ndarray, "N A"]) -> Aliasing:
    """Estimate the squared error that no function of the observation can avoid.

    For a group of states with equal observations, the estimate is the unbiased variance of the
    target. An observation that occurs only once is assumed to determine the target. The estimate
    over all states is therefore a lower bound.

    Args:
        observed: Hashable value for each state; equal values stand for equal observations.
        target: Target of each state.
    """
    place: dict[Hashable, int] = {}
    group = np.array([place.setdefault(one, len(place)) for one in observed])
    size = np.bincount(group).astype(float)
    mean = np.stack([np.bincount(group, column) for column in target.T], 1) / size[:, None]
    squares = np.bincount(group, ((target - mean[group]) ** 2).sum(1))
    repeated = size > 1
    # n / (n - 1) makes the sum of squares of each group unbiased.
    lost = float((squares[repeated] * size[repeated] / (size[repeated] - 1)).sum())
    square = (target**2).sum(1)
    of_repeated = float(square[repeated[group]].sum())
    return Aliasing(
        lost / float(square.sum()) if square.any() else 0.0,
        lost / of_repeated if of_repeated else math.nan,
        float(repeated[group].mean()),
    )


def _words(parts: list[States]) -> list[int]:
    return [word for part in parts for word in part.words]


def _first_different(found: list[int], num: int) -> list[int]:
    """Return the rows of the first `num` different values."""
    first: dict[int, int] = {}
    for row, word in enumerate(found):
        first.setdefault(word, row)
    return list(first.values())[:num]
