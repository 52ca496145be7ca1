"""Adaptation curves: scores of a trained policy after a few further updates on levels of a rung.

A rung is a part of the ladder with one or more streams of levels (see
`rlgen.evaluation.ladder.ladder`). A stream is split into levels on which the policy adapts and
other levels on which the policy is scored. The policy continues to learn, and its optimiser keeps
its state. All seeds of a run adapt in parallel in one program. The curriculum and the bonus of the
run are not used. If the learning rate was annealed in training, it is constant at its initial value
during adaptation. The curve therefore measures how fast the policy adapts and not how its training
ended.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import LevelSet, Suite, take
from rlgen.students import OnPolicy, OnPolicyState
from rlgen.types import NEW, Key, PyTree, Slots


class Adaptation(NamedTuple):
    """Adaptation curve of one run on one rung."""

    run: str
    rung: str
    updates: tuple[int, ...]  # numbers of updates at the K points of the curve
    steps_per_update: int  # env steps per update and seed
    num_levels: int  # levels used for adaptation
    evaluations: tuple[Evaluation, ...]  # K, all on the same levels with the same keys
    look: int = 0  # how many times this run has been scored on these levels; 0 if not counted


class Play(NamedTuple):
    """Settings for adapting and scoring policies."""

    attempts: int = 10  # episodes per level at each point of the curve
    seed: int = 0  # seed of adaptation and scoring; must be equal for all runs that are compared


def check_updates(updates: Sequence[int]) -> tuple[int, ...]:
    """Validate the points of a curve and return them as a tuple.

    Raises:
        ValueError: The points do not start at 0 or are not strictly increasing.
    """
    points = tuple(updates)
    rises = all(a < b for a, b in itertools.pairwise(points))
    if not points or points[0] != 0 or not rises:
        raise ValueError(
            f"few-shot must be increasing numbers of updates that start at 0, such as 0,1,2,5,10; "
            f"got {','.join(map(str, points)) or 'nothing'}"
        )
    return points


def split(suite: Suite, num_adapt: int) -> tuple[LevelSet, Suite]:
    """Split a suite into evenly spaced levels to adapt on and a suite of all other levels.

    Raises:
        ValueError: There is no level to adapt on, or none is left for scoring.
    """
    num = len(suite.levels)
    if not 0 < num_adapt < num:
        raise ValueError(
            f"cannot use {num_adapt} of the {num} levels of {suite.name} to adapt on; "
            "--adapt-levels must be at least 1 and leave at least 1 level to score on"
        )
    rows = np.linspace(0, num, num_adapt, endpoint=False).astype(int)
    rest = np.setdiff1d(np.arange(num), rows)
    return take(suite.levels, rows), suite._replace(levels=take(suite.levels, rest))


def student_of(curriculum: Any, env: Any) -> OnPolicy:
    """Return the run's student for adaptation: a single agent without a bonus.

    Raises:
        ValueError: The run did not train a policy with an on-policy student.
    """
    student = curriculum.student
    if not isinstance(student, OnPolicy):
        raise ValueError(
            f"adaptation curves need a policy, but the run trained a {type(student).__name__}; for "
            "a learned rule, plot the returns of agents over their lifetimes instead: "
            "rlgen eval RUN --horizons 10,50,250"
        )
    learner = student.learner.without_schedule()
    alone = {"population": 1, "train_share": 1.0, "bonus": (), "updates_per_level": 1}
    return dataclasses.replace(student, env=env, learner=learner, **alone)


def adapt(
    policies: Policies,
    curriculum: Any,
    suite: Suite,
    levels: LevelSet,
    updates: Sequence[int],
    play: Play = Play(),  # noqa: B008
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Adaptation:
    """Score policies on a suite after given numbers of updates on other levels.

    Args:
        policies: Policies of S seeds.
        curriculum: Curriculum that trained the policies. Its student and its number of training
            slots are used.
        suite: Suite to score on.
        levels: Levels to adapt on.
        updates: Points of the curve, increasing from 0.
        play: Settings for scoring each point.
        progress: Callback that receives the number of points done and the total.
    """
    points = check_updates(updates)
    student = student_of(curriculum, suite.env)
    # As many slots as contributed gradients in training, so that the batch size is the same.
    num_slots = curriculum.student.num_trained(curriculum.num_slots)
    student.check(num_slots)
    num_seeds = jax.tree.leaves(policies.states)[0].shape[0]
    keys = jax.random.split(jax.random.key(play.seed), num_seeds)
    learn = _program(student, num_slots)
    level = jax.tree.map(jnp.asarray, levels.level)
    state, found = policies.states, []
    # Each point continues from the previous point, with updates `before` to `point - 1`.
    for i, (before, point) in enumerate(zip((0, *points), points, strict=False)):
        state = learn(keys, state, level, jnp.int32(before), jnp.int32(point))
        adapted = policies._replace(learner=student.learner, states=state)
        found.append(evaluate(adapted, suite, play.attempts, play.seed))
        progress(i + 1, len(points))
    steps = num_slots * student.num_steps
    name = suite.levels.split
    return Adaptation(policies.label, name, points, steps, len(levels), tuple(found))


def _program(student: OnPolicy, num_slots: int) -> Callable[..., PyTree]:
    """Return a function that runs updates `first` to `last - 1` on every seed's learner [S, ...].

    `first` and `last` are traced, so all points of a curve share one compiled program.
    """

    @jax.jit
    def run(keys: Key, states: PyTree, level: PyTree, first: Array, last: Array) -> PyTree:
        def one(key: Key, learner: PyTree) -> PyTree:
            def update(i: Int[Array, ""], learner: PyTree) -> PyTree:
                return _update(student, num_slots, jax.random.fold_in(key, i), learner, level)

            return jax.lax.fori_loop(first, last, update, learner)

        return jax.vmap(one)(keys, states)

    return run


def _update(student: OnPolicy, num_slots: int, key: Key, learner: PyTree, level: PyTree) -> PyTree:
    """Run one update on levels drawn uniformly with replacement."""
    key_level, key_run = jax.random.split(key)
    num_levels = jax.tree.leaves(level)[0].shape[0]
    row = jax.random.randint(key_level, (num_slots, 1), 0, num_levels)
    slots = Slots(
        level=jax.tree.map(lambda x: x[row], level),
        score_state=(),
        buffer_index=jnp.full((num_slots, 1), -1, jnp.int32),  # not from a level buffer
        origin=jnp.full(num_slots, NEW, jnp.int32),
        weight=jnp.ones(num_slots),
        level_info=(),
    )
    state = OnPolicyState(jax.tree.map(lambda x: x[None], learner), ())  # population of 1, no bonus
    fresh = jnp.ones(num_slots, bool)
    state, _, _ = student.run(key_run, state, slots, fresh)
    return jax.tree.map(lambda x: x[0], state.learner)
