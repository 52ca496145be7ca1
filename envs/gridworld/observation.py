"""Observations of the grid worlds: the index of the state, or the cells of agent and objects.

In tabular modes a state consists of the agent's cell and the set of present objects, so a level has
few states. In other modes objects can lie in any cell. The observation then contains the cells of
the objects, from which `unpack` makes an image. The agent observes neither the walls, which are
part of the level, nor the time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.envs.gridworld.dynamics import from_bits
from rlgen.envs.gridworld.level import Level, State


class Places(NamedTuple):
    """Cells of the agent and the objects, numbered row by row in the largest grid, G x G."""

    agent: Int[Array, "*batch"]  # cell
    objects: Int[Array, "*batch n"]  # type * G * G + cell; -1 if absent


def number(level: Level, state: State) -> Int[Array, ""]:
    """Return the index of the state, `cell + C * present`.

    C is the length of `level.walls`, and `present` has one bit per object. The cells are numbered
    in the level's own grid.
    """
    return state.pos + level.walls.size * state.present


def places(level: Level, state: State, max_size: int) -> Places:
    """Return the cells of the agent and of the present objects."""

    def cell(pos: Array) -> Array:  # converts a cell of the level's own grid to the largest grid
        return pos // level.size * max_size + pos % level.size

    there = from_bits(state.present, level.object_type.shape[0])
    objects = cell(state.object_pos) + level.object_type * max_size**2
    return Places(cell(state.pos), jnp.where(there, objects, -1))


def unpack_number(
    obs: Int[Array, "*B"], num_cells: int, num_objects: int
) -> dict[str, Float[Array, "..."]]:
    """Return the one-hot `cell` [..., C], and `objects` [..., n] with 1 for each present object."""
    return {
        "cell": jax.nn.one_hot(obs % num_cells, num_cells),
        "objects": from_bits(obs // num_cells, num_objects).astype(jnp.float32),
    }


def unpack_places(obs: Places, max_size: int, num_types: int) -> dict[str, Float[Array, "..."]]:
    """Return `image` [..., G, G, 1 + k] with one plane for the agent and one per object type.

    G is `max_size`, and k is `num_types`.
    """
    agent = jax.nn.one_hot(obs.agent, max_size**2)
    # -1, an absent object, gives a row of zeros.
    objects = jax.nn.one_hot(obs.objects, num_types * max_size**2).sum(-2)
    planes = jnp.concatenate([agent, objects], -1)
    planes = planes.reshape(*agent.shape[:-1], 1 + num_types, max_size, max_size)
    return {"image": jnp.moveaxis(planes, -3, -1)}
