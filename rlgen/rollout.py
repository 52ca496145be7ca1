"""The only two scans over environment steps: `rollout` for learning, `play` for evaluation.

`evaluate_policy` gives the expected return of a policy on one level: exactly where the environment
and the learner allow it, else by playing.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import Actor, LevelEnv, feature_of
from rlgen.types import Key, PyTree, Rollout, Visit


class RolloutCarry(NamedTuple):
    """Where N slots are between two steps."""

    state: PyTree  # [N, ...]
    obs: PyTree
    first: Bool[Array, " N"]  # obs is the first of an episode
    level_index: Int[Array, " N"]  # which queued level is being played
    carry: PyTree


class Record(NamedTuple):
    """What to keep of a rollout beside what every learner needs.

    A learner that `reads` `last_obs` gets it in any case.
    """

    trace: Callable[[PyTree], PyTree] = lambda state: ()  # what to keep of each environment state
    features: tuple[str, ...] = ()  # names in `rlgen.protocols.FEATURES`, for `Rollout.visits`
    last_obs: bool = False  # whether to keep what follows the last step


NOTHING_MORE = Record()


def rollout(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    learner_state: PyTree,
    level: PyTree,
    num_steps: int,
    record: Record = NOTHING_MORE,
) -> tuple[Rollout, PyTree]:
    """Play T steps in every slot; an episode that ends is followed by one on the next queued level.

    The starts of all queued levels are computed once, so that a reset is a gather; so within one
    rollout a level always starts from the same state. The recurrent state is kept every
    `learner.bptt_steps` steps; if that is 0, before the first step alone.

    Args:
        key: consumed.
        env: one environment; batched here.
        learner, learner_state: who acts.
        level: [N, R, ...].
        num_steps: T.
        record: what else to keep; nothing by default.

    Returns the rollout (its bonus is 0), and the trace [T + 1, N, ...]: before each step and at the
    end, where a slot whose last step ended an episode is at the start of the next.
    """
    key_reset, key_steps = jax.random.split(key)
    starts = _starts(key_reset, env, level)
    slots = _RolloutContext(env, learner, learner_state, level, starts, record)
    return _play_on(key_steps, slots, _at_start(learner, starts), num_steps)[:2]


def reset_slots(key: Key, env: LevelEnv, learner: Actor, level: PyTree) -> RolloutCarry:
    """Slots at the start of an episode on their first levels [N, R, ...]."""
    return _at_start(learner, _starts(key, env, level))


def continue_rollout(
    key: Key,
    env: LevelEnv,
    player: tuple[Actor, PyTree],
    level: PyTree,
    running: RolloutCarry,
    num_steps: int,
    record: Record = NOTHING_MORE,
) -> tuple[Rollout, RolloutCarry]:
    """Play T further steps from where the slots are, as `rollout` does from the start.

    Episodes go on from one call to the next; the starts of those that begin within the call are
    drawn anew in each call.

    Args:
        player: who acts, and its state.
        running: the slots, of `reset_slots` or of an earlier call.
        key, env, level, num_steps, record: as in `rollout`.
    """
    key_reset, key_steps = jax.random.split(key)
    starts = _starts(key_reset, env, level)
    slots = _RolloutContext(env, *player, level, starts, record)
    played, _, end = _play_on(key_steps, slots, running, num_steps)
    return played, end


def _starts(key: Key, env: LevelEnv, level: PyTree) -> PyTree:
    """The first `(obs, state)` of every queued level."""
    keys = jax.random.split(key, jax.tree.leaves(level)[0].shape[:2])
    return jax.vmap(jax.vmap(env.reset_env))(keys, level)


def _at_start(learner: Actor, starts: PyTree) -> RolloutCarry:
    num_slots = jax.tree.leaves(starts)[0].shape[0]
    turn, first = jnp.zeros(num_slots, jnp.int32), jnp.ones(num_slots, bool)
    obs, state = _at(starts, turn)
    return RolloutCarry(state, obs, first, turn, learner.initial_carry(num_slots))


def _play_on(
    key: Key, slots: "_RolloutContext", running: RolloutCarry, num_steps: int
) -> tuple[Rollout, PyTree, RolloutCarry]:
    learner, learner_state = slots.learner, slots.learner_state

    def part(now: RolloutCarry, keys: Key) -> tuple[RolloutCarry, tuple]:
        end, rows = jax.lax.scan(slots.step, now, keys)
        return end, (rows, now.carry)

    length = _part(learner, num_steps)
    keys = jax.random.split(key, (num_steps // length, length))
    end, (rows, carries) = jax.lax.scan(part, running, keys)
    played, kept = jax.tree.map(lambda x: x.reshape(num_steps, *x.shape[2:]), rows)
    last_value = learner.value(learner_state, end.carry, end.obs, end.first)
    following = jnp.concatenate([played.value[1:], last_value[None]])
    following = jnp.where(played.terminated, 0.0, following)
    next_value = jnp.where(played.truncated, played.next_value, following)
    trace = slots.record.trace(end.state)
    kept = jax.tree.map(lambda x, last: jnp.concatenate([x, last[None]]), kept, trace)
    last_obs = ()
    if slots.record.last_obs or "last_obs" in learner.reads:
        last_obs = jax.tree.map(lambda x: x[None], end.obs)
    played = played._replace(
        next_value=next_value, bonus=jnp.zeros_like(next_value), carry=carries, last_obs=last_obs
    )
    return played, kept, end


def _part(learner: Actor, num_steps: int) -> int:
    length = learner.bptt_steps or num_steps
    if num_steps % length:
        raise ValueError(
            f"num_steps={num_steps} is no multiple of the learner's bptt_steps={length}"
        )
    return length


class _RolloutContext(NamedTuple):
    """What stays the same during a rollout."""

    env: LevelEnv
    learner: Actor
    learner_state: PyTree
    level: PyTree  # [N, R, ...]
    starts: PyTree  # first (obs, state) of each, [N, R, ...]
    record: Record

    def step(self, now: RolloutCarry, key: Key) -> tuple[RolloutCarry, tuple[Rollout, PyTree]]:
        """One step of all slots; `next_value` is filled in only where a time limit cut."""
        learner, learner_state = self.learner, self.learner_state
        key_act, key_step = jax.random.split(key)
        carry, action, log_prob, value = learner.act(
            key_act, learner_state, now.carry, now.obs, now.first
        )
        here = _at(self.level, now.level_index)
        obs, state, reward, terminated, truncated = _step(
            key_step, self.env, now.state, action, here
        )
        visits = self._visits(now.state, state, here)
        done = terminated | truncated
        # Only a time limit needs the value of an observation that nobody acts on: a branch, since
        # time limits are rare and a forward pass is dear.
        cut_value = jax.lax.cond(
            any_over_seeds(truncated.any()),
            lambda: learner.value(learner_state, carry, obs, jnp.zeros_like(done)),
            lambda: jnp.zeros_like(value),
        )
        turn = jnp.where(
            done, (now.level_index + 1) % jax.tree.leaves(self.level)[0].shape[1], now.level_index
        )
        obs, state = tree_where(done, _at(self.starts, turn), (obs, state))
        row = Rollout(
            obs=now.obs,
            action=action,
            log_prob=log_prob,
            value=value,
            next_value=cut_value,
            first=now.first,
            terminated=terminated,
            truncated=truncated,
            level_index=now.level_index,
            reward=reward,
            bonus=(),  # pyright: ignore[reportArgumentType]  # zeros, made once at the end
            carry=(),
            visits=visits,
        )
        return RolloutCarry(state, obs, done, turn, carry), (row, self.record.trace(now.state))

    def _visits(self, state: PyTree, after: PyTree, level: PyTree) -> dict[str, Visit] | tuple[()]:
        """The features of the states before and after a step, before any reset."""
        if not self.record.features:
            return ()
        visits = {}
        for name in self.record.features:
            of = jax.vmap(feature_of(self.env, name))
            visits[name] = Visit(of(state, level), of(after, level))
        return visits


class EpisodeResult(NamedTuple):
    """One episode on each of B levels."""

    episode_return: Float[Array, " B"]  # undiscounted
    length: Int[Array, " B"]  # steps
    terminated: Bool[Array, " B"]  # ended before the time limit


def play(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    learner_state: PyTree,
    level: PyTree,
    max_steps: int | Int[Array, ""],
    steps_per_check: int = 16,
) -> EpisodeResult:
    """Play one episode on each level, without resets, until all have ended.

    Args:
        key: consumed.
        env: one environment; batched here.
        learner: who acts, by sampling from its policy.
        learner_state: its state.
        level: [B, ...].
        max_steps: no level's time limit is longer; an episode cut by it counts as not terminated.
        steps_per_check: steps between two looks at whether all are done.
    """
    num_levels = jax.tree.leaves(level)[0].shape[0]
    key_reset, key_steps = jax.random.split(key)
    obs, state = jax.vmap(env.reset_env)(jax.random.split(key_reset, num_levels), level)
    zero, fresh = jnp.zeros(num_levels, jnp.int32), jnp.ones(num_levels, bool)
    running = RolloutCarry(state, obs, fresh, zero, learner.initial_carry(num_levels))

    def step(carry: tuple, t: Array) -> tuple[tuple, None]:
        now, active, played = carry
        key_act, key_step = jax.random.split(jax.random.fold_in(key_steps, t))
        hidden, action, _, _ = learner.act(key_act, learner_state, now.carry, now.obs, now.first)
        obs, state, reward, terminated, truncated = _step(key_step, env, now.state, action, level)
        active &= t < max_steps
        now = RolloutCarry(state, obs, jnp.zeros_like(fresh), now.level_index, hidden)
        played = _count(played, active, reward, terminated)
        return (now, active & ~(terminated | truncated), played), None

    def some(carry: tuple) -> tuple:
        t, inner = carry
        inner, _ = jax.lax.scan(step, inner, t + jnp.arange(steps_per_check))
        return t + steps_per_check, inner

    def unfinished(carry: tuple) -> Array:
        t, (_, active, _) = carry
        return (t < max_steps) & active.any()

    start = (running, fresh, EpisodeResult(jnp.zeros(num_levels), zero, ~fresh))
    return jax.lax.while_loop(unfinished, some, (0, start))[1][2]


def _count(played: EpisodeResult, active: Array, reward: Array, terminated: Array) -> EpisodeResult:
    return EpisodeResult(
        played.episode_return + jnp.where(active, reward, 0.0),
        played.length + active,
        played.terminated | (active & terminated),
    )


def _step(key: Key, env: LevelEnv, state: PyTree, action: Array, level: PyTree) -> tuple:
    keys = jax.random.split(key, action.shape[0])
    obs, state, reward, terminated, _ = jax.vmap(env.step_env)(keys, state, action, level)
    truncated = jax.vmap(env.is_truncated)(state, level) & ~terminated
    return obs, state, reward.astype(jnp.float32), terminated, truncated


def _at(queue: PyTree, turn: Int[Array, " N"]) -> PyTree:
    """The entries `[N, ...]` of a queue `[N, R, ...]` at each slot's turn."""

    def take(x: Array) -> Array:
        if x.shape[1] == 1:
            return x[:, 0]
        return x[jnp.arange(x.shape[0]), turn]

    return jax.tree.map(take, queue)


def is_exact(env: LevelEnv, learner: Actor) -> bool:
    """Whether `evaluate_policy` needs no playing.

    The environment enumerates its observations and has `expected_return`; the learner has no memory
    and has `log_policy`.
    """
    if jax.tree.leaves(learner.initial_carry(1)):
        return False
    needed = (LevelEnv.expected_return, LevelEnv.num_states)
    return learner.offers(Actor.log_policy) and all(map(env.offers, needed))


def evaluate_policy(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    state: PyTree,
    level: PyTree,
    num_episodes: int = 64,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Expected undiscounted return of an episode on one level, and the env steps played for it.

    Args:
        key: consumed, if episodes are played.
        env: one environment.
        learner, state: whose policy.
        level: one level.
        num_episodes: to average over where no exact answer, which takes 0 steps, is to be had.
    """
    if is_exact(env, learner):
        log_policy = learner.log_policy(state, jnp.arange(env.num_states()))
        return env.expected_return(level, log_policy), jnp.zeros(())
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *jnp.shape(x))), level)
    played = play(key, env, learner, state, copies, level.max_steps_in_episode)
    return played.episode_return.mean(), played.length.sum().astype(jnp.float32)
