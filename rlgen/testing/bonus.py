"""Laws that bonuses must satisfy; see `rlgen.testing`."""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlgen.protocols import Actor, Bonus, LevelEnv
from rlgen.rollout import Record, continue_rollout, reset_slots
from rlgen.testing.common import assert_close, assert_component, assert_shapes
from rlgen.types import Key, PyTree, Rollout

_SLOTS, _STEPS, _PART = 4, 16, 4
_ONES = np.ones(_SLOTS, np.float32)


class _Player(Actor):
    """Actor with uniformly random actions and no memory."""

    def __init__(self, num_actions: int):
        self.num_actions = num_actions

    def act(self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Array) -> tuple:
        action = jax.random.randint(key, first.shape, 0, self.num_actions)
        return carry, action, jnp.zeros(first.shape), jnp.zeros(first.shape)

    def value(self, state: PyTree, carry: PyTree, obs: PyTree, first: Array) -> Array:
        return jnp.zeros(first.shape)


class _Judged(NamedTuple):
    """Results of `Bonus.apply`."""

    state: PyTree
    bonus: Float[Array, "T N"]
    metrics: dict


def check_bonus(env: LevelEnv, bonus: Bonus, learns: bool = False) -> None:
    """Check that a bonus is causal and does not mix episodes or slots.

    - The bonus is one finite float32 per step, and 0 where a bonus with `pairs` (see
      `rlgen.protocols.Bonus`) has no next observation. States keep their shapes and dtypes; metrics
      are finite numbers.
    - Later steps never change earlier bonuses.
    - The bonus depends only on observations, actions and visits, not on rewards and values.
    - Slots of weight 0 do not affect other slots, in the same or later rollouts.
    - Where `first` is True, an episode begins as if the slot had never been played.
    - If the bonus does not learn, a rollout that is played in parts gives the same bonuses as the
      whole rollout.
    - Agents under `vmap` get the same bonuses as separate agents.

    Args:
        env: environment with the features that the bonus reads.
        bonus: bonus to check; it is applied to 4 slots.
        learns: True if `apply` trains a network, so that bonuses change between parts of a rollout.
    """
    assert_component(bonus, Bonus)
    key_init, key_apply = jax.random.split(jax.random.key(0))
    played = _play(env, bonus.features)
    state = jax.jit(lambda key: bonus.init(key, _SLOTS))(key_init)

    @jax.jit
    def judge(state: PyTree, rollout: Rollout, weight: Array) -> _Judged:
        return _Judged(*bonus.apply(key_apply, state, rollout, weight))

    # Three consecutive rollouts: the first fills the state, the second is tested, and the third
    # shows later effects.
    before, rollout, after = (_cut(played, k * _STEPS, (k + 1) * _STEPS) for k in range(3))
    known = judge(state, before, _ONES).state
    base = judge(known, rollout, _ONES)
    _check_form(bonus, state, base, rollout)
    _check_causal(partial(judge, known), base, rollout)
    _check_weight(partial(judge, known), judge, rollout, after)
    _check_forgetting(judge, state, before, rollout)
    # If a network is trained between two parts, later bonuses change, so this law need not hold.
    if not learns:
        _check_parts(judge, known, base, rollout)
    _check_agents(bonus, rollout)


@lru_cache(maxsize=8)  # the laws of many bonuses are checked on the same environment
def _play(env: LevelEnv, features: tuple[str, ...]) -> Rollout:
    """Play 3 T steps whose episodes end at different times in different slots."""
    key_level, key_begin, key_roll = jax.random.split(jax.random.key(1), 3)
    player = _Player(env.num_actions)
    record = Record(features=features, last_obs=True)

    @jax.jit
    def play() -> Rollout:
        level = jax.vmap(env.sample_level)(jax.random.split(key_level, 2 * _SLOTS))
        # The time limits are short and differ. Within 16 steps every slot ends an episode, but not
        # all slots end it at the same step.
        limits = jnp.minimum(level.max_steps_in_episode, 5 + jnp.arange(2 * _SLOTS))
        level = level.replace(max_steps_in_episode=limits)
        queue = jax.tree.map(lambda x: x.reshape(_SLOTS, 2, *x.shape[1:]), level)
        running = reset_slots(key_begin, env, player, queue)
        return continue_rollout(key_roll, env, (player, ()), queue, running, 3 * _STEPS, record)[0]

    # NumPy arrays, since each operation on a JAX array outside jit compiles a program.
    return jax.tree.map(np.asarray, play())


def _cut(rollout: Rollout, start: int, end: int) -> Rollout:
    """Return the steps `start` .. `end` - 1 of a rollout as a separate rollout."""
    num_steps = rollout.reward.shape[0]
    whole = rollout._replace(carry=(), last_obs=())
    part = jax.tree.map(lambda x: x[start:end], whole)
    last = rollout.last_obs
    # The observation after the part is the first observation of the next part.
    if end < num_steps:
        last = jax.tree.map(lambda x: x[end : end + 1], rollout.obs)
    return part._replace(last_obs=last)


def _check_form(bonus: Bonus, state: PyTree, judged: _Judged, rollout: Rollout) -> None:
    expected = np.zeros((_STEPS, _SLOTS), np.float32)
    assert_shapes(judged.bonus, expected, "the bonus is not a float32 for each step [T, N]")
    assert_shapes(judged.state, state, "apply changed the shapes of the bonus's state")
    assert np.isfinite(judged.bonus).all(), f"the bonus is not finite:\n{judged.bonus}"
    for name, value in judged.metrics.items():
        assert np.shape(value) == () and np.isfinite(value), f"metric {name} is {value}"
    if bonus.pairs:
        blind = np.asarray(judged.bonus)[rollout.terminated | rollout.truncated]
        assert (blind == 0).all(), (
            f"bonus for a next observation that is not in the rollout: {blind}"
        )


def _check_causal(judge: Any, base: _Judged, rollout: Rollout) -> None:
    """Check that neither later steps nor rewards and values affect a bonus."""
    now = _STEPS // 2

    def other(
        x: np.ndarray,
    ) -> np.ndarray:  # copies slot 0 to all slots, so that sums over slots change as well
        return np.concatenate([x[: now + 1], np.repeat(x[now + 1 :, :1], _SLOTS, axis=1)])

    # Row `now` is kept, because its observation is the next observation of step `now - 1`.
    changed = jax.tree.map(other, rollout._replace(last_obs=()))
    last = jax.tree.map(lambda x: np.repeat(x[:, :1], _SLOTS, axis=1), rollout.last_obs)
    later = judge(changed._replace(last_obs=last), _ONES).bonus
    # This finds bonuses that read the future, for example because they are normalised by statistics
    # of the whole rollout.
    assert_close(later[:now], base.bonus[:now], "later steps changed earlier bonuses")
    # The noise is large, so that even a weak dependence exceeds the tolerance.
    noise = np.random.default_rng(0).normal(0, 1e3, rollout.reward.shape).astype(np.float32)
    paid = {"reward": noise, "value": -noise, "next_value": 2 * noise, "log_prob": -(noise**2)}
    blind = judge(rollout._replace(**paid), _ONES).bonus
    assert_close(blind, base.bonus, "rewards or values changed a bonus")


def _check_weight(judge: Any, judge_from: Any, rollout: Rollout, after: Rollout) -> None:
    """Check that a slot of weight 0 affects neither other slots nor the slot's next episode.

    The data of slot 0, which has weight 0, is replaced up to the beginning of its last episode.
    """
    begins = np.flatnonzero(np.asarray(rollout.first[:, 0]))
    assert begins.size, (
        "no episode began in slot 0 within 16 steps, although its limits are 5 and 6"
    )
    start = int(begins[-1])
    weight = np.array([0, *[1] * (_SLOTS - 1)], np.float32)

    def spoil(x: np.ndarray) -> np.ndarray:
        # Replaced by the data of slot 1, because noise would not be a valid observation.
        slot = np.concatenate([x[:start, 1:2], x[start:, :1]])
        return np.concatenate([slot, x[:, 1:]], axis=1)

    seen = {"obs": rollout.obs, "action": rollout.action, "visits": rollout.visits}
    spoilt = rollout._replace(**jax.tree.map(spoil, seen))
    plain, changed = judge(rollout, weight), judge(spoilt, weight)
    sentence = "the data of a slot of weight 0 changed other slots' bonuses"
    assert_close(changed.bonus[:, 1:], plain.bonus[:, 1:], sentence)
    then, right = (judge_from(x.state, after, weight).bonus[:, 1:] for x in (changed, plain))
    # Shared counts, running statistics and networks would carry the difference into later rollouts.
    assert_close(then, right, f"{sentence} in a later rollout")
    sentence = "an episode's observations changed a bonus of the slot's next episode"
    # From step `start`, slot 0 has the same data in both rollouts, and the episode that begins
    # there clears the memory of the slot.
    assert_close(changed.bonus[start:, 0], plain.bonus[start:, 0], sentence)


def _check_forgetting(judge: Any, state: PyTree, before: Rollout, rollout: Rollout) -> None:
    """Check that a rollout of weight 0 affects nothing except the slots' current episodes."""
    # Every slot begins a new episode, so no memory of the earlier rollout may remain.
    first = rollout.first | (np.arange(_STEPS) == 0)[:, None]
    begun = rollout._replace(first=first)
    seen = judge(state, before, 0 * _ONES).state
    later, fresh = (judge(x, begun, _ONES).bonus for x in (seen, state))
    assert_close(later, fresh, "a slot of weight 0 left a trace beyond its episode")


def _check_parts(judge: Any, state: PyTree, base: _Judged, rollout: Rollout) -> None:
    """Check that a rollout in parts of `_PART` steps gets the bonuses of the whole rollout."""
    parts = []
    for start in range(0, _STEPS, _PART):
        judged = judge(state, _cut(rollout, start, start + _PART), _ONES)
        state = judged.state
        parts.append(judged.bonus)
    whole = np.concatenate(parts)
    assert_close(whole, base.bonus, "a rollout played in parts gets different bonuses")


def _check_agents(bonus: Bonus, rollout: Rollout) -> None:
    """Check that two agents under `vmap` get the same bonuses as separate agents.

    The second agent has the slots of the first agent in another order.
    """
    rollout = _cut(rollout, 0, _PART)
    keys = jax.random.split(jax.random.key(2), 2)
    # The agents have different data, because with equal data it would go unnoticed if the states of
    # the agents were mixed.
    both = [rollout, jax.tree.map(lambda x: np.roll(x, 1, axis=1), rollout)]

    @jax.jit
    def one(key: Key, rollout: Rollout) -> Array:
        key_init, key_apply = jax.random.split(key)
        state = bonus.init(key_init, _SLOTS)
        return bonus.apply(key_apply, state, rollout, jnp.ones(_SLOTS))[1]

    alone = np.stack([one(*pair) for pair in zip(keys, both, strict=True)])
    together = jax.jit(jax.vmap(one))(keys, jax.tree.map(lambda *x: np.stack(x), *both))
    assert_close(together, alone, "agents under vmap get different bonuses than separate agents")
