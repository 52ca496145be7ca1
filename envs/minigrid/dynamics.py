"""MiniGrid's rules: one step of the agent among walls, doors, keys, balls and boxes.

The agent turns and walks. If the agent's hands are empty, it can pick up the object in front of it.
If the cell in front of the agent is empty, it can drop the carried object there. Toggling acts on
the cell in front of the agent: a box is replaced by its content, and a door opens or closes. A
locked door opens only if the agent carries a key of the door's colour; the key is not used up.

Source: Chevalier-Boisvert et al., 2023, "Minigrid & Miniworld".
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.minigrid.level import (
    BALL,
    BOX,
    CLOSED,
    DROP,
    DROPPED,
    FORWARD,
    KEY,
    MARGIN,
    NOTHING,
    NOWHERE,
    OPENED,
    PICK_UP,
    REFUSED,
    TOGGLE,
    TOOK_BALL,
    TOOK_BOX,
    TOOK_KEY,
    TOOK_TARGET,
    TURN_LEFT,
    TURN_RIGHT,
    UNLOCKED,
    UNPACKED,
    Level,
    State,
    bits_of,
    cell_at,
    codes_now,
    flags_of,
    line_of,
)


class Ahead(NamedTuple):
    """The cell that the agent faces; it holds at most one of wall, door and object."""

    x: Int[Array, ""]
    y: Int[Array, ""]
    wall: Bool[Array, ""]
    door: UInt32[Array, ""]  # bit mask over the doors
    thing: UInt32[Array, ""]  # bit mask over the objects
    code: Int[Array, ""]  # code of the object; 0 if there is no object
    door_colour: Int[Array, ""]  # colour of the door; 0 if there is no door


def after(
    level: Level, state: State, action: Int[Array, ""] | int | float
) -> tuple[State, Bool[Array, ""]]:
    """Return the next state, and whether the target was picked up."""
    ahead = look_ahead(level, state)
    codes = codes_now(level, state)
    num = codes.shape[0]
    held = flags_of(state.carried, num)
    held_code = jnp.where(held, codes, 0).sum()
    no_thing, hands_free = ahead.thing == 0, state.carried == 0
    takes = (action == PICK_UP) & hands_free & ~no_thing
    drops = (action == DROP) & ~hands_free & ~ahead.wall & no_thing & (ahead.door == 0)
    moves = (action == FORWARD) & ~ahead.wall & no_thing & ((ahead.door & ~state.open) == 0)
    toggles = action == TOGGLE
    unpacks = toggles & (ahead.code >> 3 == BOX)  # a code is kind << 3 | colour
    at_door = toggles & (ahead.door != 0)
    at_lock = at_door & ((ahead.door & state.locked) != 0)
    fits = held_code == 8 * KEY + ahead.door_colour  # no lock fits the code 0 of empty hands
    swings = at_door & (~at_lock | fits)
    is_open = (ahead.door & state.open) != 0
    success = takes & ((ahead.thing & level.target) != 0)

    cells = jnp.where(takes & flags_of(ahead.thing, num), NOWHERE, state.object_cell)
    cells = jnp.where(drops & held, cell_at(ahead.x, ahead.y), cells)
    event = _event(
        (takes & (ahead.code >> 3 == KEY), TOOK_KEY),
        (takes & (ahead.code >> 3 == BALL), TOOK_BALL),
        (takes & (ahead.code >> 3 == BOX), TOOK_BOX),
        (success, TOOK_TARGET),
        (drops, DROPPED),
        (at_door & ~is_open, OPENED),
        (at_door & is_open, CLOSED),
        (at_lock, REFUSED),
        (at_lock & fits, UNLOCKED),
        (unpacks, UNPACKED),
    )
    # Directions count clockwise modulo 4, so a left turn adds 3.
    turn = jnp.where(action == TURN_RIGHT, 1, 0) + jnp.where(action == TURN_LEFT, 3, 0)
    return State(
        x=jnp.where(moves, ahead.x, state.x),
        y=jnp.where(moves, ahead.y, state.y),
        direction=(state.direction + turn) & 3,
        time=state.time + 1,
        object_cell=cells,
        unpacked=state.unpacked | _if(unpacks, ahead.thing),
        carried=_if(~drops, state.carried) | _if(takes, ahead.thing),
        open=state.open ^ _if(swings, ahead.door),
        locked=state.locked & ~_if(swings, ahead.door),
        event=event,
    ), success


def reward(
    level: Level, state: State, success: Bool[Array, ""], penalize_time: bool
) -> Float[Array, ""]:
    """Reward of the step that led to `state`: 1 if the step solved the level, else 0.

    With `penalize_time`, the reward for solving the level at step t is 1 - 0.9 t / limit.
    """
    worth = 1.0 - 0.9 * (state.time / level.max_steps_in_episode) if penalize_time else 1.0
    return jnp.where(success, worth, 0.0).astype(jnp.float32)


def look_ahead(level: Level, state: State) -> Ahead:
    """Return the cell that the agent faces and its content."""
    # Directions 0 to 3 are right, down, left and up. Odd directions run along y, and the last two
    # directions decrease a coordinate.
    sign = jnp.where(state.direction < 2, 1, -1)
    turned = (state.direction & 1) == 1
    x = state.x + jnp.where(turned, 0, sign)
    y = state.y + jnp.where(turned, sign, 0)
    row = line_of(level, (y + MARGIN).astype(jnp.uint32))
    wall = (row >> (x + MARGIN).astype(jnp.uint32)) & 1 == 1
    cell = cell_at(x, y)
    door, thing = level.door_cell == cell, state.object_cell == cell
    code = jnp.where(thing, codes_now(level, state), 0).sum()
    colour = jnp.where(door, level.door_colour, 0).sum()
    return Ahead(x, y, wall, bits_of(door), bits_of(thing), code, colour)


def _if(flag: Bool[Array, ""], bits: UInt32[Array, ""]) -> UInt32[Array, ""]:
    return jnp.where(flag, bits, jnp.uint32(0))


def _event(*cases: tuple[Bool[Array, ""], int]) -> Int[Array, ""]:
    """Event of the last case that holds; later cases are more specific than earlier cases."""
    event = jnp.int32(NOTHING)
    for holds, which in cases:
        event = jnp.where(holds, which, event)
    return event
