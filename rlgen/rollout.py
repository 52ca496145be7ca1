"""The two loops over environment steps: `rollout` for learning, `play` for evaluation.

`evaluate_policy` computes the expected return of a policy on one level. If the environment and the
learner support an exact evaluation, the result is exact. Otherwise the result is a mean over
sampled episodes.
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
    """State of N slots between two steps."""

    state: PyTree  # [N, ...]
    obs: PyTree  # [N, ...]
    first: Bool[Array, " N"]  # True if obs is the first of an episode
    level_index: Int[Array, " N"]  # index of the queued level that is being played
    carry: PyTree  # [N, ...]; recurrent state of the actor


class Record(NamedTuple):
    """Data to record in addition to the fields that every learner needs.

    If the learner's `reads` contains `last_obs`, the last observation is recorded even if the
    record's field `last_obs` is False.
    """

    trace: Callable[[PyTree], PyTree] = lambda state: ()  # function of the state to record
    features: tuple[str, ...] = ()  # names in `rlgen.protocols.FEATURES`, for `Rollout.visits`
    last_obs: bool = False  # True to record the observation after the last step


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
    """Play T steps in every slot; after an episode, the slot continues with the next queued level.

    The initial states of all queued levels are computed once, and a reset selects one of them.
    Within one rollout, all episodes on a level therefore start from the same state. The recurrent
    state is stored every `learner.bptt_steps` steps. If `learner.bptt_steps` is 0, the recurrent
    state is stored only before the first step.

    Args:
        key: consumed.
        env: environment; its functions are vmapped here.
        learner: actor that selects the actions.
        learner_state: state of the learner.
        level: levels, [N, R, ...].
        num_steps: T.
        record: additional data to record; none by default.

    Returns:
        The rollout, with bonus 0, and the trace [T + 1, N, ...]: `record.trace` of the state before
        each step and of the state after the last step. If a slot's last step ended an episode, the
        state after it is the start of the next episode.
    """
    key_reset, key_steps = jax.random.split(key)
    starts = _starts(key_reset, env, level)
    slots = _RolloutContext(env, learner, learner_state, level, starts, record)
    return _play_on(key_steps, slots, _at_start(learner, starts), num_steps)[:2]


def reset_slots(key: Key, env: LevelEnv, learner: Actor, level: PyTree) -> RolloutCarry:
    """Start an episode in every slot, on the first of its queued levels [N, R, ...]."""
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
    """Play T further steps from the slots' current states; otherwise like `rollout`.

    Episodes continue from one call to the next. Each call samples new initial states for the
    episodes that begin within it.

    Args:
        key: consumed.
        env: environment; its functions are vmapped here.
        player: the actor, and the state of the actor.
        level: levels, [N, R, ...].
        running: state of the slots, from `reset_slots` or an earlier call.
        num_steps: T.
        record: additional data to record; none by default.

    Returns:
        The rollout, with bonus 0, and the state of the slots after the last step.
    """
    key_reset, key_steps = jax.random.split(key)
    starts = _starts(key_reset, env, level)
    slots = _RolloutContext(env, *player, level, starts, record)
    played, _, end = _play_on(key_steps, slots, running, num_steps)
    return played, end


def _starts(key: Key, env: LevelEnv, level: PyTree) -> PyTree:
    """Sample the first `(obs, state)` of an episode on every queued level, [N, R, ...]."""
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

    # An outer scan over parts of `length` steps returns the recurrent state before each part.
    def part(now: RolloutCarry, keys: Key) -> tuple[RolloutCarry, tuple]:
        end, rows = jax.lax.scan(slots.step, now, keys)
        return end, (rows, now.carry)

    length = _part(learner, num_steps)
    keys = jax.random.split(key, (num_steps // length, length))
    end, (rows, carries) = jax.lax.scan(part, running, keys)
    # Reshape [T/L, L, N, ...] to [T, N, ...].
    played, kept = jax.tree.map(lambda x: x.reshape(num_steps, *x.shape[2:]), rows)
    last_value = learner.value(learner_state, end.carry, end.obs, end.first)
    # Unless an episode ended, the value of the next observation is the value at the next step.
    following = jnp.concatenate([played.value[1:], last_value[None]])
    # If an episode ended, the next step belongs to another episode. The next value is then 0 after
    # a termination, and the value computed in `step` after a truncation.
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
            f"num_steps={num_steps} is not a multiple of the learner's bptt_steps={length}; change "
            "one of them"
        )
    return length


class _RolloutContext(NamedTuple):
    """Constants of a rollout."""

    env: LevelEnv
    learner: Actor
    learner_state: PyTree
    level: PyTree  # [N, R, ...]
    starts: PyTree  # first (obs, state) on each level, [N, R, ...]
    record: Record

    def step(self, now: RolloutCarry, key: Key) -> tuple[RolloutCarry, tuple[Rollout, PyTree]]:
        """Take one step in all slots; `next_value` is set only where an episode is truncated."""
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
        # The value of the observation after the last action is needed only for truncated episodes.
        # `lax.cond` is used and not `where`, because truncations are rare and a forward pass is
        # expensive. `obs` belongs to the same episode as `carry`, so `first` is False.
        cut_value = jax.lax.cond(
            any_over_seeds(truncated.any()),
            lambda: learner.value(learner_state, carry, obs, jnp.zeros_like(done)),
            lambda: jnp.zeros_like(value),
        )
        turn = jnp.where(
            done, (now.level_index + 1) % jax.tree.leaves(self.level)[0].shape[1], now.level_index
        )
        # A finished episode is replaced by the stored start of the next level in the queue.
        # `where` is used and not `cond`, because with many slots at least one episode ends in most
        # steps, and selecting stored starts takes little time.
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
            bonus=(),  # pyright: ignore[reportArgumentType]  # `_play_on` adds zeros at the end
            carry=(),
            visits=visits,
        )
        return RolloutCarry(state, obs, done, turn, carry), (row, self.record.trace(now.state))

    def _visits(self, state: PyTree, after: PyTree, level: PyTree) -> dict[str, Visit] | tuple[()]:
        """State features before and after a step; `after` is the state before any reset."""
        if not self.record.features:
            return ()
        visits = {}
        for name in self.record.features:
            of = jax.vmap(feature_of(self.env, name))
            visits[name] = Visit(of(state, level), of(after, level))
        return visits


class EpisodeResult(NamedTuple):
    """Results of one episode on each of B levels."""

    episode_return: Float[Array, " B"]  # undiscounted
    length: Int[Array, " B"]  # steps
    terminated: Bool[Array, " B"]  # terminated before the time limit


def play(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    learner_state: PyTree,
    level: PyTree,
    max_steps: int | Int[Array, ""],
    steps_per_check: int = 16,
) -> EpisodeResult:
    """Play one episode on each level, without resets, until all episodes have ended.

    Args:
        key: consumed.
        env: environment; its functions are vmapped here.
        learner: actor whose policy is sampled.
        learner_state: state of the learner.
        level: levels, [B, ...].
        max_steps: upper bound on the levels' time limits. An episode that is still running after
            this number of steps counts as not terminated.
        steps_per_check: number of steps after which the loop checks for running episodes.
    """
    num_levels = jax.tree.leaves(level)[0].shape[0]
    key_reset, key_steps = jax.random.split(key)
    obs, state = jax.vmap(env.reset_env)(jax.random.split(key_reset, num_levels), level)
    zero, fresh = jnp.zeros(num_levels, jnp.int32), jnp.ones(num_levels, bool)
    running = RolloutCarry(state, obs, fresh, zero, learner.initial_carry(num_levels))

    def step(carry: tuple, t: Array) -> tuple[tuple, None]:
        now, active, played = carry
        # The key of step t is computed from t, so that the key is independent of `steps_per_check`.
        key_act, key_step = jax.random.split(jax.random.fold_in(key_steps, t))
        hidden, action, _, _ = learner.act(key_act, learner_state, now.carry, now.obs, now.first)
        obs, state, reward, terminated, truncated = _step(key_step, env, now.state, action, level)
        # Ended episodes are stepped further, but `active` keeps these steps out of the results.
        active &= t < max_steps  # the last block of steps may extend beyond `max_steps`
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
    # A step that terminates at the time limit counts as terminated, not as truncated.
    truncated = jax.vmap(env.is_truncated)(state, level) & ~terminated
    # Cast to one dtype: some environments return integers, or float64 if 64-bit types are enabled.
    return obs, state, reward.astype(jnp.float32), terminated, truncated


def _at(queue: PyTree, turn: Int[Array, " N"]) -> PyTree:
    """Select each slot's entry at index `turn` from a queue `[N, R, ...]`; returns `[N, ...]`."""

    def take(x: Array) -> Array:
        if x.shape[1] == 1:  # a slice in place of a gather
            return x[:, 0]
        return x[jnp.arange(x.shape[0]), turn]

    return jax.tree.map(take, queue)


def is_exact(env: LevelEnv, learner: Actor) -> bool:
    """Return whether `evaluate_policy` is exact.

    The environment must have `num_states` and `expected_return`; the learner must have `log_policy`
    and no recurrent state.
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
    """Expected undiscounted return of an episode on one level.

    Args:
        key: consumed if episodes are sampled.
        env: environment.
        learner: actor whose policy is evaluated.
        state: state of the learner.
        level: one level.
        num_episodes: number of episodes to sample if the evaluation is not exact.

    Returns:
        The return, and the number of env steps that were played; 0 for an exact evaluation.
    """
    if is_exact(env, learner):
        log_policy = learner.log_policy(state, jnp.arange(env.num_states()))
        return env.expected_return(level, log_policy), jnp.zeros(())
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *jnp.shape(x))), level)
    played = play(key, env, learner, state, copies, level.max_steps_in_episode)
    return played.episode_return.mean(), played.length.sum().astype(jnp.float32)
