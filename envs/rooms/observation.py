"""Observations of the grids of walls, lava, doors and keys: a few packed words, or the whole grid.

A field of an observation is `()` if the family or its options do not use the field. An image has
the following channels in this order, except unused channels: walls, lava, doors, shut doors, goal,
one channel for each key, and one channel for the door of each key while the door is locked. With
occlusion, a last channel shows the visible cells. In an image of the whole grid, the last channel
shows the agent.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from gymnax.environments import spaces
from jaxtyping import Array, Bool, Float, Int, Int8, UInt8, UInt32

from rlgen.envs.grid import occlusion as view
from rlgen.envs.grid.occlusion import HIDDEN, Window
from rlgen.envs.grid.rows import unpack_rows
from rlgen.envs.rooms.dynamics import NUM_EVENTS
from rlgen.envs.rooms.level import Level, State
from rlgen.types import Key, PyTree

NUM_COLOURS = 2**24
"""Number of colours that the noise can have, with one byte each for red, green and blue."""
CLOCK_SCALE = 0.01
"""Factor that converts the clock (the number of steps taken) to a network input."""


class Options(NamedTuple):
    """Choices of what is observed."""

    full: bool = False  # observe the whole grid; if False, the 7x7 cells around the agent
    occlusion: bool = False  # walls and shut doors hide the cells behind them
    clock: bool = False  # the number of steps taken is observed
    noise: bool = False  # a random colour is observed, which is resampled at every step


class Messages(NamedTuple):
    """Observed quantities other than the cells."""

    event: Int8[Array, "*batch"]  # of the last step
    held: Bool[Array, "*batch K"] | tuple[()]  # True for each held key
    clock: Int[Array, "*batch"] | tuple[()]  # steps taken
    noise: UInt32[Array, "*batch"] | tuple[()]


class PackedObs(NamedTuple):
    """The cells around the agent, packed; `unpack` returns the image."""

    walls: Window | tuple[()]
    lava: Window | tuple[()]
    doors: Window | tuple[()]
    shut: Window | tuple[()]  # doors that are not open
    goal: Int8[Array, "*batch"]  # 8 r + c in row r, column c of the view, or `HIDDEN`
    keys: Int8[Array, "*batch K"] | tuple[()]  # place of each key not yet held, coded like `goal`
    locks: Int8[Array, "*batch K"] | tuple[()]  # place of each key's door while locked
    seen: Window | tuple[()]  # visible cells, if occlusion; other fields show only these cells
    messages: Messages


class FullObs(NamedTuple):
    """The whole grid."""

    image: UInt8[Array, "*batch H W C"]  # 0 or 1
    messages: Messages


def observe(key: Key, state: State, level: Level, options: Options) -> PackedObs | FullObs:
    """Return the observation of a state; the random `key` serves only the noise."""
    messages = Messages(
        state.event.astype(jnp.int8),
        (state.held >> jnp.arange(level.keys.shape[0])) & 1 == 1 if level.keys.shape[0] else (),
        state.time if options.clock else (),
        jax.random.bits(key, (), jnp.uint32) & (NUM_COLOURS - 1) if options.noise else (),
    )
    if options.full:
        return FullObs(_whole(state, level), messages)
    return _around(state, level, options.occlusion, messages)


def unpack(obs: PyTree) -> dict[str, Float[Array, "..."]]:
    """Expand either kind of observation to network inputs, with any leading axes.

    Returns:
        `image`, float32[..., 7, 7, C], or float32[..., H, W, C] for the whole grid; and `vector`,
        float32[..., F]. The vector contains the event of the last step as one-hot, followed by the
        held keys, the clock and the noise if they are in use.
    """
    image = _image(obs) if isinstance(obs, PackedObs) else obs.image
    return {"image": image.astype(jnp.float32), "vector": _vector(obs.messages)}


def space_of(obs: PyTree) -> spaces.Dict:
    """Build the space of an observation from its shapes."""
    found = {n: x for n, x in zip(obs._fields, obs, strict=True) if not isinstance(x, tuple) or x}
    return spaces.Dict({name: _space(name, x) for name, x in found.items()})


def _space(name: str, x: PyTree) -> spaces.Space:
    if isinstance(x, tuple):
        return space_of(x)
    # Largest values of the fields that do not use the whole range of their type.
    top = {"event": NUM_EVENTS - 1, "clock": 2**31 - 1, "noise": NUM_COLOURS - 1, "image": 1}
    high = top.get(name, {"uint32": 2**32 - 1, "bool": 1}.get(x.dtype.name, HIDDEN))
    return spaces.Box(0, high, x.shape, x.dtype)


def _around(state: State, level: Level, occlusion: bool, messages: Messages) -> PackedObs:
    x, y = state.x, state.y
    walls, lava = (view.window(rows, x, y) for rows in (level.walls, level.lava))
    places = [view.place_in_view(level.doors[i], x, y) for i in range(level.doors.shape[0])]
    goal = view.place_in_view(level.goal, x, y)
    # Place of each door while it is shut, else HIDDEN, which is in no set of cells.
    shut_of = [jnp.where((state.opened >> i) & 1 == 1, HIDDEN, p) for i, p in enumerate(places)]
    doors, shut = _union(places), _union(shut_of)
    keys = [
        jnp.where((state.held >> k) & 1 == 1, HIDDEN, view.place_in_view(level.keys[k], x, y))
        for k in range(level.keys.shape[0])
    ]
    locks = [_locked_place(level.locks[k], shut_of) for k in range(level.keys.shape[0])]
    seen = ()
    if occlusion:  # hide everything that is not visible
        seen = view.sight(walls | shut)
        walls, lava, doors, shut = (cells & seen for cells in (walls, lava, doors, shut))
        goal, *rest = (jnp.where(view.holds(seen, p), p, HIDDEN) for p in (goal, *keys, *locks))
        keys, locks = rest[: len(keys)], rest[len(keys) :]
    return PackedObs(
        walls if level.walls.shape[0] else (),
        lava if level.lava.shape[0] else (),
        doors if places else (),
        shut if places else (),
        goal.astype(jnp.int8),
        _stack(keys),
        _stack(locks),
        seen,
        messages,
    )


def _union(places: list[Array]) -> Window:
    cells = view.empty()
    for place in places:
        cells |= view.only(place)
    return cells


def _locked_place(lock: Int[Array, ""], shut_of: list[Array]) -> Int[Array, ""]:
    place = jnp.int32(HIDDEN)
    for i, at in enumerate(shut_of):
        place = jnp.where((lock >> i) & 1 == 1, at, place)
    return place


def _stack(places: list[Array]) -> Int8[Array, " K"] | tuple[()]:
    return jnp.stack(places).astype(jnp.int8) if places else ()


def _whole(state: State, level: Level) -> UInt8[Array, "H W C"]:
    height, width = level.height, level.width
    row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]

    def at(place: Array, there: Bool[Array, ""] | bool = True) -> Bool[Array, "H W"]:
        return (row == place[1]) & (column == place[0]) & there

    none = jnp.zeros((height, width), bool)
    num_doors, num_keys = level.doors.shape[0], level.keys.shape[0]
    is_shut = [(state.opened >> i) & 1 == 0 for i in range(num_doors)]
    planes = [unpack_rows(x, height, width) for x in (level.walls, level.lava) if x.shape[0]]
    if num_doors:
        planes.append(sum((at(level.doors[i]) for i in range(num_doors)), none))
        planes.append(sum((at(level.doors[i], is_shut[i]) for i in range(num_doors)), none))
    planes.append(at(level.goal))  # `_image` uses the same order
    planes += [at(level.keys[k], (state.held >> k) & 1 == 0) for k in range(num_keys)]
    for k in range(num_keys):
        locked = [is_shut[i] & ((level.locks[k] >> i) & 1 == 1) for i in range(num_doors)]
        planes.append(sum((at(level.doors[i], locked[i]) for i in range(num_doors)), none))
    planes.append(at(jnp.stack([state.x, state.y])))
    return jnp.stack(planes, -1).astype(jnp.uint8)


def _image(obs: PackedObs) -> Bool[Array, "*batch 7 7 C"]:
    sets = [x for x in (obs.walls, obs.lava, obs.doors, obs.shut) if x]
    planes = [view.bits(cells) for cells in sets]
    planes.append(view.place_bits(obs.goal))
    for places in (obs.keys, obs.locks):
        if not isinstance(places, tuple):
            planes += [view.place_bits(places[..., k]) for k in range(places.shape[-1])]
    planes += [view.bits(obs.seen)] if obs.seen else []
    return jnp.stack(planes, -1)


def _vector(messages: Messages) -> Float[Array, "*batch F"]:
    parts = [jax.nn.one_hot(messages.event, NUM_EVENTS)]
    if not isinstance(messages.held, tuple):
        parts.append(messages.held)
    if not isinstance(messages.clock, tuple):
        parts.append(messages.clock[..., None] * CLOCK_SCALE)
    if not isinstance(messages.noise, tuple):
        shift = jnp.arange(0, 24, 8, dtype=jnp.uint32).reshape(*[1] * messages.noise.ndim, 3)
        parts.append(((messages.noise[..., None] >> shift) & 255) / 255)  # bytes to [0, 1]
    return jnp.concatenate([part.astype(jnp.float32) for part in parts], -1)
