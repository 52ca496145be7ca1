"""Data types of the levels and states of grid worlds, and the actions."""

from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Float, Int

UP, DOWN, LEFT, RIGHT, STAY = range(5)
NUM_ACTIONS = 5


@no_type_check  # JAX also builds it from leaves that are not arrays
@struct.dataclass
class Level:
    """One grid world, with at most C cells and at most n objects of k types.

    Cells are numbered row by row in the level's own grid, which is `size` cells wide. Only the
    first `size * size` of the C cells exist. Unused entries are False, -1 or 0, so that equal
    worlds have equal arrays.
    """

    size: Int[Array, "*batch"]  # cells per side
    walls: Bool[Array, "*batch C"]  # False beyond the level's own cells
    start: Int[Array, "*batch"]  # cell of the agent
    num_objects: Int[Array, "*batch"]  # only the first `num_objects` of the n entries are used
    object_type: Int[Array, "*batch n"]  # 0 .. k - 1; 0 if unused
    object_pos: Int[Array, "*batch n"]  # cell; -1 if unused, or if each episode draws the cell
    # The next three arrays have one entry per type, which is 0 if the type is unused.
    reward: Float[Array, "*batch k"]  # reward for collecting an object
    terminate_prob: Float[Array, "*batch k"]  # probability of ending the episode on collection
    respawn_prob: Float[Array, "*batch k"]  # probability that an absent object appears in a step
    max_steps_in_episode: Int[Array, "*batch"]


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    pos: Int[Array, "*batch"]  # cell of the agent
    present: Int[Array, "*batch"]  # bit i is 1 while object i is present
    time: Int[Array, "*batch"]  # steps taken
    object_pos: Int[Array, "*batch n"]  # cells, set by the level or drawn in this episode
