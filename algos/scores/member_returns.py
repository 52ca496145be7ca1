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

    Of completed episodes. A learner that completed none on a level has the return so far of the
    one that the rollout's end cut off, so that a level on which somebody wanders about for all of
    the rollout is judged by that and not passed over.

    Args:
        rollouts: [P, T, N].
        levels_per_slot: R.
        completed_only: never count an episode that was cut off.

    Returns:
        Both; `-inf` where no episode counts.
    """

    def member(rollout: Rollout) -> tuple[Array, Array]:
        unasked = jnp.zeros_like(rollout.terminated)
        stats = episodes(rollout, levels_per_slot, success=unasked)
        so_far = jnp.full(stats.num.shape, -jnp.inf)
        if not completed_only:
            last = rollout.level_index[-1][:, None] == jnp.arange(levels_per_slot)[None]
            running = last & ~rollout.done[-1][:, None]
            so_far = jnp.where(running, episode_progress(rollout)[0][-1][:, None], so_far)
        some = stats.num > 0
        best = jnp.where(some, stats.max_return, so_far)
        return jnp.where(some, stats.mean_return, so_far), best

    return jax.vmap(member)(rollouts)
