"""Zero-shot evaluation: the policies of a run play held-out levels without further training."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen import registry
from rlgen.evaluation.episodes import BOUND, Evaluation
from rlgen.evaluation.suites import check_readable
from rlgen.levels import Suite
from rlgen.protocols import Learner, LevelEnv
from rlgen.rollout import EpisodeResult, play
from rlgen.runs import checkpoint, folder, program, training
from rlgen.types import Key, PyTree

EPISODES_AT_A_TIME = 2048
"""Number of episodes per seed in a batch. The random keys, and so the results, depend on this."""


class Policies(NamedTuple):
    """The trained (or untrained) policies of one run, one per seed."""

    label: str
    env: Any  # training environment
    learner: Learner
    states: PyTree  # [S, ...]
    meta: dict[str, Any]  # provenance: run, recipe, seeds, update, env steps


class EpisodeArrays(NamedTuple):
    """`rlgen.rollout.EpisodeResult` for S policies, M levels and A attempts."""

    episode_return: Float[np.ndarray, "S M A"]
    length: Int[np.ndarray, "S M A"]
    terminated: Bool[np.ndarray, "S M A"]


class Loaded(NamedTuple):
    """States of a run, either restored from a checkpoint or as they were before training."""

    label: str
    env: Any  # training environment
    curriculum: Any
    student: PyTree  # student states [S, ...], in host memory
    meta: dict[str, Any]
    sampler: PyTree = ()  # sampler states [S, ...], in host memory


def load_states(
    run: Path | str,
    at: int | None = None,
    untrained: bool = False,
    allow_imports: bool = False,
) -> Loaded:
    """Load a run's states from its folder; see `load_policies` for arguments and errors."""
    run = Path(run)
    record = folder.read(run)
    spec, env, curriculum = folder.rebuild(record, allow_imports)
    # Evaluation uses one device, even if the run was trained on several.
    spec = dataclasses.replace(spec, devices=1)
    name = run.name or str(run)
    meta = {
        "run": str(run),
        "recipe": spec.recipe,
        "seeds": [spec.seed, spec.seed + spec.seeds - 1],
    }
    if untrained:
        states = program.initial_states(spec, curriculum)
        name, meta = f"{name} (untrained)", meta | {"update": 0, "env_steps": 0}
    else:
        known = checkpoint.updates(run)
        if not known:
            raise ValueError(f"{run} has no checkpoint yet; train it further, or add --untrained")
        like = program.abstract_states(spec, curriculum)  # structure that the checkpoint must have
        update = known[-1] if at is None else at
        states, counters = training.restore(run, record, like, update)
        meta |= {"update": update, "env_steps": counters.steps_total}
    return Loaded(name, env, curriculum, states.student, meta, states.sampler)


def load_policies(
    run: Path | str,
    at: int | None = None,
    untrained: bool = False,
    allow_imports: bool = False,
) -> Policies:
    """Load the policies of a run from its folder.

    Args:
        run: Run folder.
        at: Update number of the checkpoint; by default the newest checkpoint.
        untrained: Whether to return the policies before their first update, as a baseline.
        allow_imports: Whether to import modules outside rlgen that the run's record names.

    Raises:
        ValueError: The folder is not a run, it has no checkpoint yet, or the checkpoint is damaged
            or belongs to another run.
    """
    return policies_of(load_states(run, at, untrained, allow_imports))


def policies_of(loaded: Loaded) -> Policies:
    """Extract the policies from loaded states and move them to the device."""
    # Replay buffers and optimiser states stay in host memory: only the policies are needed.
    learner, policy = loaded.curriculum.student.policy(loaded.student)
    return Policies(
        loaded.label, loaded.env, learner, jax.tree.map(jnp.asarray, policy), loaded.meta
    )


def evaluate(
    policies: Policies,
    suite: Suite,
    attempts: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """Play every level of a suite `attempts` times with every policy, sampling the actions.

    All combinations of levels and attempts are played in batches of at most `EPISODES_AT_A_TIME`
    episodes per seed. Environments are not reset when an episode ends. A batch stops when all its
    episodes have ended.

    Args:
        policies: Policies of S seeds.
        suite: Suite of M levels.
        attempts: Number A of episodes on each level.
        seed: Seed of the evaluation's random numbers. Use the same seed for all compared runs.
        progress: Called with the number of finished episodes and their total.

    Raises:
        ValueError: `attempts` is below 1, or the policies cannot act in the suite's environment.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    check_readable(policies.label, policies.env, suite)
    played = _play(policies, suite, attempts, seed, progress)
    own = suite.env.success if registry.has(suite.env, LevelEnv.success) else None
    success = (
        ()
        if own is None
        else np.asarray(own(*map(jnp.asarray, (played.episode_return, played.terminated))))
    )
    levels = suite.levels
    meta = policies.meta | {"evaluation_seed": seed, "attempts": attempts}
    meta |= {BOUND: True} if suite.env.optimum_is_bound else {}
    return Evaluation(
        run=policies.label,
        suite=suite.name,
        suite_version=levels.version,
        level_names=levels.names,
        level_hashes=np.asarray(levels.hash),
        optimal_steps=np.asarray(levels.optimal_steps),
        optimal_return=np.asarray(levels.optimal_return),
        episode_return=played.episode_return,
        length=played.length,
        success=success,
        meta=meta | {"versions": folder.versions()},
    )


def _play(
    policies: Policies,
    suite: Suite,
    attempts: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> EpisodeArrays:
    """Play all episodes; the axes of the results are seeds, levels and attempts."""
    num_seeds = jax.tree.leaves(policies.states)[0].shape[0]
    num_levels = len(suite.levels)
    # Level index of each episode, [M * A]. Attempts on one level are adjacent, so that they share a
    # batch. Their lengths are similar, and a batch runs until its longest episode ends.
    row = np.repeat(np.arange(num_levels), attempts)
    batches = _batches(row)
    # The longest time limit of the suite is a static argument, so all batches share one program.
    limit = int(np.max(np.asarray(suite.levels.level.max_steps_in_episode)))
    run = _compiled(policies.learner, suite.env, limit)
    level = jax.tree.map(jnp.asarray, suite.levels.level)
    found = []
    for i, rows in enumerate(batches):
        # The keys depend only on the batch and on the index of the seed, so all compared runs use
        # the same random numbers.
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), i), num_seeds)
        found.append(jax.device_get(run(keys, policies.states, level, rows)))
        progress(min((i + 1) * len(rows), row.size) * num_seeds, row.size * num_seeds)
    shape = (num_seeds, num_levels, attempts)
    # Each field of a batch is [S, B]. The slice drops the padding of the last batch.
    columns = (np.concatenate(x, axis=1)[:, : row.size] for x in zip(*found, strict=True))
    return EpisodeArrays(*(x.reshape(shape) for x in columns))


def _compiled(learner: Learner, env: LevelEnv, limit: int) -> Callable[..., EpisodeResult]:
    """Return a jitted function that plays selected rows of levels [M, ...] with policies [S, ...].

    Calls with equal arguments return the same function, so it is compiled only once.
    """
    try:
        return _shared(learner, env, limit)
    except TypeError:  # a component of the user that is not hashable cannot be a cache key
        return _program(learner, env, limit)


def _program(learner: Learner, env: LevelEnv, limit: int) -> Callable[..., EpisodeResult]:
    @jax.jit
    def run(keys: Key, states: PyTree, level: PyTree, rows: Int[Array, " B"]) -> EpisodeResult:
        levels = jax.tree.map(lambda x: x[rows], level)

        def one(key: Key, state: PyTree) -> EpisodeResult:
            return play(key, env, learner, state, levels, limit)

        return jax.vmap(one)(keys, states)

    return run


_shared = functools.lru_cache(maxsize=8)(_program)


def _batches(row: Int[np.ndarray, " E"]) -> list[Int[np.ndarray, " B"]]:
    """Split level indices into batches of equal size, so that one compiled program plays all.

    The last batch is padded with copies of the last index.
    """
    if row.size <= EPISODES_AT_A_TIME:
        return [row]
    num = -(-row.size // EPISODES_AT_A_TIME)
    filled = np.concatenate([row, np.full(num * EPISODES_AT_A_TIME - row.size, row[-1])])
    return np.split(filled, num)
