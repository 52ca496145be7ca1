"""Open rooms with obstacles: layouts in which every free cell can be reached from every other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.grid.rows import pack
from rlgen.envs.rooms.solver import around
from rlgen.types import Key

ROCK = 0.17
"""Chance of a cell to be an obstacle."""


def start_of(size: int) -> tuple[int, int]:
    """x, y of the agent: the first corner."""
    return 0, 0


def shared_goal(size: int) -> tuple[int, int]:
    """x, y of the goal that levels share: the opposite corner."""
    return size - 1, size - 1


@functools.cache
def fixed_layout(size: int) -> tuple[tuple[bool, ...], ...]:
    """Obstacles [y, x] of the layout of seed 0: the first connected one that its stream gives."""
    bits = np.random.PCG64(0)
    while True:
        draws = (bits.random_raw(size * size) >> np.uint64(11)) * 2.0**-53
        rock = np.asarray(draws.reshape(size, size) < ROCK) & ~_kept(size)
        if _is_connected(rock):
            return tuple(tuple(bool(x) for x in row) for row in rock)


def fresh_layout(key: Key, size: int) -> Bool[Array, "G G"]:
    """Obstacles [y, x] of a random connected layout."""
    kept = jnp.asarray(_kept(size))

    def once(loop: tuple) -> tuple:
        trial, _, _ = loop
        draws = jax.random.uniform(jax.random.fold_in(key, trial), (size, size))
        rock = (draws < ROCK) & ~kept
        return trial + 1, rock, is_connected(rock)

    begun = (jnp.int32(0), jnp.zeros((size, size), bool), jnp.bool_(False))
    return jax.lax.while_loop(lambda loop: ~loop[2], once, begun)[1]


def is_connected(rock: Bool[Array, "G G"]) -> Bool[Array, ""]:
    """Whether ways from the start lead to all cells that are free."""
    free = ~pack(rock, outside=True)
    x, y = start_of(rock.shape[0])
    start = pack(jnp.zeros_like(rock).at[y, x].set(True), outside=False)

    def once(loop: tuple) -> tuple:
        reached, _ = loop
        wider = reached | (around(reached) & free)
        return wider, jnp.any(wider != reached)

    reached = jax.lax.while_loop(lambda loop: loop[1], once, (start, jnp.bool_(True)))[0]
    return jnp.all(reached == free)


def pick(draws: Float[Array, "S S"], cells: Bool[Array, "S S"]) -> Int[Array, "2"]:
    """x, y of one of the cells, uniformly."""
    best = jnp.argmax(jnp.where(cells, draws, -1.0)).astype(jnp.int32)
    return jnp.stack([best % draws.shape[1], best // draws.shape[1]])


def at(cell: Int[Array, "2"], size: int) -> Bool[Array, "S S"]:
    """The set of one cell x, y."""
    place = jnp.arange(size)
    return (place[:, None] == cell[1]) & (place[None] == cell[0])


def _kept(size: int) -> np.ndarray:
    kept = np.zeros((size, size), bool)
    for x, y in (start_of(size), shared_goal(size)):
        kept[y, x] = True
    return kept


def _is_connected(rock: np.ndarray) -> bool:
    """The same on the host, without compiling."""
    x, y = start_of(len(rock))
    reached = np.zeros_like(rock)
    reached[y, x] = True
    for _ in range(rock.size):
        padded = np.pad(reached, 1)
        near = padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
        wider = reached | (near & ~rock)
        if (wider == reached).all():
            break
        reached = wider
    return bool((reached == ~rock).all())
