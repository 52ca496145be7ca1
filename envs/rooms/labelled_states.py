"""Uniformly drawn states of grids with doors and keys, and the best actions in each state."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.rows import MARGIN, unpack_rows
from rlgen.envs.rooms import dynamics
from rlgen.envs.rooms.level import Level, State, first_opened
from rlgen.envs.rooms.solver import Map, before, map_of, reachable
from rlgen.types import Key

NUM_ACTIONS = 5
_WORD = 32


def labelled_states(
    key: Key, level: Level, num: int, doors_closed: bool = True
) -> tuple[State, Bool[Array, "S 5"]]:
    """Draw S states with time 0, each with the actions that begin a shortest path to the goal.

    States are uniform over all combinations of cell, open doors and held keys that an episode can
    reach, except states at the goal. Doors that jam are not supported, because they open at random.

    Args:
        key: Consumed.
        level: One level.
        num: S, the number of states.
        doors_closed: Whether the family has doors that can be shut.

    Returns:
        The states, and a mask of the best actions of each state.
    """
    here = map_of(level, doors_closed)
    alive = reachable(here) & ~here.goal[None]
    states = _draw(key, level, alive, num, doors_closed)  # [S]
    actions = jnp.arange(NUM_ACTIONS)
    step = jax.vmap(lambda state, action: dynamics.step(state, action, level), (None, 0))
    outcome = jax.vmap(step, (0, None))(states, actions)
    # [S, 1 + actions]: each state, then the state after each action.
    both = jax.tree.map(lambda x, y: jnp.concatenate([x[:, None], y], 1), states, outcome.state)
    fewest = _fewest(here, both, doors_closed)  # [S, 1 + actions]
    # An action is best if the shortest path to the goal is shorter after the action.
    return states, (fewest[:, 1:] >= 0) & (fewest[:, 1:] < fewest[:, :1])


def _draw(
    key: Key, level: Level, alive: UInt32[Array, "P lines words"], num: int, doors_closed: bool
):
    """Draw states uniformly from a set."""
    cells = jax.vmap(lambda rows: unpack_rows(rows, level.height, level.width))(alive)
    total = jnp.cumsum(cells.reshape(-1).astype(jnp.int32))
    wanted = jnp.floor(jax.random.uniform(key, (num,)) * total[-1]).astype(jnp.int32)
    place = jnp.searchsorted(total, wanted, side="right").astype(jnp.int32)
    # A plane is a combination of open doors and held keys. Its number holds the doors in the low
    # bits and the keys above them.
    plane, cell = jnp.divmod(place, level.height * level.width)
    y, x = jnp.divmod(cell, level.width)
    zero = jnp.zeros_like(x)
    num_doors = level.doors.shape[0] if doors_closed else 0
    opened = plane & (2**num_doors - 1) if doors_closed else zero + first_opened(level)
    return State(x, y, zero, opened, plane >> num_doors, zero)


def _fewest(here: Map, states: State, doors_closed: bool) -> Int[Array, "*S"]:
    """Length of the shortest path to the goal from each state; -1 if no path exists."""
    num_doors = len(here.beside) if doors_closed else 0
    plane = states.held << num_doors
    plane = plane | (states.opened & (2**num_doors - 1))
    bit, line = states.x + MARGIN, states.y + MARGIN

    def met(reached: UInt32[Array, "P lines words"]) -> Bool[Array, "*S"]:
        return (reached[plane, line, bit // _WORD] >> (bit % _WORD).astype(jnp.uint32)) & 1 == 1

    def once(loop: tuple) -> tuple:
        reached, found, rounds, _ = loop
        wider = reached | before(here, reached)
        found = jnp.where((found < 0) & met(wider), rounds, found)
        return wider, found, rounds + 1, jnp.any(wider != reached) & jnp.any(found < 0)

    # Search backwards from the goal, where any doors may be open and any keys held.
    first = jnp.broadcast_to(here.goal[None], here.open.shape)
    found = jnp.where(met(first), 0, -1)
    loop = (first, found, jnp.int32(1), jnp.bool_(True))
    return jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]
