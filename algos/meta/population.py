"""From birth to death: the agents of a meta-learner, and the antagonists beside them."""

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.branching import where
from rlgen.packing import map_where
from rlgen.policy_return import policy_worth
from rlgen.protocols import Actor
from rlgen.rollout import Running, begin, roll_on
from rlgen.tasks import Task
from rlgen.types import Key, Lives, PyTree, Rollout

from ._agent import AgentState

if TYPE_CHECKING:
    from .meta_gradient import MetaGradient


class Population(NamedTuple):
    """N agents, each with its workers and, if there is an antagonist, one by hand beside it."""

    agents: AgentState
    running: Running  # [N, W, ...]
    rivals: PyTree  # [N, ...] the antagonist's; () if there is none
    rivals_running: Running | tuple[()]
    age: Int[Array, " N"]  # updates lived
    complete: Bool[Array, " N"]  # was born at age 0


def give_birth(
    student: "MetaGradient",
    key: Key,
    task: Task,
    age: Int[Array, " N"],
    fresh: Bool[Array, " N"] | None = None,
    old: Population | None = None,
) -> Population:
    """The population with new agents where `fresh`; a whole one if there is none yet."""

    def born(xs: tuple) -> tuple:
        return jax.vmap(lambda key, task, age: _newborn(student, key, task, age))(*xs)

    xs = jax.random.split(key, age.size), task, age
    if fresh is None or old is None:
        agents, running, rivals, rivals_running = born(xs)
        return Population(agents, running, rivals, rivals_running, age, age == 0)
    parts = map_where(fresh, born, xs, old[:4], student.block)
    return Population(
        *parts,
        age=jnp.where(fresh, age, old.age),
        complete=jnp.where(fresh, age == 0, old.complete),
    )


def _newborn(student: "MetaGradient", key: Key, task: Task, age: Int[Array, ""]) -> tuple:
    key_agent, key_begin, key_rival, key_theirs = jax.random.split(key, 4)
    copies = _for_workers(student, task.level)
    agent = student.pupil.init(key_agent, task.lifetime)._replace(num_updates=age)
    running = begin(key_begin, student.env, student.pupil, copies)
    if isinstance(student.antagonist, tuple):
        return agent, running, (), ()
    rival = student.antagonist.init(key_rival)
    return agent, running, rival, begin(key_theirs, student.env, student.antagonist, copies)


def play(
    student: "MetaGradient",
    keys: Key,
    learner: Actor,
    states: PyTree,
    level: PyTree,
    running: Running,
) -> tuple[Rollout, Running]:
    """T further steps of n agents, [n, T, W].

    Args:
        keys: [n].
        learner: whose states these are.
        states, level, running: [n, ...].
    """

    def one(key: Key, state: PyTree, level: PyTree, running: Running) -> tuple[Rollout, Running]:
        copies = _for_workers(student, level)
        player = (learner, state)
        return roll_on(key, student.env, player, copies, running, student.rollout_steps)

    return jax.vmap(one)(keys, states, level, running)


def follow(
    student: "MetaGradient",
    key: Key,
    folk: Population,
    task: Task,
    unseen: Bool[Array, " N"],
) -> Population:
    """The antagonists' own K updates, on levels without a past alone.

    On a level that was lived on before, the antagonist's return is known. Nor is one trained beside
    an agent whose life is no evidence.
    """
    antagonist = student.antagonist
    if isinstance(antagonist, tuple):
        return folk
    everyone = jnp.ones(student.num_workers)

    def learn(key: Key, state: PyTree, played: Rollout) -> PyTree:
        return antagonist.update(key, state, played, everyone)[0]

    def some(xs: tuple) -> tuple:
        keys, level, left, rivals, running = xs

        def update(carry: tuple, k: Array) -> tuple[tuple, None]:
            rivals, running = carry
            pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, k)))(keys)
            played, running = play(student, pairs[:, 0], antagonist, rivals, level, running)
            learned = jax.vmap(learn)(pairs[:, 1], rivals, played)
            return (where(k < left, learned, rivals), running), None

        return jax.lax.scan(update, (rivals, running), jnp.arange(student.num_inner_updates))[0]

    theirs = folk.rivals, folk.rivals_running
    keys = jax.random.split(key, folk.age.size)
    xs = keys, task.level, task.lifetime - folk.age, *theirs
    rivals, running = map_where(unseen & folk.complete, some, xs, theirs, student.block)
    return folk._replace(rivals=rivals, rivals_running=running)


def end_lives(
    student: "MetaGradient",
    key: Key,
    folk: Population,
    task: Task,
    ended: Bool[Array, " N"],
    unseen: Bool[Array, " N"],
) -> tuple[Lives, Float[Array, ""]]:
    """What the agents whose lives have `ended` reached, and the env steps spent on finding out.

    Nothing is computed for the others, nor for antagonists that were not trained.
    """
    keys = jax.random.split(key, (2, ended.size))
    nothing = jnp.full(ended.shape, jnp.nan), jnp.zeros(ended.shape)

    def judge(learner: Actor, keys: Key, states: PyTree, mask: Array) -> tuple[Array, Array]:
        def one(key: Key, state: PyTree, level: PyTree) -> tuple[Array, Array]:
            return policy_worth(key, student.env, learner, state, level, student.eval_episodes)

        xs = keys, states, task.level
        return map_where(mask, lambda xs: jax.vmap(one)(*xs), xs, nothing, student.block)

    own, steps = judge(student.pupil, keys[0], folk.agents, ended)
    theirs, their_steps = nothing
    if not isinstance(student.antagonist, tuple):
        theirs, their_steps = judge(student.antagonist, keys[1], folk.rivals, ended & unseen)
    return Lives(own, theirs, folk.complete), steps.sum() + their_steps.sum()


def bury(folk: Population) -> tuple[Population, Bool[Array, " N"]]:
    """The population without numbers that are none, and whose lives that ends.

    An agent or an antagonist whose parameters have diverged is no evidence of anything.
    """
    sick = _broken(folk.agents, folk.age) | _broken(folk.rivals, folk.age)
    agents, rivals = (
        where(sick, jax.tree.map(jnp.zeros_like, x), x) for x in (folk.agents, folk.rivals)
    )
    return folk._replace(agents=agents, rivals=rivals, complete=folk.complete & ~sick), sick


def _broken(states: PyTree, age: Int[Array, " N"]) -> Bool[Array, " N"]:
    found = jnp.zeros(age.shape, bool)
    for leaf in jax.tree.leaves(states):
        bad = ~jnp.isfinite(leaf)
        found |= bad.reshape(bad.shape[0], -1).any(1)
    return found


def fold(last: Rollout) -> Rollout:
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


def _for_workers(student: "MetaGradient", level: PyTree) -> PyTree:
    """One level for W workers, [W, 1, ...]."""
    shape = (student.num_workers, 1)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), level)
