"""Pictures for a report: levels of a suite, and episodes on the levels with the lowest scores.

Each episode in the report is chosen from several new episodes, which are called tries.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report.images import gif_bytes
from rlgen.evaluation.stats.formatting import show
from rlgen.evaluation.zero_shot import Policies
from rlgen.levels import Suite
from rlgen.protocols import LevelEnv
from rlgen.registry import has
from rlgen.rollout import Record, rollout
from rlgen.types import PyTree

MAX_PICTURES = 64  # maximum number of levels of a suite that are drawn
MAX_FRAMES = 400  # maximum number of frames of an animation, up to rounding
TRIES = 16  # number of episodes from which one is chosen


class Tries(NamedTuple):
    """N parallel episodes of one policy on one level."""

    solved: Bool[np.ndarray, " N"] | tuple[()]  # () if the family does not define success
    over: Bool[np.ndarray, " N"]  # whether the episode ended within the recorded steps
    length: Int[np.ndarray, " N"]  # number of recorded steps of the episode
    total: Float[np.ndarray, " N"]  # sum of rewards over these steps
    states: PyTree  # [T, N, ...]


def level_images(suite: Suite) -> dict[str, UInt8[np.ndarray, "H W 3"]]:
    """Draw the first `MAX_PICTURES` levels, by name; {} if the environment has no `level_image`."""
    if not has(suite.env, LevelEnv.level_image):
        return {}
    draw = suite.env.level_image
    shown = range(min(len(suite.levels), MAX_PICTURES))
    return {suite.levels.names[i]: np.asarray(draw(_level(suite, i))) for i in shown}


def replays(
    policies: Policies, suite: Suite, evaluation: Evaluation, seed: int = 0, num_worst: int = 1
) -> dict[str, bytes]:
    """Animate episodes on a run's worst levels and on the hardest level that the run solved.

    Worst levels have the lowest scores; ties are broken by the longest optimal solution. On each
    worst level, the seed with the lowest score and the seed with the highest score play `TRIES` new
    episodes each. The first failed episode of the former and the shortest solved episode of the
    latter are shown, if these exist. On the hardest solved level (see `_hardest`), only the seed
    with the highest score plays. If the family does not define success, there is no hardest solved
    level, and the episodes with the lowest and the highest return are shown. Only about
    `MAX_FRAMES` steps of an episode are recorded, and only these steps determine whether the
    episode counts as solved.

    Args:
        policies: Policies of the run.
        suite: Suite that was played.
        evaluation: Evaluation of these policies on the suite.
        seed: Seed of the episodes' random numbers.
        num_worst: Number of worst levels.

    Returns:
        GIFs by caption; {} if the environment has no `render`.
    """
    draw = suite.env.render if has(suite.env, LevelEnv.render) else None
    if draw is None:
        return {}
    score = evaluation.score[1].mean(axis=2)  # [S, M]
    rate, steps = score.mean(axis=0), evaluation.optimal_steps
    # The last key of `lexsort` is the primary one: lowest score, then longest optimal solution.
    worst = [int(i) for i in np.lexsort((-steps, rate))[:num_worst]]
    wanted = [(i, int(score[:, i].argmin()), _worst) for i in worst]
    wanted += [(i, int(score[:, i].argmax()), _best) for i in worst]
    if not isinstance(evaluation.success, tuple) and evaluation.success.any():
        hard = _hardest(rate, steps)
        wanted.append((hard, int(score[:, hard].argmax()), _best))
    # Remove duplicates. Sort the episodes by level, beginning with the worst level.
    wanted = sorted(dict.fromkeys(wanted), key=lambda one: [*worst, one[0]].index(one[0]))
    play = _player(policies, suite, seed, [i for i, _, _ in wanted])
    found = {}
    for i, who, pick in wanted:
        tries = play(i, who)
        slot = pick(tries)
        if slot is not None:
            told = _told(tries, slot, _overall(evaluation, i))
            caption = f"{policies.label}, seed {who}, on {suite.levels.names[i]}: {told}"
            found[caption] = _gif(draw, _level(suite, i), tries, slot)
    return found


def _player(
    policies: Policies, suite: Suite, seed: int, levels: list[int]
) -> Callable[[int, int], Tries]:
    """Return a function of a level index and a policy index that plays episodes.

    All levels and policies share one compiled program.
    """
    learner = policies.learner
    part = learner.bptt_steps or 1  # the rollout length must be a multiple of this number
    longest = max(int(_level(suite, i).max_steps_in_episode) for i in levels)
    limit = -(-min(longest, MAX_FRAMES) // part) * part

    @jax.jit
    def run(state: PyTree, queue: PyTree) -> tuple:
        key, record = jax.random.key(seed), Record(lambda s: s)
        played, states = rollout(key, suite.env, learner, state, queue, limit, record)
        return played.reward, played.terminated, played.done, states

    def play(i: int, who: int) -> Tries:
        state = jax.tree.map(lambda x: x[who], policies.states)
        level = _level(suite, i)
        # Every slot plays a queue of one level, [TRIES, 1, ...].
        queue = jax.tree.map(lambda x: jnp.broadcast_to(x, (TRIES, 1, *x.shape)), level)
        reward, terminated, done, states = jax.device_get(run(state, queue))
        # A slot is reset after its first episode and continues, but only the first one counts, [N].
        length = np.where(done.any(0), done.argmax(0) + 1, limit)
        # Sum the rewards [T, N] over the steps of each slot's first episode.
        total = (reward * (np.arange(limit)[:, None] < length[None])).sum(0)
        ended = np.take_along_axis(terminated, length[None] - 1, axis=0)[0]
        own = suite.env.success if has(suite.env, LevelEnv.success) else None
        solved = () if own is None else np.asarray(own(*map(jnp.asarray, (total, ended))))
        return Tries(solved, done.any(0), length, total, states)

    return play


def _worst(tries: Tries) -> int | None:
    """Index of the first failed episode; None if all episodes were solved.

    If the family does not define success, return the index of the episode with the lowest return.
    """
    if isinstance(tries.solved, tuple):
        return int(tries.total.argmin())
    return None if tries.solved.all() else int((~tries.solved).argmax())


def _best(tries: Tries) -> int | None:
    """Index of the shortest solved episode; None if no episode was solved.

    If the family does not define success, return the index of the episode with the highest return.
    """
    if isinstance(tries.solved, tuple):
        return int(tries.total.argmax())
    if not tries.solved.any():
        return None
    return int(np.where(tries.solved, tries.length, np.iinfo(int).max).argmin())


def _told(tries: Tries, slot: int, overall: str) -> str:
    """Describe the outcome of one episode, followed by the overall result on the level."""
    length = int(tries.length[slot])
    steps = f"{length} steps" if tries.over[slot] else f"the first {length} steps"
    if isinstance(tries.solved, tuple):
        return f"return {tries.total[slot]:.3g} in {steps} ({overall})"
    if tries.solved[slot]:
        return f"solved in {steps} ({overall})"
    return f"not solved {'in' if tries.over[slot] else 'within'} {steps} ({overall})"


def _overall(evaluation: Evaluation, i: int) -> str:
    """Describe the result of all seeds on level i."""
    name, score = evaluation.score
    value = show(float(score[:, i].mean()), name, 0)
    what = "solved" if name == "solve rate" else f"overall {name}"
    of = f"{what} {value}" + " of the time" * (name == "solve rate")
    return f"{of}, {evaluation.shape[0]} × {evaluation.shape[2]} episodes"  # noqa: RUF001


def _gif(draw: Any, level: PyTree, tries: Tries, slot: int) -> bytes:
    frames = [
        np.asarray(draw(level, jax.tree.map(lambda x, t=t: x[t, slot], tries.states)))
        for t in range(tries.length[slot])
    ]
    return gif_bytes(np.stack(frames), fps=min(max(12, len(frames) // 10), 40))


def _hardest(solve_rate: Float[np.ndarray, " M"], optimal_steps: Int[np.ndarray, " M"]) -> int:
    """Index of the solved level with the longest optimal solution.

    Ties are broken by the lowest solve rate.
    """
    # Levels that were never solved get -2 and are sorted first; levels with unknown optima have -1.
    order = np.lexsort((-solve_rate, np.where(solve_rate > 0, optimal_steps, -2)))
    return int(order[-1])


def _level(suite: Suite, i: int) -> PyTree:
    return jax.tree.map(lambda x: jnp.asarray(x)[i], suite.levels.level)
