"""Returns, advantages and episodes of a rollout `[T, N]`; one formula, one function.

The second half is the evidence that scores of levels read from an outcome.
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

    δ_t = r_t + γ v'_t − v_t with v' the value of the true next observation, 0 where the episode
    terminated; A_t = δ_t + γλ A_{t+1}, the trace cut wherever an episode ends. At a time limit the
    value is bootstrapped: the level went on, only the clock did not.

    Args:
        rollout: [T, N].
        discount: γ, per step.
        gae_lambda: λ.
        bootstrap_truncation: `False` treats a time limit as a termination, as JaxUED does.
        include_bonus: whether the intrinsic bonus counts as reward.
    Source: Schulman et al., 2016, "High-Dimensional Continuous Control Using Generalized Advantage
    Estimation", eq. 16; time limits after Pardo et al., 2018, "Time Limits in Reinforcement
    Learning".
    """
    ended = rollout.terminated if bootstrap_truncation else rollout.done
    next_value = jnp.where(ended, 0.0, rollout.next_value)
    reward = rollout.reward + rollout.bonus if include_bonus else rollout.reward
    delta = reward + discount * next_value - rollout.value

    def step(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, done_t = xs
        advantage = delta_t + discount * gae_lambda * jnp.where(done_t, 0.0, advantage)
        return advantage, advantage

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
        levels_per_slot: R.
        success: whether the episode that ends with step t was solved; read only where done.
        before: as for `episode_progress`.
    """
    total, length = episode_progress(rollout, before)
    done = rollout.done
    here = rollout.level_index[..., None] == jnp.arange(levels_per_slot)[None, None]  # [T, N, R]
    ended = here & done[..., None]
    num = ended.sum(0)

    def mean(x: Array) -> Array:
        return jnp.where(ended, x[..., None], 0.0).sum(0) / jnp.maximum(num, 1)

    best = jnp.where(ended, total[..., None], -jnp.inf).max(0)
    num_success = (ended & success[..., None]).sum(0)
    return EpisodeStats(num, num_success, mean(total), best, mean(length))


def episode_progress(
    rollout: Rollout, before: tuple[Float[Array, " N"], Float[Array, " N"]] | tuple[()] = ()
) -> tuple[Float[Array, "T N"], Float[Array, "T N"]]:
    """Extrinsic return and number of steps of the running episode, up to and with each step.

    Args:
        rollout: [T, N].
        before: return and steps of the episode that the rollout begins in the middle of, the last
            row of an earlier answer; not counted if the rollout's first step begins an episode.
    """

    def step(carry: tuple, xs: tuple) -> tuple:
        total, length = carry
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
    """Mean over episodes of the mean over steps of `x`, for each queued level.

    Args:
        x: one number a step.
        rollout: [T, N].
        levels_per_slot: R.
        completed_only: whether the last, unfinished episode of a slot is left out (as in JaxUED).

    Returns:
        The means; `-inf` for a level of which no episode counts.
    """
    progress = episode_progress(rollout)[1]

    def back(carry: tuple, xs: tuple) -> tuple:
        length, complete = carry
        progress_t, done_t, last_t = xs
        length = jnp.where(last_t, progress_t, length)
        complete = jnp.where(last_t, done_t, complete)
        return (length, complete), (length, complete)

    # Walking back from the end, every step learns its episode's length and whether it finished.
    last = jnp.concatenate([rollout.first[1:], jnp.ones_like(rollout.first[:1])]) | rollout.done
    start = jnp.zeros_like(progress[0]), jnp.zeros_like(rollout.first[0])
    xs = progress, rollout.done, last
    length, complete = jax.lax.scan(back, start, xs, reverse=True, unroll=8)[1]
    counts = complete if completed_only else jnp.ones_like(complete)
    here = rollout.level_index[..., None] == jnp.arange(levels_per_slot)[None, None]
    weight = (counts / length)[..., None] * here
    num = (here & rollout.first[..., None] & counts[..., None]).sum(0)
    mean = (weight * x[..., None]).sum(0) / jnp.maximum(num, 1)
    return jnp.where(num > 0, mean, -jnp.inf)


def protagonist(outcome: Outcome) -> Rollout:
    """The rollout [T, N] of member 0 of the population."""
    return jax.tree.map(lambda x: x[0], outcome.rollout)


def extrinsic_advantage(
    rollout: Rollout, discount: float, gae_lambda: float, bootstrap_truncation: bool
) -> Float[Array, "T N"]:
    """GAE of the extrinsic reward alone, so that exploration bonuses cannot raise a score."""
    return gae(rollout, discount, gae_lambda, bootstrap_truncation, include_bonus=False)


def discounting(learner: Any) -> dict[str, Any]:
    """The fields of a learner's advantages that a score's share with them."""
    return {
        "discount": learner.discount,
        "gae_lambda": learner.gae_lambda,
        "bootstrap_truncation": learner.bootstrap_truncation,
    }


def completed(outcome: Outcome, levels_per_slot: int) -> EpisodeStats:
    """The episodes of each level, [N, R]: those that the student reports, else the rollout's.

    A meta-learner reports what its agents earn at the end of their lives, of which the batches that
    it learns from show little. An on-policy student reports those of its rollout.
    """
    if isinstance(outcome.episodes, EpisodeStats):
        return outcome.episodes
    rollout = protagonist(outcome)
    return episodes(rollout, levels_per_slot, success=jnp.zeros_like(rollout.terminated))


def best_return(slots: Slots, outcome: Outcome) -> Float[Array, "N R"]:
    """R_max: the highest undiscounted return of a completed episode on each level so far.

    Args:
        slots: whose memory is R_max before this outcome, [N, R].
        outcome: of member 0.
    """
    return jnp.maximum(
        slots.score_state, completed(outcome, slots.buffer_index.shape[1]).max_return
    )


def at_each_step(x: Float[Array, "N R"], turn: Int[Array, "T N"]) -> Float[Array, "T N"]:
    """A number of each level, at the steps that were played on it."""
    return jnp.take_along_axis(x, turn.T, axis=1).T


def environment_fields(env: LevelEnv) -> dict[str, Any]:
    """The least return there is, where the environment says that it is not 0."""
    return {"floor": float(env.lowest_return)}
