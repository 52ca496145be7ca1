"""Returns, advantages and episode statistics of a rollout `[T, N]`, one formula per function.

`protagonist` and the functions below it extract data from an outcome for level scores.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.protocols import LevelEnv
from rlgen.types import EpisodeStats, Outcome, Rollout, Slots


def gae(
    rollout: Rollout,
    discount: float,
    gae_lambda: float,
    bootstrap_truncation: bool = True,
    include_bonus: bool = True,
) -> Float[Array, "T N"]:
    """Generalised advantage estimates.

    The advantage is A_t = δ_t + γλ A_{t+1} with δ_t = r_t + γ v'_t − v_t; the recursion restarts at
    the end of each episode, where A_{t+1} counts as 0. v'_t is the value of the true next
    observation, or 0 if the episode terminated. If the episode reached its time limit, v'_t is
    still the value of the next observation, because without the limit the episode would have
    continued.

    Args:
        rollout: [T, N].
        discount: γ, discount per step.
        gae_lambda: λ.
        bootstrap_truncation: if False, treat a time limit as a termination, as JaxUED does.
        include_bonus: add the intrinsic bonus to the reward.

    Returns:
        Advantages, [T, N], in units of reward.
    Source: Schulman et al., 2016, "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation", eq. 16; time limits after Pardo et al., 2018, "Time Limits in Reinforcement
    Learning".
    """
    # Where `ended` is True, no value is bootstrapped. The recursion in `step` restarts at the end
    # of every episode.
    ended = rollout.terminated if bootstrap_truncation else rollout.done
    next_value = jnp.where(ended, 0.0, rollout.next_value)
    # The bonus is added only here, so that `rollout.reward` stays extrinsic.
    reward = rollout.reward + rollout.bonus if include_bonus else rollout.reward
    delta = reward + discount * next_value - rollout.value

    def step(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, done_t = xs
        advantage = delta_t + discount * gae_lambda * jnp.where(done_t, 0.0, advantage)
        return advantage, advantage

    # Unrolled, because a step consists of a few elementwise operations, which take less time than
    # the overhead of a loop iteration.
    start = jnp.zeros_like(delta[0])
    return jax.lax.scan(step, start, (delta, rollout.done), reverse=True, unroll=8)[1]


def episodes(
    rollout: Rollout,
    levels_per_slot: int,
    success: Bool[Array, "T N"],
    before: tuple[Float[Array, " N"], Float[Array, " N"]] | tuple[()] = (),
) -> EpisodeStats:
    """Statistics of the completed episodes of each queued level.

    Args:
        rollout: [T, N].
        levels_per_slot: R, number of queued levels.
        success: True where step t ends a solved episode; ignored where step t ends no episode.
        before: return and length so far of episodes that began earlier; see `episode_progress`.

    Returns:
        Statistics, [N, R]; means are NaN for a level without a completed episode.
    """
    total, length = episode_progress(rollout, before)
    done = rollout.done
    here = rollout.level_index[..., None] == jnp.arange(levels_per_slot)[None, None]  # [T, N, R]
    ended = here & done[..., None]
    num = ended.sum(0)

    def mean(x: Array) -> Array:
        # 0 / 0 gives NaN: a mean over no episode is unknown, and a 0 would look like a return of 0.
        return jnp.where(ended, x[..., None], 0.0).sum(0) / num

    # `total` at the last step of an episode is its return, so each episode contributes one number.
    best = jnp.where(ended, total[..., None], -jnp.inf).max(0)
    num_success = (ended & success[..., None]).sum(0)
    return EpisodeStats(num, num_success, mean(total), best, mean(length))


def episode_progress(
    rollout: Rollout, before: tuple[Float[Array, " N"], Float[Array, " N"]] | tuple[()] = ()
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """Extrinsic return and number of steps of the current episode, up to and including each step.

    Args:
        rollout: [T, N].
        before: return and number of steps so far, [N] each, of episodes that began before the
            rollout. They are the last row of this function's result for the previous rollout. They
            are ignored where the first step of this rollout begins an episode.

    Returns:
        Return and number of steps, [T, N] each.
    """

    def step(carry: tuple, xs: tuple) -> tuple:
        total, length = carry  # [N]; lengths are floats, since `episodes` averages them
        reward, first = xs
        total = jnp.where(first, 0.0, total) + reward
        length = jnp.where(first, 0.0, length) + 1.0
        return (total, length), (total, length)

    zero = jnp.zeros_like(rollout.reward[0])
    start = before or (zero, zero)
    return jax.lax.scan(step, start, (rollout.reward, rollout.first), unroll=8)[1]


def mean_per_level(
    x: Float[Array, "T N"], rollout: Rollout, levels_per_slot: int, completed_only: bool = False
) -> Float[Array, "N R"]:
    """Mean of `x` over the steps of an episode, averaged over episodes, for each queued level.

    Args:
        x: a number for each step.
        rollout: [T, N].
        levels_per_slot: R, number of queued levels.
        completed_only: leave out the last episode of a slot if this episode is unfinished, as
            JaxUED does.

    Returns:
        Means, [N, R]; `-inf` for a level without an episode that counts.
    """
    progress = episode_progress(rollout)[1]

    def back(carry: tuple, xs: tuple) -> tuple:
        length, complete = carry
        progress_t, done_t, last_t = xs
        length = jnp.where(last_t, progress_t, length)
        complete = jnp.where(last_t, done_t, complete)
        return (length, complete), (length, complete)

    # For each step, a backward scan finds the length of its episode and whether the episode
    # finished. `last` marks the last step of each episode, including an episode that the end of the
    # rollout interrupts.
    last = jnp.concatenate([rollout.first[1:], jnp.ones_like(rollout.first[:1])]) | rollout.done
    start = jnp.zeros_like(progress[0]), jnp.zeros_like(rollout.first[0])
    xs = progress, rollout.done, last
    length, complete = jax.lax.scan(back, start, xs, reverse=True, unroll=8)[1]
    counts = complete if completed_only else jnp.ones_like(complete)
    here = rollout.level_index[..., None] == jnp.arange(levels_per_slot)[None, None]
    weight = (counts / length)[..., None] * here  # [T, N, R]; sums to 1 over an episode's steps
    # Episodes are counted at their first step; the first step of a rollout counts as the first step
    # of an episode in every slot (see `OnPolicy`).
    num = (here & rollout.first[..., None] & counts[..., None]).sum(0)
    mean = (weight * x[..., None]).sum(0) / jnp.maximum(num, 1)
    return jnp.where(num > 0, mean, -jnp.inf)


def protagonist(outcome: Outcome) -> Rollout:
    """Rollout [T, N] of the protagonist, member 0 of the population."""
    return jax.tree.map(lambda x: x[0], outcome.rollout)


def extrinsic_advantage(
    rollout: Rollout, discount: float, gae_lambda: float, bootstrap_truncation: bool
) -> Float[Array, "T N"]:
    """GAE of the extrinsic reward alone, so that exploration bonuses cannot raise a score."""
    return gae(rollout, discount, gae_lambda, bootstrap_truncation, include_bonus=False)


def discounting(learner: Any) -> dict[str, Any]:
    """Settings of a learner's advantage estimate that level scores use as well."""
    return {
        "discount": learner.discount,
        "gae_lambda": learner.gae_lambda,
        "bootstrap_truncation": learner.bootstrap_truncation,
    }


def completed(outcome: Outcome, levels_per_slot: int) -> EpisodeStats:
    """Episode statistics of each queued level, [N, R].

    If the student reports episode statistics, these statistics are returned. An on-policy student
    reports the episodes of its rollout. A meta-learner reports the final returns of its agents,
    which its training batches do not contain. If the student reports no statistics, they are
    computed from the protagonist's rollout, without counting solved episodes.
    """
    if isinstance(outcome.episodes, EpisodeStats):
        return outcome.episodes
    rollout = protagonist(outcome)
    return episodes(rollout, levels_per_slot, success=jnp.zeros_like(rollout.terminated))


def best_return(slots: Slots, outcome: Outcome) -> Float[Array, "N R"]:
    """R_max: the highest undiscounted return of a completed episode on each level so far.

    Args:
        slots: slots whose `score_state` is R_max before this outcome, [N, R].
        outcome: result of the student.
    """
    return jnp.maximum(
        slots.score_state, completed(outcome, slots.buffer_index.shape[1]).max_return
    )


def at_each_step(x: Float[Array, "N R"], turn: Int[Array, "T N"]) -> Float[Array, "T N"]:
    """Expand a value per queued level, [N, R], to the steps played on the level, [T, N].

    Args:
        x: a value for each queued level.
        turn: index of the queued level at each step, `Rollout.level_index`.
    """
    # The indices are transposed to [N, T] to select along axis R of [N, R].
    return jnp.take_along_axis(x, turn.T, axis=1).T


def environment_fields(env: LevelEnv) -> dict[str, Any]:
    """Arguments of scores that depend on the environment: `floor`, a lower bound on all returns."""
    return {"floor": float(env.lowest_return)}
