"""Pictures for a report: every level of a suite, and an episode that the policy solved."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.images import gif_bytes
from rlgen.evaluation.zero_shot import Policies
from rlgen.levels import Suite
from rlgen.rollout import Record, rollout
from rlgen.types import PyTree

MAX_PICTURES = 64
MAX_FRAMES = 400
TRIES = 16


def level_images(suite: Suite) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """A picture of each level by its name; none if the environment cannot draw."""
    draw = getattr(suite.env, "level_image", None)
    if draw is None:
        return {}
    shown = range(min(len(suite.levels), MAX_PICTURES))
    return {suite.levels.names[i]: np.asarray(draw(_level(suite, i))) for i in shown}


def episode_gif(
    policies: Policies, suite: Suite, evaluation: Evaluation, seed: int = 0
) -> dict[str, bytes]:
    """An animation of the shortest of some solved episodes on the hardest level that was solved.

    Of an episode longer than `MAX_FRAMES` steps the beginning is shown and judged.

    Returns:
        Caption to GIF; empty if nothing was solved or the environment cannot draw.
    """
    draw = getattr(suite.env, "render", None)
    if draw is None or isinstance(evaluation.success, tuple) or not evaluation.success.any():
        return {}
    solve_rate = evaluation.success.mean(axis=2)  # [S, M]
    hardest = _hardest(solve_rate.mean(0), evaluation.optimal_steps)
    who = int(solve_rate[:, hardest].argmax())
    level = _level(suite, int(hardest))
    part = getattr(policies.learner, "bptt_steps", 0) or 1  # a rollout is made of whole parts
    limit = -(-min(int(level.max_steps_in_episode), MAX_FRAMES) // part) * part
    state = jax.tree.map(lambda x: x[who], policies.states)
    queue = jax.tree.map(lambda x: jnp.broadcast_to(x, (TRIES, 1, *x.shape)), level)

    @jax.jit
    def run(queue: PyTree) -> tuple:
        key = jax.random.key(seed)
        learner = policies.learner
        played, states = rollout(key, suite.env, learner, state, queue, limit, Record(lambda s: s))
        return played.reward, played.terminated, played.done, states

    reward, terminated, done, states = jax.device_get(run(queue))
    length = np.where(done.any(0), done.argmax(0) + 1, limit)  # of each slot's first episode
    total = (reward * (np.arange(limit)[:, None] < length[None])).sum(0)
    ended = np.take_along_axis(terminated, length[None] - 1, axis=0)[0]
    solved = np.asarray(getattr(suite.env, "success")(*map(jnp.asarray, (total, ended))))  # noqa: B009
    if not solved.any():
        return {}
    slot = int(np.where(solved, length, np.iinfo(int).max).argmin())
    frames = [
        np.asarray(draw(level, jax.tree.map(lambda x, t=t: x[t, slot], states)))
        for t in range(length[slot])
    ]
    name = suite.levels.names[int(hardest)]
    caption = f"{policies.label}, seed {who}, on {name}: {length[slot]} steps"
    return {caption: gif_bytes(np.stack(frames), fps=min(max(12, len(frames) // 10), 40))}


def _hardest(solve_rate: Float[np.ndarray, " M"], optimal_steps: Int[np.ndarray, " M"]) -> int:
    """Of the levels that were solved, the longest by its optimum, then the one least often."""
    order = np.lexsort((-solve_rate, np.where(solve_rate > 0, optimal_steps, -2)))
    return int(order[-1])


def _level(suite: Suite, i: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x)[i], suite.levels.level)
