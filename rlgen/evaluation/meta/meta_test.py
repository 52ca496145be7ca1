"""Meta-testing: fresh agents are trained by a frozen rule on held-out levels, each level by itself.

An agent is born with a level, learns on it for a lifetime of updates from the rollouts of W workers
whose episodes run on from one update to the next, and is judged by the expected return of the
policy that it ends with. The rule never changes. Ordinary learners (A2C) are trained the same way,
on the same levels, with the same random numbers, to be compared with.

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
"""Agents that are trained side by side; of no influence on the result but for rounding."""

DEFAULT_LIFETIME = 250  # updates, where the environment does not say
CURVE_POINTS = 10

PROBES = {
    "entropy": "entropy of the policy, nats",
    "policy_step": "KL of an update's policies, nats",
    "policy_target_size": "mean size of the target π̂",
}
"""What is kept of the updates of an agent's life, of learners whose metrics have them."""


@dataclass(frozen=True)
class Protocol:
    """How agents are trained in a meta-test.

    Attributes:
        lifetime: updates of each agent; 0 for the environment's own, `env.lifetime()`, or 250.
        attempts: A, agents on each level for each rule.
        num_workers: W, environments of each agent, all on the same level.
        num_steps: T, env steps of each worker between two updates.
        seed: of all random numbers; equal for all that are compared.

    Raises:
        ValueError: a field outside its range.
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
        """What it comes to in one environment."""
        own = env.lifetime() if registry.has(env, LevelEnv.lifetime) else DEFAULT_LIFETIME
        return Life(self.lifetime or int(own), self.num_workers, self.num_steps)


class Life(NamedTuple):
    """The life of one agent."""

    num_updates: int
    num_workers: int = 64
    num_steps: int = 20


class Trained(NamedTuple):
    """What became of one agent."""

    final_return: Float[Array, ""]  # expected, undiscounted, of the policy at the end of its life
    reward: Float[Array, " K"]  # mean reward of a step, in each of K equal parts of its life
    probes: dict[str, Float[Array, " K"]]  # means of those of `PROBES` that its learner tells


class Trainee(NamedTuple):
    """What trains agents in any environment: the rules of a run, one a seed, or a fixed learner."""

    label: str
    build: Callable[[LevelEnv], tuple[Learner, PyTree]]  # learner; rules [S, ...], or () for none
    num_seeds: int  # S; without rules, groups of independent agents
    meta: dict[str, Any]  # where it comes from


def train_agent(
    key: Key, env: LevelEnv, learner: Learner, rule: PyTree, level: PyTree, life: Life
) -> Trained:
    """Train a fresh agent on one level for its whole life. Not jitted; meant for `vmap`.

    Where many agents share a rule, leave it without an axis: it then stays unbatched all through
    the life, and the rule's matrix products are one for all agents.

    Args:
        key: consumed.
        env: one environment.
        learner: who learns; a `RuleLearner` if there is a rule.
        rule: of one seed, or `()`.
        level: one level.
        life: updates, workers, steps.
    """
    key_init, key_begin, key_life, key_end = jax.random.split(key, 4)
    if jax.tree.leaves(rule):
        assert isinstance(learner, RuleLearner), "a rule is for learners that follow one"
        state = learner.init_with(key_init, rule)
    else:
        state = learner.init(key_init)
    shape = (life.num_workers, 1)
    queue = jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), level)
    running = reset_slots(key_begin, env, learner, queue)
    weight = jnp.ones(life.num_workers)

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
        trainee: who trains them.
        suites: one or more; each has its own environment. Their levels are joined in order.
        protocol: how.
        name: of the suites together; by default the first one's.
        progress: called with the agents done and all of them.

    Returns:
        Final returns as `episode_return` [S, M, A]; `length` are the env steps that each agent was
        trained on; `meta["curve"]` has each seed's mean reward a step, in parts of the life, mean
        over a suite's levels and agents.

    Raises:
        ValueError: the agents cannot take an environment.
    """
    # All are refused before any is compiled.
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
        optimal_steps=np.full(sum(map(len, levels)), -1),
        optimal_return=np.concatenate([np.asarray(x.optimal_return) for x in levels]),
        episode_return=np.concatenate([x.final_return for x in found], axis=1),
        length=np.concatenate(length, axis=1),
        meta=trainee.meta | _told(suites, built, lives, found, protocol),
    )


def _for_life(learner: Learner, rules: PyTree, life: Life) -> tuple[Learner, PyTree]:
    """The learner knows how many updates it will have."""
    return learner.spanning(life.num_updates), rules


def level_names(suites: Sequence[Suite]) -> tuple[str, ...]:
    """Names of all levels; those of several suites bear the suite's name in front."""
    if len(suites) == 1:
        return suites[0].levels.names
    names = []
    for suite in suites:
        inside = suite.name.rpartition("/")[2]
        single = len(suite.levels) == 1
        names += [inside] if single else [f"{inside}/{name}" for name in suite.levels.names]
    return tuple(names)


class _Count:
    """Agents done, told as they come."""

    def __init__(self, progress: Callable[[int, int], None], total: int):
        self.progress, self.done, self.total = progress, 0, total
        progress(0, total)  # compiling takes a while

    def add(self, num: int) -> None:
        self.done += num
        self.progress(self.done, self.total)


class _Found(NamedTuple):
    """`Trained` of all agents on one suite."""

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
    level, attempt = (x.ravel() for x in np.indices((num_levels, attempts)))
    life = protocol.life(suite.env)
    seeds = []
    for seed in range(trainee.num_seeds):
        rule = jax.tree.map(lambda x, seed=seed: jnp.asarray(x[seed]), rules)
        base = jax.random.fold_in(jax.random.key(protocol.seed), seed)
        parts = []
        for rows in _chunks(level.size):
            some = jax.tree.map(lambda x, at=level[rows]: jnp.asarray(x)[at], suite.levels.level)
            keys = _agent_keys(base, level[rows], attempt[rows])
            trained = _train_together(keys, rule, some, suite.env, learner, life)
            parts.append(jax.device_get(trained))
            counted.add(len(set(rows.tolist())))
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
    """A key for each agent that depends on its seed, level and number alone."""
    of_level = jax.vmap(jax.random.fold_in, (None, 0))(base, level)
    return jax.vmap(jax.random.fold_in)(of_level, attempt)


def _chunks(num: int) -> list[Int[np.ndarray, " B"]]:
    """Agents in equal chunks, one compilation for all; the last is filled up with its last one."""
    parts = -(-num // AGENTS_AT_A_TIME)
    size = -(-num // parts)
    filled = np.minimum(np.arange(parts * size), num - 1)
    return np.split(filled, parts)


def _in_parts(x: Float[Array, " U"]) -> Float[Array, " K"]:
    """Means of K consecutive parts, as equal as may be."""
    parts = min(CURVE_POINTS, x.shape[0])
    part = jnp.arange(x.shape[0]) * parts // x.shape[0]
    total = jax.ops.segment_sum(x, part, parts)
    return total / jax.ops.segment_sum(jnp.ones_like(x), part, parts)


def _told(
    suites: Sequence[Suite],
    built: Sequence[tuple[Learner, PyTree]],
    lives: Sequence[Life],
    found: Sequence[_Found],
    protocol: Protocol,
) -> dict[str, Any]:
    """What the results say of how they came about."""
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
