"""What a policy owes to the levels that it was trained on: gaps, and information about levels.

    generalisation gap   mean return on the training set less that on levels outside it
    shift gap            mean return on levels as the sampler draws them less that on the set
    level information    see `rlgen.evaluation.generalisation.level_information`

The first two add up: return as drawn = return on unseen levels + shift gap + generalisation gap.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", sections 2 and 3.
"""

import math
from collections.abc import Callable
from dataclasses import replace
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
from rlgen.evaluation.stats.bootstrap import DEFAULT, Bootstrap, Interval, mean
from rlgen.evaluation.zero_shot import Loaded, Policies, evaluate, policies_of
from rlgen.levels import LevelSet, Suite
from rlgen.protocols import Learner, Sampler
from rlgen.rollout import play
from rlgen.types import Key, PyTree

MOST_LEVELS = 512  # of a training set, and of a buffer, that are played
_LONGEST = 256  # steps of the play from which level information is estimated
_BLOCK = 128  # levels of it that are played side by side
_FEWEST_SLOTS = 256  # for it: few levels are played in more slots each
_KEPT_STEPS = 16  # of each slot


class Gap(NamedTuple):
    """Means over seeds and levels of one number, and their difference."""

    train: Interval
    test: Interval
    gap: Interval  # train less test; levels are drawn too, as it speaks of the family
    whole_seeds: Interval  # the same with whole seeds drawn and the levels as they are
    per_seed: Float[np.ndarray, " S"]


class LevelInformation(NamedTuple):
    """I(L; b) in nats, of each seed."""

    per_seed: Float[np.ndarray, " S"]  # cut off at 0
    raw: Float[np.ndarray, " S"]  # before that
    online: Float[np.ndarray, " S"]  # by the published procedure, raw
    accuracy: Float[np.ndarray, " S"]  # of the classifier on episodes that it has not seen
    most: float  # ln of the number of levels


class Gaps(NamedTuple):
    """One run over a finite training set, and a suite; `()` for what is unknown."""

    run: str
    num_levels: int  # of the training set
    num_played: int  # of these
    num_unseen: int  # of the suite's, those that are not in the set
    num_suite: int
    returns: Gap
    solve_rate: Gap | tuple[()]
    information: LevelInformation | tuple[()]
    shift_gap: Float[np.ndarray, " S"] | tuple[()]  # of returns


def measure(
    loaded: Loaded,
    tested: Evaluation,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
    reference: LevelSet | None = None,
) -> Gaps | None:
    """Play a run's training set and say what the run owes to it; None if there is nothing to say.

    Of a set of more than 512 levels, 512 are played, always the same. Levels of a suite that the
    run was trained on do not count as unseen; if there are no others, nothing is measured.

    Args:
        loaded: what the run's folder holds.
        tested: its policies on a suite; the set is played as many times.
        seed: of the evaluation's random numbers.
        progress: called with the episodes done and all of them.
        reference: another set in the place of the run's own, say to see how far a run without a set
            does better on one that others have.
    """
    own = training_set(loaded.curriculum)
    chosen = own if reference is None else reference
    if chosen is None or not _unseen(chosen, tested).any():
        return None
    levels, policies = some_levels(chosen, MOST_LEVELS), policies_of(loaded)
    attempts = tested.shape[2]
    played = evaluate(policies, Suite("train", loaded.env, levels), attempts, seed, progress)
    return gaps_of(played, tested, chosen)._replace(
        information=level_information(policies, levels, seed),
        shift_gap=shift_gap(loaded, policies, played, seed, own is not None),
    )


def gaps_of(
    train: Evaluation, test: Evaluation, chosen: LevelSet, bootstrap: Bootstrap = DEFAULT
) -> Gaps:
    """The gaps between two evaluations of the same policies; information and shift left out.

    Args:
        train: on the training set or a part of it.
        test: on a suite, of which only levels outside the training set count.
        chosen: the whole training set.
        bootstrap: of intervals.

    Raises:
        ValueError: every level of the suite is in the training set.
    """
    unseen = _unseen(chosen, test)
    if not unseen.any():
        raise ValueError(f"{test.suite} has no level that {train.run} was not trained on")
    gap = _gap(train.episode_return, test.episode_return[:, unseen], bootstrap)
    solved: Gap | tuple[()] = ()
    if not isinstance(train.success, tuple) and not isinstance(test.success, tuple):
        sides = (train.success.astype(float), test.success[:, unseen].astype(float))
        solved = _gap(*sides, bootstrap)
    played, suite = train.shape[1], test.shape[1]
    return Gaps(test.run, len(chosen), played, int(unseen.sum()), suite, gap, solved, (), ())


def level_information(policies: Policies, levels: LevelSet, seed: int = 0) -> Any:
    """The level information of each policy on a set of levels; `()` of learners without features.

    Every level is played in two or more slots, whose episodes make the two halves.
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
    """Return on levels as the sampler draws them less that on its training set, of each seed.

    0 of samplers of a set without a buffer, which draw uniformly; of others by playing the buffer's
    levels (of more than 512 that may be drawn, 512 draws) and the sampler's `replay_probability`;
    `()` where it has none.
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
    """Which levels of a suite are not in a training set."""
    seen = {bytes(bits) for bits in np.asarray(chosen.hash, np.uint32)}
    return np.array([bytes(bits) not in seen for bits in tested.level_hashes])


def _gap(x: np.ndarray, y: np.ndarray, bootstrap: Bootstrap) -> Gap:
    rng = np.random.default_rng(0)
    with_levels = replace(bootstrap, resample_levels=True)
    difference = with_levels.gap(rng, x, y)
    unknown = np.full_like(difference.value, np.nan)
    wide = Interval(difference.value, unknown, unknown, "none")
    if len(x) > 1:
        wide = replace(bootstrap, over="whole-seeds", resample_levels=False).gap(rng, x, y)
    train, test = (with_levels.interval(rng, mean, side) for side in (x, y))
    return Gap(train, test, difference, wide, x.mean(axis=(1, 2)) - y.mean(axis=(1, 2)))


def _both(
    key: Key, feature: Float[Array, "2 B F"], label: Int[Array, "2 B"], num_levels: int
) -> tuple[Array, Array, Array]:
    found = heldout(feature, label, num_levels)
    flat = feature.reshape(-1, feature.shape[-1]), label.ravel()
    published: Estimate = online(key, *flat, num_levels)
    return found.raw, found.accuracy, published.raw


def _collector(policies: Policies, levels: LevelSet) -> Any:
    """`(key, policy) -> features [K, N, F]` of slots that play the levels in turn."""
    env, learner, num_levels = policies.env, policies.learner, len(levels)
    num_steps = min(int(np.max(np.asarray(levels.level.max_steps_in_episode))), _LONGEST)
    repeats = 2 * max(1, -(-_FEWEST_SLOTS // (2 * num_levels)))
    num_slots = repeats * num_levels
    num_blocks = -(-num_slots // (2 * _BLOCK))
    size = -(-num_slots // num_blocks)
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
    """Rows to play of each seed's buffer, and their weights, which sum to 1."""
    probability = probability.astype(np.float64)
    probability /= probability.sum(axis=1, keepdims=True)
    num = min((probability > 0).sum(axis=1).max(), MOST_LEVELS)
    if (probability > 0).sum(axis=1).max() <= num:
        row = np.argsort(-probability, axis=1, kind="stable")[:, :num]
        return row, np.take_along_axis(probability, row, axis=1)
    rng = np.random.default_rng(seed)
    row = np.stack([rng.choice(len(p), num, p=p) for p in probability])
    return row, np.full(row.shape, 1.0 / num)


def _play_own(
    policies: Policies, level: PyTree, attempts: int, seed: int
) -> Float[np.ndarray, "S M"]:
    """Mean return of each policy on levels of its own [S, M, ...]."""
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
