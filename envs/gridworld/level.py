"""Levels and moments of grid worlds as data, and the actions."""

from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Float, Int

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NUM_ACTIONS = 5


@no_type_check  # JAX also builds it of what is not an array
@struct.dataclass
class Level:
    """One grid world: C cells at most, n objects at most, of k types.

    Cells are counted row by row in the level's own grid, `size` cells wide, of which only the first
    `size * size` exist. Equal worlds have equal arrays: what is not used is False, -1 or 0.
    """

    size: Int[Array, "*batch"]  # cells a side
    walls: Bool[Array, "*batch C"]  # False beyond the level's own cells
    start: Int[Array, "*batch"]  # cell of the agent
    num_objects: Int[Array, "*batch"]  # the first so many of the n
    object_type: Int[Array, "*batch n"]  # 0 .. k - 1; 0 if unused
    object_pos: Int[Array, "*batch n"]  # cell; -1 if unused, or if objects are placed each episode
    reward: Float[Array, "*batch k"]  # for collecting one of a type; 0 if unused, as those below
    terminate_prob: Float[Array, "*batch k"]  # that collecting one ends the episode
    respawn_prob: Float[Array, "*batch k"]  # a step, while one is absent
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class State:
    """A moment of an episode."""

    pos: Int[Array, "*batch"]  # cell of the agent
    present: Int[Array, "*batch"]  # bit i is 1 while object i is there
    time: Int[Array, "*batch"]  # steps taken
    object_pos: Int[Array, "*batch n"]  # the level's, or where objects were placed in this episode
