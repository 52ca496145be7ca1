"""Open rooms with obstacles: layouts whose free cells can all be reached from one another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.grid.rows import pack
from rlgen.envs.rooms.solver import around
from rlgen.types import Key

WALL_PROB = 0.17
"""Probability that a cell is an obstacle."""


def start_of(size: int) -> tuple[int, int]:
    """x, y of the agent's start: the upper left corner."""
    return 0, 0


def shared_goal(size: int) -> tuple[int, int]:
    """x, y of the goal that levels share: the opposite corner."""
    return size - 1, size - 1


@functools.cache
def fixed_layout(size: int) -> tuple[tuple[bool, ...], ...]:
    """Obstacles [y, x] of the fixed layout: the first connected layout sampled with seed 0."""
    # Raw bits of PCG64 are used because they are identical in every version of numpy.
    bits = np.random.PCG64(0)
    while True:
        draws = (bits.random_raw(size * size) >> np.uint64(11)) * 2.0**-53
        walls = np.asarray(draws.reshape(size, size) < WALL_PROB) & ~_kept(size)
        if _is_connected(walls):
            return tuple(tuple(bool(x) for x in row) for row in walls)


def fresh_layout(key: Key, size: int) -> Bool[Array, "G G"]:
    """Sample obstacles [y, x] of a random connected layout."""
    kept = jnp.asarray(_kept(size))

    def once(loop: tuple) -> tuple:
        trial, _, _ = loop
        draws = jax.random.uniform(jax.random.fold_in(key, trial), (size, size))
        walls = (draws < WALL_PROB) & ~kept
        return trial + 1, walls, is_connected(walls)

    begun = (jnp.int32(0), jnp.zeros((size, size), bool), jnp.bool_(False))
    return jax.lax.while_loop(lambda loop: ~loop[2], once, begun)[1]


def is_connected(walls: Bool[Array, "G G"]) -> Bool[Array, ""]:
    """Return whether every free cell can be reached from the start."""
    free = ~pack(walls, outside=True)
    x, y = start_of(walls.shape[0])
    start = pack(jnp.zeros_like(walls).at[y, x].set(True), outside=False)

    def once(loop: tuple) -> tuple:
        reached, _ = loop
        wider = reached | (around(reached) & free)
        return wider, jnp.any(wider != reached)

    reached = jax.lax.while_loop(lambda loop: loop[1], once, (start, jnp.bool_(True)))[0]
    return jnp.all(reached == free)


def pick(draws: Float[Array, "S S"], cells: Bool[Array, "S S"]) -> Int[Array, "2"]:
    """Choose one of the cells uniformly and return its x, y."""
    # The largest of independent uniform numbers is at each cell with equal probability.
    best = jnp.argmax(jnp.where(cells, draws, -1.0)).astype(jnp.int32)
    return jnp.stack([best % draws.shape[1], best // draws.shape[1]])


def at(cell: Int[Array, "2"], size: int) -> Bool[Array, "S S"]:
    """Mask that is True only at the cell x, y."""
    place = jnp.arange(size)
    return (place[:, None] == cell[1]) & (place[None] == cell[0])


def _kept(size: int) -> np.ndarray:
    """Mask of the cells that stay free: the start and the shared goal."""
    kept = np.zeros((size, size), bool)
    for x, y in (start_of(size), shared_goal(size)):
        kept[y, x] = True
    return kept


def _is_connected(walls: np.ndarray) -> bool:
    """Like `is_connected`, but on the host and without compiling."""
    x, y = start_of(len(walls))
    reached = np.zeros_like(walls)
    reached[y, x] = True
    for _ in range(walls.size):
        padded = np.pad(reached, 1)
        near = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
        wider = reached | (near & ~walls)
        if (wider == reached).all():
            break
        reached = wider
    return bool((reached == ~walls).all())
