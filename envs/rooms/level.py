"""Grids of walls, lava, doors and keys as bit masks: the level and the state of an episode.

Sets of cells are rows of bits as in `rlgen.envs.grid.rows`.
"""

from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Int, UInt32


@no_type_check  # JAX also builds this class with axes or None in place of arrays
@struct.dataclass
class Level:
    """Everything that an episode depends on; the gymnax `params` of the environment.

    A door that is neither closed nor locked is open from the start. Key k opens the door in the bit
    mask `locks[k]`, which has at most one bit set.
    """

    walls: UInt32[Array, "*batch lines words"]  # cells that cannot be entered; no lines if none
    lava: UInt32[Array, "*batch lines words"]  # cells that end the episode; no lines if none
    doors: Int[Array, "*batch D 2"]  # x, y
    closed: Int[Array, "*batch"]  # bit i: door i starts closed; walking into it opens it
    locks: Int[Array, "*batch K"]  # bit i: key k opens door i, which starts locked
    keys: Int[Array, "*batch K 2"]  # x, y
    start: Int[Array, "*batch 2"]  # x, y
    goal: Int[Array, "*batch 2"]  # x, y
    max_steps_in_episode: Int[Array, "*batch"]
    height: int = struct.field(pytree_node=False)
    width: int = struct.field(pytree_node=False)


@no_type_check
@struct.dataclass
class State:
    """State of an episode."""

    x: Int[Array, "*batch"]
    y: Int[Array, "*batch"]
    time: Int[Array, "*batch"]  # steps taken
    opened: Int[Array, "*batch"]  # bit i: door i is open
    held: Int[Array, "*batch"]  # bit k: key k has been picked up
    event: Int[Array, "*batch"]  # event of the last step, see `dynamics`


def start_of(level: Level) -> State:
    """Return the state at the start of an episode on a level."""
    x, y = level.start[0], level.start[1]
    zero = jnp.zeros_like(x)
    return State(x, y, zero, first_opened(level), zero, zero)


def first_opened(level: Level) -> Int[Array, ""]:
    """Bit mask of the doors that are open from the start."""
    num_doors, num_keys = level.doors.shape[0], level.keys.shape[0]
    shut = level.closed
    for k in range(num_keys):
        shut = shut | level.locks[k]
    return jnp.int32(2**num_doors - 1) & ~shut


def things_at(places: Int[Array, "D 2"], x: Int[Array, ""], y: Int[Array, ""]) -> Int[Array, ""]:
    """Bit mask of the doors or keys in a cell."""
    # Tracing unrolls the loop over the few doors or keys, so no gather is needed.
    found = jnp.int32(0)
    for i in range(places.shape[0]):
        here = (places[i, 0] == x) & (places[i, 1] == y)
        found |= jnp.where(here, jnp.int32(1 << i), 0)
    return found


def things_beside(
    places: Int[Array, "D 2"], x: Int[Array, ""], y: Int[Array, ""]
) -> Int[Array, ""]:
    """Bit mask of the doors that are in one of the four cells next to a cell."""
    found = jnp.int32(0)
    for i in range(places.shape[0]):
        away = jnp.abs(places[i, 0] - x) + jnp.abs(places[i, 1] - y)
        found |= jnp.where(away == 1, jnp.int32(1 << i), 0)
    return found
