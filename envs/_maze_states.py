"""Moments of episodes on grids of walls, drawn evenly, and the best actions in them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.envs import _cave_bits, _maze_bits
from rlgen.envs._maze_bits import FORWARD, TURN_LEFT, TURN_RIGHT, State, cell_ahead, unpack_rows
from rlgen.envs._maze_solver import Sets, all_within, sets_of, turn_or_move
from rlgen.types import Key

NUM_ACTIONS = 7


def labelled_states(
    key: Key, level: _maze_bits.Level | _cave_bits.Level, num: int
) -> tuple[State, Bool[Array, "S 7"]]:
    """S states of time 0 and the actions that lead to the goal by the fewest steps; see registry.

    Cells come evenly from those that an episode can be on, the goal left out, and directions evenly
    from all four. Where the goal is out of reach no action leads there.
    """
    if isinstance(level, _maze_bits.Level):
        blocked, size = level.walls, _maze_bits.size_of(level)
    else:
        blocked, size = level.blocked, _cave_bits.size_of(level)
    sets = sets_of(blocked, level.height, level.start, level.goal)
    key_cell, key_direction = jax.random.split(key)
    within = unpack_rows(all_within(sets)[0, 1:-1], size[1]).reshape(-1)
    cell = jax.random.categorical(key_cell, jnp.where(within, 0.0, -jnp.inf), shape=(num,))
    y, x = jnp.divmod(cell.astype(jnp.int32), size[1])
    direction = jax.random.randint(key_direction, (num,), 0, 4, jnp.int32)
    states = State(x, y, direction, jnp.zeros_like(x))
    distance = distances(sets, size)
    return states, jax.vmap(lambda state: best_actions(distance, state))(states)


def distances(sets: Sets, size: tuple[int, int]) -> Int[Array, "4 H W"]:
    """Fewest steps to the goal from each direction and cell, turns included; -1 for no way."""
    height, width = size

    def poses(rows: Array) -> Bool[Array, "4 H W"]:
        return jax.vmap(lambda one: unpack_rows(one[1 : height + 1], width))(rows)

    def once(loop: tuple) -> tuple:
        near, distance, rounds, _ = loop
        wider = turn_or_move(near, sets.free, forward=False)
        distance = jnp.where(poses(wider & ~near), rounds, distance)
        return wider, distance, rounds + 1, jnp.any(wider != near)

    near = jnp.broadcast_to(sets.goal, (4, *sets.goal.shape[1:]))
    start = jnp.where(poses(near), 0, -1)
    loop = (near, start, jnp.int32(1), jnp.bool_(True))
    return jax.lax.while_loop(lambda loop: loop[3], once, loop)[1]


def best_actions(distance: Int[Array, "4 H W"], state: State) -> Bool[Array, "7"]:
    """The actions after which the goal is one step nearer."""
    x, y = cell_ahead(state)
    ahead = jnp.pad(distance, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    after = {
        TURN_LEFT: distance[(state.direction + 3) % 4, state.y, state.x],
        TURN_RIGHT: distance[(state.direction + 1) % 4, state.y, state.x],
        FORWARD: ahead[state.direction, y + 1, x + 1],
    }
    here = distance[state.direction, state.y, state.x]
    nearer = [(after[a] >= 0) & (after[a] < here) for a in range(len(after))]
    return jnp.stack([*nearer, *[jnp.bool_(False)] * (NUM_ACTIONS - len(after))])
