"""What the agent of a grid world sees: the number of the state, or where things are.

A tabular level's moment is one of few: the agent's cell and which objects are there. Otherwise
objects lie anywhere, and the observation has their cells, from which `unpack` makes an image. Walls
are part of the level and not of what is seen, nor is time.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.envs.gridworld.dynamics import from_bits
from rlgen.envs.gridworld.level import Level, State


class Places(NamedTuple):
    """An observation of objects that lie anywhere; cells by rows of the largest grid."""

    agent: Int[Array, "*batch"]  # cell
    objects: Int[Array, "*batch n"]  # type * G * G + cell; -1 if absent


def number(level: Level, state: State) -> Int[Array, ""]:
    """The state's number, `cell + C * present`, with cells counted in the level's own grid."""
    return state.pos + level.walls.size * state.present


def places(level: Level, state: State, max_size: int) -> Places:
    """Where agent and objects are."""

    def cell(pos: Array) -> Array:
        return pos // level.size * max_size + pos % level.size

    there = from_bits(state.present, level.object_type.shape[0])
    objects = cell(state.object_pos) + level.object_type * max_size**2
    return Places(cell(state.pos), jnp.where(there, objects, -1))


def unpack_number(
    obs: Int[Array, "*B"], num_cells: int, num_objects: int
) -> dict[str, Float[Array, "..."]]:
    """`cell` [..., C], one-hot, and `objects` [..., n], 1 for those that are there."""
    return {
        "cell": jax.nn.one_hot(obs % num_cells, num_cells),
        "objects": from_bits(obs // num_cells, num_objects).astype(jnp.float32),
    }


def unpack_places(obs: Places, max_size: int, num_types: int) -> dict[str, Float[Array, "..."]]:
    """`image` [..., G, G, 1 + k]: one plane for the agent and one for each type of object."""
    agent = jax.nn.one_hot(obs.agent, max_size**2)
    objects = jax.nn.one_hot(obs.objects, num_types * max_size**2).sum(-2)
    planes = jnp.concatenate([agent, objects], -1)
    planes = planes.reshape(*agent.shape[:-1], 1 + num_types, max_size, max_size)
    return {"image": jnp.moveaxis(planes, -3, -1)}
