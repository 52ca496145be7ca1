"""Returns and advantages from a rollout `[T, N]`; one formula, one function."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.types import Episodes, Rollout


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
    num_queued: int,
    success: Bool[Array, "T N"],
    before: tuple[Float[Array, " N"], Float[Array, " N"]] | tuple[()] = (),
) -> Episodes:
    """Statistics of the completed episodes of each queued level.

    Args:
        rollout: [T, N].
        num_queued: R.
        success: whether the episode that ends with step t was solved; read only where done.
        before: as for `episode_progress`.
    """
    total, length = episode_progress(rollout, before)
    done = rollout.done
    here = rollout.turn[..., None] == jnp.arange(num_queued)[None, None]  # [T, N, R]
    ended = here & done[..., None]
    num = ended.sum(0)

    def mean(x: Array) -> Array:
        return jnp.where(ended, x[..., None], 0.0).sum(0) / jnp.maximum(num, 1)

    best = jnp.where(ended, total[..., None], -jnp.inf).max(0)
    num_success = (ended & success[..., None]).sum(0)
    return Episodes(num, num_success, mean(total), best, mean(length))


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
    x: Float[Array, "T N"], rollout: Rollout, num_queued: int, completed_only: bool = False
) -> Float[Array, "N R"]:
    """Mean over episodes of the mean over steps of `x`, for each queued level.

    Args:
        x: one number a step.
        rollout: [T, N].
        num_queued: R.
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
    here = rollout.turn[..., None] == jnp.arange(num_queued)[None, None]
    weight = (counts / length)[..., None] * here
    num = (here & rollout.first[..., None] & counts[..., None]).sum(0)
    mean = (weight * x[..., None]).sum(0) / jnp.maximum(num, 1)
    return jnp.where(num > 0, mean, -jnp.inf)
