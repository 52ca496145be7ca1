"""Adaptation curves: how a trained policy does after a few further updates on levels like the new.

The policy goes on learning as it did, with its optimiser's moments, on levels of the same stream as
those it is scored on, and none of them. All seeds of a run adapt side by side in one program. Its
curriculum and its bonus are left behind, and a learning rate that was annealed starts over: what is
measured is how fast the policy adapts, not how its training ended.
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
    """One run on one rung, before and after some updates."""

    run: str
    rung: str
    updates: tuple[int, ...]  # K points
    steps_per_update: int  # env steps of each seed
    num_levels: int  # that it adapted on
    evaluations: tuple[Evaluation, ...]  # K, all on the same levels, with the same keys
    look: int = 0  # at these levels by this run; 0: not counted


class Play(NamedTuple):
    """How policies are scored."""

    attempts: int = 10  # at each level and point
    seed: int = 0  # of the adaptation's and the scores' random numbers, equal for runs compared


def check_updates(updates: Sequence[int]) -> tuple[int, ...]:
    """The points of a curve, as they are given.

    Raises:
        ValueError: they do not rise from 0.
    """
    points = tuple(updates)
    rises = all(a < b for a, b in itertools.pairwise(points))
    if not points or points[0] != 0 or not rises:
        raise ValueError(
            f"few-shot must be numbers of updates that rise from 0, such as 0,1,2,5,10; got "
            f"{','.join(map(str, points)) or 'nothing'}"
        )
    return points


def split(suite: Suite, num_adapt: int) -> tuple[LevelSet, Suite]:
    """Levels to adapt on, evenly spread over a suite, and the suite of all others.

    Raises:
        ValueError: fewer than one to adapt on, or none left to be scored on.
    """
    num = len(suite.levels)
    if not 0 < num_adapt < num:
        raise ValueError(
            f"{num_adapt} of the {num} levels of {suite.name} to adapt on: it must be at least 1, "
            "and leave some to be scored on (--adapt-levels)"
        )
    rows = np.linspace(0, num, num_adapt, endpoint=False).astype(int)
    rest = np.setdiff1d(np.arange(num), rows)
    return take(suite.levels, rows), suite._replace(levels=take(suite.levels, rest))


def student_of(curriculum: Any, env: Any) -> OnPolicy:
    """Who adapts: the run's student on its own, without bonus or a second agent.

    Raises:
        ValueError: the run did not train a policy on-policy.
    """
    student = curriculum.student
    if not isinstance(student, OnPolicy):
        raise ValueError(
            f"adaptation curves are of policies, and the run trained a {type(student).__name__}; "
            "of rules the lives of agents are such curves: rlgen eval RUN --horizons 10,50,250"
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
    """Score policies on a suite, after each of some numbers of updates on other levels.

    Args:
        policies: S of them.
        curriculum: that they were trained by; its student and the slots that trained are kept.
        suite: to be scored on.
        levels: to adapt on.
        updates: points of the curve, rising from 0.
        play: how each point is scored.
        progress: called with the points done and all of them.
    """
    points = check_updates(updates)
    student = student_of(curriculum, suite.env)
    num_slots = curriculum.student.num_trained(curriculum.num_slots)  # as many as learned
    student.check(num_slots)
    num_seeds = jax.tree.leaves(policies.states)[0].shape[0]
    keys = jax.random.split(jax.random.key(play.seed), num_seeds)
    learn = _program(student, num_slots)
    level = jax.tree.map(jnp.asarray, levels.level)
    state, found = policies.states, []
    for i, (before, point) in enumerate(zip((0, *points), points, strict=False)):
        state = learn(keys, state, level, jnp.int32(before), jnp.int32(point))
        adapted = policies._replace(learner=student.learner, states=state)
        found.append(evaluate(adapted, suite, play.attempts, play.seed))
        progress(i + 1, len(points))
    steps = num_slots * student.num_steps
    name = suite.levels.split
    return Adaptation(policies.label, name, points, steps, len(levels), tuple(found))


def _program(student: OnPolicy, num_slots: int) -> Callable[..., PyTree]:
    """Updates `first` to `last - 1` of every seed's learner [S, ...]."""

    @jax.jit
    def run(keys: Key, states: PyTree, level: PyTree, first: Array, last: Array) -> PyTree:
        def one(key: Key, learner: PyTree) -> PyTree:
            def update(i: Int[Array, ""], learner: PyTree) -> PyTree:
                return _update(student, num_slots, jax.random.fold_in(key, i), learner, level)

            return jax.lax.fori_loop(first, last, update, learner)

        return jax.vmap(one)(keys, states)

    return run


def _update(student: OnPolicy, num_slots: int, key: Key, learner: PyTree, level: PyTree) -> PyTree:
    """One update on levels drawn uniformly."""
    key_level, key_run = jax.random.split(key)
    num_levels = jax.tree.leaves(level)[0].shape[0]
    row = jax.random.randint(key_level, (num_slots, 1), 0, num_levels)
    slots = Slots(
        level=jax.tree.map(lambda x: x[row], level),
        score_state=(),
        buffer_index=jnp.full((num_slots, 1), -1, jnp.int32),
        origin=jnp.full(num_slots, NEW, jnp.int32),
        weight=jnp.ones(num_slots),
        level_info=(),
    )
    state = OnPolicyState(jax.tree.map(lambda x: x[None], learner), ())
    fresh = jnp.ones(num_slots, bool)
    state, _, _ = student.run(key_run, state, slots, fresh)
    return jax.tree.map(lambda x: x[0], state.learner)
