"""Returns of each member of a population on each level."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.returns import episode_progress, episodes
from rlgen.types import Rollout


def member_returns(
    rollouts: Rollout, levels_per_slot: int, completed_only: bool
) -> tuple[Float[Array, "P N R"], Float[Array, "P N R"]]:
    """Mean and maximum undiscounted extrinsic return of each learner on each queued level.

    The mean and the maximum are taken over completed episodes. If a learner completed no episode on
    a level, both are the return so far of the unfinished episode at the end of the rollout. A level
    on which a learner wanders for the whole rollout therefore still gets a score.

    Args:
        rollouts: Rollouts of all learners, [P, T, N].
        levels_per_slot: Number of levels in the queue of a slot, R.
        completed_only: Never count an unfinished episode.

    Returns:
        Mean and maximum; `-inf` where no episode counts.
    """

    def member(rollout: Rollout) -> tuple[Array, Array]:
        unasked = jnp.zeros_like(rollout.terminated)  # only the returns are used, not num_success
        stats = episodes(rollout, levels_per_slot, success=unasked)
        so_far = jnp.full(stats.num.shape, -jnp.inf)
        if not completed_only:
            # Marks the level that a slot plays in an unfinished episode at the last step, [N, R].
            last = rollout.level_index[-1][:, None] == jnp.arange(levels_per_slot)[None]
            running = last & ~rollout.done[-1][:, None]
            so_far = jnp.where(running, episode_progress(rollout)[0][-1][:, None], so_far)
        # One unfinished episode serves as both the mean and the maximum.
        some = stats.num > 0
        best = jnp.where(some, stats.max_return, so_far)
        return jnp.where(some, stats.mean_return, so_far), best

    return jax.vmap(member)(rollouts)
