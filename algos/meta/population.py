"""The population of a meta-learner: its agents over their lifetimes, and their antagonists."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.learners.lpg import Agent, AgentState
from rlgen.levels import Task
from rlgen.parallel.seeds import map_where, tree_where
from rlgen.protocols import Actor, Learner, LevelEnv
from rlgen.rollout import RolloutCarry, continue_rollout, evaluate_policy, reset_slots
from rlgen.types import Key, LifetimeResults, PyTree, Rollout


@runtime_checkable
class Settings(Protocol):
    """The fields of a student that its population depends on; see `MetaGradient`."""

    @property
    def env(self) -> LevelEnv:
        """Where the agents act."""
        ...

    @property
    def inner_agent(self) -> Agent:
        """The agent, with as many predictions as the rule has."""
        ...

    @property
    def antagonist(self) -> Learner | tuple[()]:
        """A hand-designed learner; () for none."""
        ...

    @property
    def num_inner_updates(self) -> int:
        """K, updates of an agent between two of the rule."""
        ...

    @property
    def rollout_steps(self) -> int:
        """T, env steps of each worker in one of an agent's updates."""
        ...

    @property
    def num_workers(self) -> int:
        """W, environments of each agent."""
        ...

    @property
    def eval_episodes(self) -> int:
        """Episodes that judge an agent at its end."""
        ...

    @property
    def block(self) -> int:
        """Agents that are processed at a time."""
        ...


class Population(NamedTuple):
    """N agents, each with its workers and, if there is one, a hand-designed antagonist."""

    agents: AgentState
    running: RolloutCarry  # [N, W, ...]
    antagonists: PyTree  # [N, ...] the antagonist's; () if there is none
    antagonists_running: RolloutCarry | tuple[()]
    age: Int[Array, " N"]  # updates lived
    complete: Bool[Array, " N"]  # was born at age 0


def spawn_agents(
    student: Settings,
    key: Key,
    task: Task,
    age: Int[Array, " N"],
    fresh: Bool[Array, " N"] | None = None,
    old: Population | None = None,
) -> Population:
    """The population with new agents where `fresh`; a whole one if there is none yet."""

    def born(xs: tuple) -> tuple:
        return jax.vmap(lambda key, task, age: _init_agent(student, key, task, age))(*xs)

    xs = jax.random.split(key, age.size), task, age
    if fresh is None or old is None:
        agents, running, antagonists, antagonists_running = born(xs)
        return Population(agents, running, antagonists, antagonists_running, age, age == 0)
    parts = map_where(fresh, born, xs, old[:4], student.block)
    return Population(
        *parts,
        age=jnp.where(fresh, age, old.age),
        complete=jnp.where(fresh, age == 0, old.complete),
    )


def _init_agent(student: Settings, key: Key, task: Task, age: Int[Array, ""]) -> tuple:
    key_agent, key_begin, key_rival, key_theirs = jax.random.split(key, 4)
    copies = _for_workers(student, task.level)
    agent = student.inner_agent.init(key_agent, task.lifetime)._replace(num_updates=age)
    running = reset_slots(key_begin, student.env, student.inner_agent, copies)
    if isinstance(student.antagonist, tuple):
        return agent, running, (), ()
    rival = student.antagonist.init(key_rival)
    return agent, running, rival, reset_slots(key_theirs, student.env, student.antagonist, copies)


def play(
    student: Settings,
    keys: Key,
    learner: Actor,
    states: PyTree,
    level: PyTree,
    running: RolloutCarry,
) -> tuple[Rollout, RolloutCarry]:
    """T further steps of n agents, [n, T, W].

    Args:
        keys: [n].
        learner: whose states these are.
        states, level, running: [n, ...].
    """

    def one(
        key: Key, state: PyTree, level: PyTree, running: RolloutCarry
    ) -> tuple[Rollout, RolloutCarry]:
        copies = _for_workers(student, level)
        player = (learner, state)
        return continue_rollout(key, student.env, player, copies, running, student.rollout_steps)

    return jax.vmap(one)(keys, states, level, running)


def train_antagonists(
    student: Settings,
    key: Key,
    population: Population,
    task: Task,
    unseen: Bool[Array, " N"],
) -> Population:
    """The antagonists' own K updates, on levels without a past alone.

    On a level that was lived on before, the antagonist's return is known. Nor is one trained beside
    an agent whose life is no evidence.
    """
    antagonist = student.antagonist
    if isinstance(antagonist, tuple):
        return population
    everyone = jnp.ones(student.num_workers)

    def learn(key: Key, state: PyTree, played: Rollout) -> PyTree:
        return antagonist.update(key, state, played, everyone)[0]

    def some(xs: tuple) -> tuple:
        keys, level, left, antagonists, running = xs

        def update(carry: tuple, k: Array) -> tuple[tuple, None]:
            antagonists, running = carry
            pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, k)))(keys)
            played, running = play(student, pairs[:, 0], antagonist, antagonists, level, running)
            learned = jax.vmap(learn)(pairs[:, 1], antagonists, played)
            return (tree_where(k < left, learned, antagonists), running), None

        return jax.lax.scan(update, (antagonists, running), jnp.arange(student.num_inner_updates))[
            0
        ]

    theirs = population.antagonists, population.antagonists_running
    keys = jax.random.split(key, population.age.size)
    xs = keys, task.level, task.lifetime - population.age, *theirs
    antagonists, running = map_where(unseen & population.complete, some, xs, theirs, student.block)
    return population._replace(antagonists=antagonists, antagonists_running=running)


def evaluate_finished(
    student: Settings,
    key: Key,
    population: Population,
    task: Task,
    ended: Bool[Array, " N"],
    unseen: Bool[Array, " N"],
) -> tuple[LifetimeResults, Float[Array, ""]]:
    """What the agents whose lives have `ended` reached, and the env steps spent on finding out.

    Nothing is computed for the others, nor for antagonists that were not trained.
    """
    keys = jax.random.split(key, (2, ended.size))
    nothing = jnp.full(ended.shape, jnp.nan), jnp.zeros(ended.shape)

    def judge(learner: Actor, keys: Key, states: PyTree, mask: Array) -> tuple[Array, Array]:
        def one(key: Key, state: PyTree, level: PyTree) -> tuple[Array, Array]:
            return evaluate_policy(key, student.env, learner, state, level, student.eval_episodes)

        xs = keys, states, task.level
        return map_where(mask, lambda xs: jax.vmap(one)(*xs), xs, nothing, student.block)

    own, steps = judge(student.inner_agent, keys[0], population.agents, ended)
    theirs, their_steps = nothing
    if not isinstance(student.antagonist, tuple):
        theirs, their_steps = judge(
            student.antagonist, keys[1], population.antagonists, ended & unseen
        )
    return LifetimeResults(own, theirs, population.complete), steps.sum() + their_steps.sum()


def reset_diverged(population: Population) -> tuple[Population, Bool[Array, " N"]]:
    """The population without numbers that are none, and whose lives that ends.

    An agent or an antagonist whose parameters have diverged is no evidence of anything.
    """
    diverged = _has_nonfinite(population.agents, population.age) | _has_nonfinite(
        population.antagonists, population.age
    )
    agents, antagonists = (
        tree_where(diverged, jax.tree.map(jnp.zeros_like, x), x)
        for x in (population.agents, population.antagonists)
    )
    return population._replace(
        agents=agents, antagonists=antagonists, complete=population.complete & ~diverged
    ), diverged


def _has_nonfinite(states: PyTree, age: Int[Array, " N"]) -> Bool[Array, " N"]:
    found = jnp.zeros(age.shape, bool)
    for leaf in jax.tree.leaves(states):
        bad = ~jnp.isfinite(leaf)
        found |= bad.reshape(bad.shape[0], -1).any(1)
    return found


def flatten_workers(last: Rollout) -> Rollout:
    """The batches [N, T, W] of N agents as a rollout [1, W T, N], one worker after another.

    So that scores of levels can read it: where a worker's part ends, an episode is cut off.
    """
    num_steps = last.reward.shape[1]
    at_end = (jnp.arange(num_steps) == num_steps - 1)[None, :, None]
    at_start = (jnp.arange(num_steps) == 0)[None, :, None]
    last = last._replace(
        obs=(),
        carry=(),
        last_obs=(),
        first=last.first | at_start,
        truncated=last.truncated | (at_end & ~last.terminated),
    )
    return jax.tree.map(lambda x: x.transpose(2, 1, 0).reshape(1, -1, x.shape[0]), last)


def _for_workers(student: Settings, level: PyTree) -> PyTree:
    """One level for W workers, [W, 1, ...]."""
    shape = (student.num_workers, 1)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), level)
