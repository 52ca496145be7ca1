"""One step among walls, lava, doors and keys.

A door is open or shut; a shut door is closed or locked. If the agent moves into a wall or a shut
door, it stays in its cell. If the door is closed, the move also opens it, unless the door jams.
Lava and the goal end the episode. `INTERACT` picks up the key in the agent's cell. If the cell has
no key, `INTERACT` opens every locked door next to the agent for which the agent holds the key.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.grid.rows import DOWN, INTERACT, LEFT, RIGHT, UP, is_set
from rlgen.envs.rooms.level import Level, State, things_at, things_beside

NOTHING, ON_KEY, GOT_KEY, BUMPED_DOOR, OPENED, BUMPED_WALL, IN_DOORWAY, SUCCESS, DEATH = range(9)
"""Events, with these meanings in this order: nothing happened; the agent stepped onto a key; the
agent picked up a key; a door stayed shut; a door opened; the agent bumped into a wall; the agent is
in a doorway; the agent reached the goal; the agent entered lava."""
NUM_EVENTS = 9


class Outcome(NamedTuple):
    """Result of a step."""

    state: State
    reward: Float[Array, ""]  # 1 for the goal, else 0
    terminated: Bool[Array, ""]


def step(
    state: State,
    action: Int[Array, ""] | int | float,
    level: Level,
    doors_give: Bool[Array, ""] | bool = True,
) -> Outcome:
    """Take one step.

    Args:
        state: State of one episode.
        action: Action of the agent.
        level: Level of the episode.
        doors_give: Whether closed doors open in this step if the agent walks into them.
    """
    x = state.x + (action == RIGHT) - (action == LEFT)
    y = state.y + (action == DOWN) - (action == UP)
    interacts = action == INTERACT
    wall = is_set(level.walls, x, y)
    door = things_at(level.doors, x, y)
    shut = door & ~state.opened
    # Locked doors are shut but not in `closed`, so walking into them never opens them.
    pushed = jnp.where(doors_give, shut & level.closed, 0)
    moves = ~wall & (shut == 0)
    lava = moves & is_set(level.lava, x, y)
    goal = moves & (x == level.goal[0]) & (y == level.goal[1])
    keys = things_at(level.keys, x, y) & ~state.held
    taken = jnp.where(interacts, keys, 0)
    unlocked = jnp.where(interacts & (keys == 0), _unlockable(level, state), 0)
    # A step has one event: each line overrides the lines above it.
    event = jnp.where(door != 0, IN_DOORWAY, NOTHING)
    event = jnp.where(keys != 0, ON_KEY, event)
    event = jnp.where(goal, SUCCESS, jnp.where(lava, DEATH, event))
    event = jnp.where(shut != 0, jnp.where(pushed != 0, OPENED, BUMPED_DOOR), event)
    event = jnp.where(wall, BUMPED_WALL, event)
    did = jnp.where(taken != 0, GOT_KEY, jnp.where(unlocked != 0, OPENED, NOTHING))
    event = jnp.where(interacts, did, event).astype(jnp.int32)
    after = State(
        jnp.where(moves, x, state.x),
        jnp.where(moves, y, state.y),
        state.time + 1,
        state.opened | pushed | unlocked,
        state.held | taken,
        event,
    )
    return Outcome(after, goal.astype(jnp.float32), goal | lava)


def _unlockable(level: Level, state: State) -> Int[Array, ""]:
    """Bit mask of the locked doors next to the agent for which the agent holds the key."""
    if not level.keys.shape[0]:
        return jnp.int32(0)
    fitting = jnp.int32(0)
    for k in range(level.keys.shape[0]):
        fitting |= jnp.where((state.held >> k) & 1 == 1, level.locks[k], 0)
    return things_beside(level.doors, state.x, state.y) & fitting & ~state.opened
