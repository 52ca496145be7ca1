"""Generalisation gap, shift gap and level information of runs over a finite training set.

    generalisation gap   mean return on the training set minus mean return on unseen levels
    shift gap            mean return on drawn levels minus mean return on the training set
    level information    see `rlgen.evaluation.generalisation.level_information`

Drawn levels have the distribution from which the run's sampler draws levels during training. The
mean return on drawn levels is the sum of the mean return on unseen levels, the shift gap and the
generalisation gap.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", sections 2 and 3.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation.level_information import (
    Estimate,
    heldout,
    in_halves,
    online,
    play_on,
    some_features,
)
from rlgen.evaluation.generalisation.unseen_levels import some_levels, training_set
from rlgen.evaluation.stats.intervals import Interval, family, family_gap, with_binomial
from rlgen.evaluation.zero_shot import Loaded, Policies, evaluate, policies_of
from rlgen.levels import LevelSet, Suite
from rlgen.protocols import Learner, Sampler
from rlgen.rollout import play
from rlgen.types import Key, PyTree

MOST_LEVELS = 512  # largest number of levels of a training set or a buffer that are played
# The remaining constants concern the rollouts from which level information is estimated.
_LONGEST = 256  # steps of a rollout
_BLOCK = 128  # at most 2 * _BLOCK slots are played in parallel
_FEWEST_SLOTS = 256  # for a small set, each level is played in several slots to reach this number
_KEPT_STEPS = 16  # steps of each slot that are used


class Gap(NamedTuple):
    """Mean scores on the training set and on unseen levels, and the difference of these means.

    The intervals describe random seeds and random levels of the two distributions (see
    `rlgen.evaluation.stats.intervals.family`). With one seed, they cover only the levels.
    """

    train: Interval  # mean over seeds and training levels
    test: Interval  # mean over seeds and unseen levels
    gap: Interval  # train minus test, with the same seeds on both sides
    per_seed: Float[np.ndarray, " S"]  # train minus test of each seed


class LevelInformation(NamedTuple):
    """Level information of each seed, in nats."""

    per_seed: Float[np.ndarray, " S"]  # clipped at 0
    raw: Float[np.ndarray, " S"]  # before clipping
    online: Float[np.ndarray, " S"]  # estimate of Garcin et al.'s code, before clipping
    accuracy: Float[np.ndarray, " S"]  # accuracy of the classifier on held-out episodes
    most: float  # upper bound, the logarithm ln n of the number n of levels


class Gaps(NamedTuple):
    """Gaps of one run between its finite training set and a suite; `()` where unknown."""

    run: str
    num_levels: int  # levels in the training set
    num_played: int  # levels of the training set that were played
    num_unseen: int  # levels of the suite that are not in the training set
    num_suite: int  # levels of the suite
    returns: Gap
    solve_rate: Gap | tuple[()]
    information: LevelInformation | tuple[()]
    shift_gap: Float[np.ndarray, " S"] | tuple[()]  # in units of return


def measure(
    loaded: Loaded,
    tested: Evaluation,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
    reference: Suite | None = None,
) -> Gaps | None:
    """Play a run's training set and compute the gaps between this set and a suite.

    If the set has more than 512 levels, 512 of them are played, the same ones in every call. Levels
    of the suite that are in the training set do not count as unseen.

    Args:
        loaded: Contents of the run's folder.
        tested: Evaluation of the run's policies on the suite. The training set is played with the
            same number of attempts.
        seed: Seed of the evaluation's random numbers.
        progress: Callback that receives the number of episodes done and the total.
        reference: Suite whose levels are used instead of the run's training set, and played in the
            suite's environment. For example, a run without a training set can be measured on the
            set of another run.

    Returns:
        The gaps, or None if there is no training set or the suite has no unseen level.
    """
    own = training_set(loaded.curriculum)
    chosen = own if reference is None else reference.levels
    env = loaded.env if reference is None else reference.env
    if chosen is None or not _unseen(chosen, tested).any():
        return None
    levels, policies = some_levels(chosen, MOST_LEVELS), policies_of(loaded)
    attempts = tested.shape[2]
    played = evaluate(policies, Suite("train", env, levels), attempts, seed, progress)
    return gaps_of(played, tested, chosen)._replace(
        information=level_information(policies._replace(env=env), levels, seed),
        shift_gap=shift_gap(loaded, policies, played, seed, own is not None),
    )


def gaps_of(
    train: Evaluation, test: Evaluation, chosen: LevelSet, confidence: float = 0.95
) -> Gaps:
    """Compute the gaps between two evaluations of the same policies.

    Level information and the shift gap are left empty.

    Args:
        train: Evaluation on the training set or on a part of it.
        test: Evaluation on a suite. Only levels outside the training set are used.
        chosen: The whole training set.
        confidence: Confidence level of the intervals, between 0 and 1.

    Raises:
        ValueError: Every level of the suite is in the training set.
    """
    unseen = _unseen(chosen, test)
    if not unseen.any():
        raise ValueError(
            f"every level of {test.suite} is in the training set; evaluate {train.run} on another "
            "suite"
        )
    gap = _gap(train.episode_return, test.episode_return[:, unseen], confidence)
    solved: Gap | tuple[()] = ()
    if not isinstance(train.success, tuple) and not isinstance(test.success, tuple):
        sides = (train.success.astype(float), test.success[:, unseen].astype(float))
        solved = _gap_in_solve_rate(*sides, confidence)
    played, suite = train.shape[1], test.shape[1]
    return Gaps(test.run, len(chosen), played, int(unseen.sum()), suite, gap, solved, (), ())


def level_information(policies: Policies, levels: LevelSet, seed: int = 0) -> Any:
    """Estimate the level information of each policy on a set of levels.

    Every level is played in an even number of slots. Half of these slots are used to fit the
    classifier and the other half to test it, and then the halves are exchanged.

    Returns:
        A `LevelInformation`, or `()` if the learner has no features or there is only one level.
    """
    num_levels = len(levels)
    if not policies.learner.offers(Learner.features) or num_levels < 2:
        return ()
    collect = _collector(policies, levels)
    estimate = jax.jit(_both, static_argnums=3)
    found = []
    for s in range(jax.tree.leaves(policies.states)[0].shape[0]):
        state = jax.tree.map(lambda x, s=s: x[s], policies.states)
        key_play, key_fit = jax.random.split(jax.random.fold_in(jax.random.key(seed), s))
        feature, label = in_halves(collect(key_play, state), num_levels)
        found.append(jax.device_get(estimate(key_fit, feature, label, num_levels)))
    raw, accuracy, published = np.array(found, np.float64).T
    most = math.log(num_levels)
    return LevelInformation(np.maximum(raw, 0.0), raw, published, accuracy, most)


def shift_gap(
    loaded: Loaded, policies: Policies, train: Evaluation, seed: int = 0, has_set: bool = True
) -> Float[np.ndarray, " S"] | tuple[()]:
    """Compute the shift gap: mean return on drawn levels minus mean return on the training set.

    A sampler without a buffer draws the levels of its set uniformly, so its shift gap is 0. For any
    other sampler, the levels of its buffer are played and weighted with its `replay_probability`.
    If more than 512 levels can be drawn, 512 draws are played instead.

    Args:
        loaded: Contents of the run's folder.
        policies: Policies of the run.
        train: Evaluation of the policies on the training set.
        seed: Seed of the evaluation's random numbers.
        has_set: Whether the run has its own training set.

    Returns:
        One value per seed. The result is `()` if the sampler has neither a buffer nor a set. It is
        also `()` if the sampler has a buffer but no valid `replay_probability`.
    """
    sampler, states = loaded.curriculum.sampler, loaded.sampler
    buffer = sampler.buffer(states)
    if buffer is None:
        return np.zeros(train.shape[0]) if has_set else ()
    if not sampler.offers(Sampler.replay_probability):
        return ()
    probability = np.asarray(jax.jit(jax.vmap(sampler.replay_probability))(states))
    if not np.isfinite(probability).all() or (probability.sum(1) <= 0).any():
        return ()
    row, weight = _drawn(probability, seed)
    level = jax.tree.map(lambda x: np.asarray(x)[np.arange(len(row))[:, None], row], buffer.level)
    found = _play_own(policies, level, train.shape[2], seed)
    return (weight * found).sum(axis=1) - train.episode_return.mean(axis=(1, 2))


def _unseen(chosen: LevelSet, tested: Evaluation) -> Bool[np.ndarray, " M"]:
    """Return a mask of the levels of a suite whose hashes do not occur in a training set."""
    seen = {bytes(bits) for bits in np.asarray(chosen.hash, np.uint32)}
    return np.array([bytes(bits) not in seen for bits in tested.level_hashes])


def _gap(x: np.ndarray, y: np.ndarray, confidence: float) -> Gap:
    """Return the gap between scores [S, M, A] on the training set and [S, K, B] on a suite."""
    train, test = (one.mean(axis=-1, dtype=np.float64) for one in (x, y))
    return Gap(
        family(train, confidence),
        family(test, confidence),
        family_gap(train, test, confidence),
        train.mean(axis=1) - test.mean(axis=1),
    )


def _gap_in_solve_rate(x: np.ndarray, y: np.ndarray, confidence: float) -> Gap:
    """Like `_gap`, for flags of success; a side without variation has a binomial interval."""
    found = _gap(x, y, confidence)
    train, test = (
        with_binomial(one, np.asarray(solved.sum(), int), solved.size, confidence).clipped(0.0, 1.0)
        for one, solved in ((found.train, x), (found.test, y))
    )
    return Gap(train, test, found.gap.clipped(-1.0, 1.0), found.per_seed)


def _both(
    key: Key, feature: Float[Array, "2 B F"], label: Int[Array, "2 B"], num_levels: int
) -> tuple[Array, Array, Array]:
    """Return the raw estimate and the accuracy of `heldout`, and the raw estimate of `online`."""
    found = heldout(feature, label, num_levels)
    flat = feature.reshape(-1, feature.shape[-1]), label.ravel()
    published: Estimate = online(key, *flat, num_levels)
    return found.raw, found.accuracy, published.raw


def _collector(policies: Policies, levels: LevelSet) -> Any:
    """Return a function `(key, policy state) -> features [K, N, F]`.

    The function plays the policy in N slots. It returns the learner's F features at K steps of each
    slot. Slot i of the N slots plays level i mod n, where n is the number of levels.
    """
    env, learner, num_levels = policies.env, policies.learner, len(levels)
    num_steps = min(int(np.max(np.asarray(levels.level.max_steps_in_episode))), _LONGEST)
    # The number of slots per level is even, so that each level is in both halves. -(-a // b) is
    # a / b rounded up.
    repeats = 2 * max(1, -(-_FEWEST_SLOTS // (2 * num_levels)))
    num_slots = repeats * num_levels
    num_blocks = -(-num_slots // (2 * _BLOCK))
    size = -(-num_slots // num_blocks)
    # Blocks have equal size, so that one program serves all. Slots that only pad the last block
    # are dropped at the end.
    row = np.minimum(np.arange(num_blocks * size), num_slots - 1) % num_levels
    row = row.reshape(num_blocks, size)

    @jax.jit
    def collect(key: Key, state: PyTree) -> Float[Array, "K N F"]:
        def block(args: tuple) -> Array:
            key, rows = args
            key_play, key_pick = jax.random.split(key)
            level = jax.tree.map(lambda x: jnp.asarray(x)[rows], levels.level)
            played = play_on(key_play, env, learner, state, level, num_steps)
            return some_features(key_pick, learner, state, played.obs, played.first, _KEPT_STEPS)

        found = jax.lax.map(block, (jax.random.split(key, num_blocks), jnp.asarray(row)))
        kept = found.swapaxes(0, 1).reshape(found.shape[1], -1, found.shape[-1])
        return kept[:, :num_slots]

    return collect


def _drawn(
    probability: Float[np.ndarray, "S K"], seed: int
) -> tuple[Int[np.ndarray, "S M"], Float[np.ndarray, "S M"]]:
    """Choose the buffer rows to play for each seed, and their weights, which sum to 1 per seed.

    If at most `MOST_LEVELS` rows have positive probability, all of them are chosen, with their
    probabilities as weights. Otherwise `MOST_LEVELS` rows are drawn from the probabilities, with
    replacement, and have equal weights.
    """
    probability = probability.astype(np.float64)
    probability /= probability.sum(axis=1, keepdims=True)
    num = min((probability > 0).sum(axis=1).max(), MOST_LEVELS)
    if (probability > 0).sum(axis=1).max() <= num:
        # A seed with fewer rows of positive probability is padded with rows of weight 0.
        row = np.argsort(-probability, axis=1, kind="stable")[:, :num]
        return row, np.take_along_axis(probability, row, axis=1)
    rng = np.random.default_rng(seed)
    row = np.stack([rng.choice(len(p), num, p=p) for p in probability])
    return row, np.full(row.shape, 1.0 / num)


def _play_own(
    policies: Policies, level: PyTree, attempts: int, seed: int
) -> Float[np.ndarray, "S M"]:
    """Mean return of each policy on its own levels [S, M, ...]."""
    env, learner = policies.env, policies.learner
    limit = int(np.max(np.asarray(level.max_steps_in_episode)))

    @jax.jit
    def run(keys: Key) -> Float[Array, "S M"]:
        def one(args: tuple) -> Array:
            key, state, levels = args
            return play(key, env, learner, state, levels, limit).episode_return

        own = jax.tree.map(jnp.asarray, level)
        return jax.lax.map(one, (keys, policies.states, own))

    num_seeds = jax.tree.leaves(level)[0].shape[0]
    found = [
        run(jax.random.split(jax.random.fold_in(jax.random.key(seed), i), num_seeds))
        for i in range(attempts)
    ]
    return np.mean(np.asarray(found, np.float64), axis=0)
