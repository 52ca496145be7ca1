"""Pictures for a report: every level of a suite, and an episode that the policy solved."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.images import gif_bytes
from rlgen.evaluation.zero_shot import Policies
from rlgen.levels import Suite
from rlgen.rollout import rollout
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

    Returns:
        Caption to GIF; empty if nothing was solved or the environment cannot draw.
    """
    draw = getattr(suite.env, "render", None)
    if draw is None or isinstance(evaluation.success, tuple) or not evaluation.success.any():
        return {}
    solve_rate = evaluation.success.mean(axis=2)  # [S, M]
    hardest = np.where(solve_rate.max(0) > 0, evaluation.optimal_steps, -1).argmax()
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
        played, states = rollout(key, suite.env, learner, state, queue, limit, trace=lambda s: s)
        return played.terminated, played.done, states

    terminated, done, states = jax.device_get(run(queue))
    best = _shortest(terminated, done)
    if best is None:
        return {}
    slot, length = best
    frames = [
        np.asarray(draw(level, jax.tree.map(lambda x, t=t: x[t, slot], states)))
        for t in range(length)
    ]
    caption = f"{policies.label}, seed {who}, on {suite.levels.names[int(hardest)]}: {length} steps"
    return {caption: gif_bytes(np.stack(frames), fps=12)}


def _shortest(
    terminated: np.ndarray, done: Int[np.ndarray, "T N"] | np.ndarray
) -> tuple[int, int] | None:
    """Slot and length of the shortest first episode that terminated."""
    lengths = np.where(done.any(0), done.argmax(0) + 1, np.iinfo(int).max)
    last = np.minimum(lengths, len(done)) - 1
    solved = done.any(0) & np.take_along_axis(terminated, last[None], axis=0)[0]
    if not solved.any():
        return None
    slot = int(np.where(solved, lengths, np.iinfo(int).max).argmin())
    return slot, int(lengths[slot])


def _level(suite: Suite, i: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x)[i], suite.levels.level)
