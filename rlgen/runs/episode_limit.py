"""Compare the longest episodes of a run with the time that a slot has for them."""

from typing import Any

import jax
import numpy as np

from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv, Student
from rlgen.types import Key

NUM_SAMPLED = 1024
"""Number of sampled levels whose time limits are compared, if the training set is not finite."""


def start_warnings(env: LevelEnv, curriculum: Curriculum) -> list[str]:
    """Return the student's warnings for the time limits of the training levels."""
    student = curriculum.student
    if not student.offers(Student.start_warnings):  # saves the sampling of levels
        return []
    return student.start_warnings(longest_episode(env, curriculum))


def longest_episode(env: LevelEnv, curriculum: Curriculum) -> int:
    """Highest time limit in steps of the training set, or of sampled levels if it is not finite.

    Returns:
        The limit; 0 if levels have no field `max_steps_in_episode`.
    """
    chosen = curriculum.sampler.level_set
    if chosen is not None:
        return int(np.max(np.asarray(_limit(chosen.level))))

    def limits(keys: Key) -> Any:
        # The compiler removes everything that the time limits do not depend on, so that this
        # costs little even if a level is expensive to sample.
        return jax.vmap(lambda key: _limit(env.sample_level(key)))(keys).max()

    return int(jax.jit(limits)(jax.random.split(jax.random.key(0), NUM_SAMPLED)))


def _limit(level: Any) -> Any:
    # An environment that overrides `is_truncated` may have levels without this field.
    return getattr(level, "max_steps_in_episode", np.int32(0))
