"""Meta-testing: train fresh agents with a learned rule on held-out levels.

Each agent trains on a single level for a fixed number of updates, its lifetime. The data of an
update come from W workers: parallel environments whose episodes continue across updates. The score
of an agent is the expected return of its final policy. The rule does not change during the test. As
a baseline, an ordinary learner such as A2C trains agents in the same way, on the same levels and
with the same random numbers.

Source: the protocol follows Oh et al., 2020, "Discovering Reinforcement Learning Algorithms", and
Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial
Environment Design".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlgen import registry
from rlgen.evaluation.episodes import Evaluation
from rlgen.levels import Suite
from rlgen.protocols import Learner, LevelEnv, RuleLearner
from rlgen.rollout import continue_rollout, evaluate_policy, is_exact, reset_slots
from rlgen.runs import folder
from rlgen.types import Key, PyTree

AGENTS_AT_A_TIME = 64
"""Number of agents trained in parallel; it affects results only through rounding."""

DEFAULT_LIFETIME = 250  # updates, for environments without `lifetime()`
CURVE_POINTS = 10  # a lifetime is divided into this many parts; metrics are means over a part

PROBES = {
    "entropy": "entropy of the policy, nats",
    "policy_step": "KL between policies before and after an update, nats",
    "policy_target_size": "mean size of the target π̂",
}
"""Metrics, with descriptions, that are recorded over a lifetime if the learner reports them."""


@dataclass(frozen=True)
class Protocol:
    """Settings for training agents in a meta-test.

    Attributes:
        lifetime: Number of updates of each agent; 0 for `env.lifetime()`, or 250 if the environment
            does not define it.
        attempts: Number A of agents per level and rule.
        num_workers: Number W of parallel environments per agent, all on the same level.
        num_steps: Number T of env steps per worker between two updates.
        seed: Seed of all random numbers. Use the same seed for all compared trainees.

    Raises:
        ValueError: A field is outside its range.
    """

    lifetime: int = 0
    attempts: int = 4
    num_workers: int = 64
    num_steps: int = 20
    seed: int = 0

    def __post_init__(self):
        for name, least in (("lifetime", 0), ("attempts", 1), ("num_workers", 1), ("num_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def life(self, env: LevelEnv) -> "Life":
        """Resolve the settings for one environment."""
        own = env.lifetime() if registry.has(env, LevelEnv.lifetime) else DEFAULT_LIFETIME
        return Life(self.lifetime or int(own), self.num_workers, self.num_steps)


class Life(NamedTuple):
    """Amount of one agent's training: updates, workers, and steps per worker and update."""

    num_updates: int
    num_workers: int = 64
    num_steps: int = 20


class Trained(NamedTuple):
    """Results of training one agent."""

    final_return: Float[Array, ""]  # expected undiscounted return of the final policy
    reward: Float[Array, " K"]  # mean reward per step in each of K equal parts of the lifetime
    probes: dict[str, Float[Array, " K"]]  # means of the `PROBES` that the learner reports


class Trainee(NamedTuple):
    """Rules to meta-test (such as the rules of a run, one per seed), or an ordinary learner."""

    label: str
    # Returns a learner for an environment, and the rules [S, ...]; an ordinary learner has () here.
    build: Callable[[LevelEnv], tuple[Learner, PyTree]]
    num_seeds: int  # S; for an ordinary learner, the number of groups of agents
    meta: dict[str, Any]  # provenance


def train_agent(
    key: Key, env: LevelEnv, learner: Learner, rule: PyTree, level: PyTree, life: Life
) -> Trained:
    """Train a fresh agent on one level for its whole lifetime.

    The function is not jitted and can be used with `vmap`. If many agents share a rule, do not map
    over the rule: the rule is then not batched, so each of its matrix products is computed once for
    all agents.

    Args:
        key: Random key, consumed.
        env: Environment.
        learner: Learner that trains the agent; it must be a `RuleLearner` if a rule is given.
        rule: Rule of one seed, or `()`.
        level: Single level.
        life: Number of updates, workers and steps.
    """
    key_init, key_begin, key_life, key_end = jax.random.split(key, 4)
    if jax.tree.leaves(rule):
        assert isinstance(learner, RuleLearner), "a rule requires a learner that follows rules"
        state = learner.init_with(key_init, rule)
    else:
        state = learner.init(key_init)
    # Every worker plays a queue of one level, [W, 1, ...].
    shape = (life.num_workers, 1)
    queue = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), level)
    running = reset_slots(key_begin, env, learner, queue)
    weight = jnp.ones(life.num_workers)  # every slot contributes gradients

    def update(carry: tuple, key: Key) -> tuple[tuple, dict[str, Array]]:
        state, running = carry
        key_play, key_learn = jax.random.split(key)
        played, running = continue_rollout(
            key_play, env, (learner, state), queue, running, life.num_steps
        )
        state, metrics = learner.update(key_learn, state, played, weight)
        told = {name: metrics[name] for name in PROBES if name in metrics}
        return (state, running), told | {"reward": played.reward.mean()}

    keys = jax.random.split(key_life, life.num_updates)
    # One value per update, [U], of the mean reward and of each probe.
    (state, _), told = jax.lax.scan(update, (state, running), keys)
    told = {name: _in_parts(x) for name, x in told.items()}
    reward = told.pop("reward")
    return Trained(evaluate_policy(key_end, env, learner, state, level)[0], reward, told)


def evaluate(
    trainee: Trainee,
    suites: Sequence[Suite],
    protocol: Protocol,
    name: str = "",
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Evaluation:
    """Train `attempts` fresh agents on every level of the suites, for every seed.

    Args:
        trainee: Rules or learner that train the agents.
        suites: One or more suites, each with its own environment. Their levels are concatenated.
        protocol: Settings of the training.
        name: Name for all suites together; by default the name of the first suite.
        progress: Called with the number of finished agents and their total.

    Returns:
        Evaluation whose `episode_return` [S, M, A] are the final returns, and whose `length` is the
        number of env steps that trained each agent. For each suite, `meta["curve"]` has the mean
        reward per step in K parts of the lifetime, [S, K], averaged over levels and agents.

    Raises:
        ValueError: The learner cannot act in one of the environments.
    """
    # The trainee is built for all suites first, so that errors are raised before compilation.
    built = [_for_life(*trainee.build(x.env), protocol.life(x.env)) for x in suites]
    total = trainee.num_seeds * protocol.attempts * sum(len(suite.levels) for suite in suites)
    counted = _Count(progress, total)
    found = [
        _on_suite(trainee, suite, made, protocol, counted)
        for suite, made in zip(suites, built, strict=True)
    ]
    lives = [protocol.life(suite.env) for suite in suites]
    length = [
        np.full_like(x.final_return, one.num_updates * one.num_workers * one.num_steps)
        for x, one in zip(found, lives, strict=True)
    ]
    levels = [suite.levels for suite in suites]
    return Evaluation(
        run=trainee.label,
        suite=name or suites[0].name,
        suite_version=", ".join(dict.fromkeys(x.version for x in levels)),
        level_names=level_names(suites),
        level_hashes=np.concatenate([np.asarray(x.hash) for x in levels]),
        optimal_steps=np.full(sum(map(len, levels)), -1),  # `length` counts training steps instead
        optimal_return=np.concatenate([np.asarray(x.optimal_return) for x in levels]),
        episode_return=np.concatenate([x.final_return for x in found], axis=1),
        length=np.concatenate(length, axis=1),
        meta=trainee.meta | _told(suites, built, lives, found, protocol),
    )


def _for_life(learner: Learner, rules: PyTree, life: Life) -> tuple[Learner, PyTree]:
    """Fit the learner's schedules to the number of updates in a lifetime."""
    return learner.spanning(life.num_updates), rules


def level_names(suites: Sequence[Suite]) -> tuple[str, ...]:
    """Names of all levels.

    If there are several suites, each name is prefixed by the name of its suite. A level that is the
    only one of its suite then gets the name of the suite.
    """
    if len(suites) == 1:
        return suites[0].levels.names
    names = []
    for suite in suites:
        inside = suite.name.rpartition("/")[2]
        single = len(suite.levels) == 1
        names += [inside] if single else [f"{inside}/{name}" for name in suite.levels.names]
    return tuple(names)


class _Count:
    """Counter of finished agents that reports progress."""

    def __init__(self, progress: Callable[[int, int], None], total: int):
        self.progress, self.done, self.total = progress, 0, total
        progress(0, total)  # report before compilation, which takes a while

    def add(self, num: int) -> None:
        self.done += num
        self.progress(self.done, self.total)


class _Found(NamedTuple):
    """Results of all agents on one suite; see `Trained`."""

    final_return: Float[np.ndarray, "S M A"]
    reward: Float[np.ndarray, "S M A K"]
    probes: dict[str, Float[np.ndarray, "S M A K"]]


def _on_suite(
    trainee: Trainee,
    suite: Suite,
    built: tuple[Learner, PyTree],
    protocol: Protocol,
    counted: _Count,
) -> _Found:
    learner, rules = built
    num_levels, attempts = len(suite.levels), protocol.attempts
    # Level and attempt index of each agent, [M * A].
    level, attempt = (x.ravel() for x in np.indices((num_levels, attempts)))
    life = protocol.life(suite.env)
    seeds = []
    for seed in range(trainee.num_seeds):
        rule = jax.tree.map(lambda x, seed=seed: jnp.asarray(x[seed]), rules)
        # The key depends only on the protocol's seed, so all trainees use the same random numbers.
        base = jax.random.fold_in(jax.random.key(protocol.seed), seed)
        parts = []
        for rows in _chunks(level.size):
            some = jax.tree.map(lambda x, at=level[rows]: jnp.asarray(x)[at], suite.levels.level)
            keys = _agent_keys(base, level[rows], attempt[rows])
            trained = _train_together(keys, rule, some, suite.env, learner, life)
            parts.append(jax.device_get(trained))
            counted.add(len(set(rows.tolist())))  # the set removes the padding of the last chunk
        seeds.append(jax.tree.map(lambda *x: np.concatenate(x)[: level.size], *parts))
    shape = (trainee.num_seeds, num_levels, attempts)
    final, reward, probes = jax.tree.map(lambda *x: np.concatenate(x), *seeds)
    probes = {name: x.reshape(*shape, -1) for name, x in probes.items()}
    return _Found(final.reshape(shape), reward.reshape(*shape, -1), probes)


@partial(jax.jit, static_argnames=("env", "learner", "life"))
def _train_together(
    keys: Key, rule: PyTree, level: PyTree, env: LevelEnv, learner: Learner, life: Life
) -> Trained:
    def one(key: Key, level: PyTree) -> Trained:
        return train_agent(key, env, learner, rule, level, life)

    return jax.vmap(one)(keys, level)


@jax.jit
def _agent_keys(base: Key, level: Int[Array, " B"], attempt: Int[Array, " B"]) -> Key:
    """Key of each agent; it depends only on the agent's seed, level index and attempt."""
    # A split key would depend on the position of the agent in its chunk.
    of_level = jax.vmap(jax.random.fold_in, (None, 0))(base, level)
    return jax.vmap(jax.random.fold_in)(of_level, attempt)


def _chunks(num: int) -> list[Int[np.ndarray, " B"]]:
    """Split agent indices into equal chunks, so that one compiled program can train every chunk.

    The last chunk is padded with copies of the last index.
    """
    parts = -(-num // AGENTS_AT_A_TIME)
    size = -(-num // parts)
    filled = np.minimum(np.arange(parts * size), num - 1)
    return np.split(filled, parts)


def _in_parts(x: Float[Array, " U"]) -> Float[Array, " K"]:
    """Means over K consecutive parts of nearly equal length."""
    parts = min(CURVE_POINTS, x.shape[0])
    part = jnp.arange(x.shape[0]) * parts // x.shape[0]  # part of each update, [U]
    total = jax.ops.segment_sum(x, part, parts)
    return total / jax.ops.segment_sum(jnp.ones_like(x), part, parts)


def _told(
    suites: Sequence[Suite],
    built: Sequence[tuple[Learner, PyTree]],
    lives: Sequence[Life],
    found: Sequence[_Found],
    protocol: Protocol,
) -> dict[str, Any]:
    """Metadata of a meta-test: its settings, versions, reward curves and probes."""
    names = [suite.name for suite in suites]
    exact = [is_exact(suite.env, made[0]) for suite, made in zip(suites, built, strict=True)]
    return {
        "agents": "fresh, one level each",
        "lifetime": {name: life.num_updates for name, life in zip(names, lives, strict=True)},
        "num_workers": protocol.num_workers,
        "num_steps": protocol.num_steps,
        "attempts": protocol.attempts,
        "evaluation_seed": protocol.seed,
        "returns": "exact" if all(exact) else "mean of 64 episodes",
        "versions": folder.versions(),
        "curve": {name: x.reward.mean(axis=(1, 2)) for name, x in zip(names, found, strict=True)},
        "probes": {
            name: {probe: values.mean(axis=(1, 2)) for probe, values in x.probes.items()}
            for name, x in zip(names, found, strict=True)
        },
    }
