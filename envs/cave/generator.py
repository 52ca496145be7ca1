"""Random caves and random edits of single cells.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design". The random levels and the edit operator are those of the
baselines in that paper.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.cave.level import EMPTY, MOSS, WALL, Level, make_level, size_of, to_grid
from rlgen.types import Key

_AGENT, _GOAL = MOSS + 1, MOSS + 2
"""Codes with which an edit writes the agent or the goal; smaller codes are the four tiles."""


def sample_level(key: Key, height: int, width: int, num_objects: int, max_steps: int) -> Level:
    """Sample a room with random objects; the level may be unsolvable.

    The goal, the agent and n objects lie on distinct cells, drawn uniformly. The number n is drawn
    uniformly from 0 .. `num_objects`. Each object is a wall, lava or moss cell with probability 1/3
    each.

    Args:
        key: Random key, consumed.
        height: Height of the cave in cells.
        width: Width of the cave in cells.
        num_objects: Maximum number of objects, at most `height * width - 2`.
        max_steps: Time limit of the level.
    """
    key_order, key_kind, key_num = jax.random.split(key, 3)
    # Random rank of each cell: rank 0 is the goal, rank 1 the agent, and objects have ranks from 2.
    order = jax.random.permutation(key_order, height * width)
    num = jax.random.randint(key_num, (), 0, num_objects + 1)
    kind = jax.random.randint(key_kind, (height * width,), WALL, MOSS + 1)
    tiles = jnp.where((order >= 2) & (order < 2 + num), kind, EMPTY)
    goal, start = (_cell(jnp.argmax(order == place), width) for place in (0, 1))
    return make_level(tiles.reshape(height, width), start, goal, max_steps)


class _Edited(NamedTuple):
    """Level that is being edited, with cells as flat indices."""

    tiles: Int[Array, " C"]
    start: Int[Array, ""]  # y * width + x; -1 if overwritten
    goal: Int[Array, ""]


def edit_cells(key: Key, level: Level, num_edits: int) -> Level:
    """Rewrite up to `num_edits` cells, each as empty, wall, lava, moss, the agent or the goal.

    Cells are drawn with replacement. Each distinct cell is rewritten once, and the six kinds are
    equally likely. If a cell is rewritten as the agent or the goal, the agent or the goal moves to
    this cell. If the agent or the goal was overwritten, it is placed on an empty cell, drawn
    uniformly. If no cell is empty, it is placed on one of the rewritten cells.
    """
    height, width = size_of(level)
    key_cell, key_kind, key_place = jax.random.split(key, 3)
    cells = jax.random.randint(key_cell, (num_edits,), 0, height * width)
    kinds = jax.random.randint(key_kind, (num_edits,), 0, _GOAL + 1)
    # True for the first draw of each distinct cell: argmax finds the first True in each row.
    first = jnp.argmax(cells[:, None] == cells[None], 1) == jnp.arange(num_edits)
    every = jnp.arange(height * width)

    def edit(i: Int[Array, ""], edited: _Edited) -> _Edited:
        cell, kind = cells[i], kinds[i]
        tile = jnp.where(kind > MOSS, EMPTY, kind)
        tiles = jnp.where(first[i] & (every == cell), tile, edited.tiles)
        start, goal = (
            # The three cases are: moved to this cell, overwritten on this cell, and unchanged.
            jnp.where(kind == mine, cell, jnp.where(place == cell, -1, place))
            for mine, place in ((_AGENT, edited.start), (_GOAL, edited.goal))
        )
        return _Edited(
            tiles,
            jnp.where(first[i], start, edited.start),
            jnp.where(first[i], goal, edited.goal),
        )

    grid = to_grid(level)
    before = _Edited(
        grid.tiles.reshape(-1),
        *(cell[1] * width + cell[0] for cell in (level.start, level.goal)),
    )
    edited = _put_back(key_place, before, jax.lax.fori_loop(0, num_edits, edit, before))
    tiles = edited.tiles.reshape(height, width)
    start, goal = _cell(edited.start, width), _cell(edited.goal, width)
    return make_level(tiles, start, goal, level.max_steps_in_episode, level.direction)


def _put_back(key: Key, before: _Edited, edited: _Edited) -> _Edited:
    # Place the agent and the goal if they were overwritten. If no cell is empty, each of the two
    # returns to its own previous cell or, if the other one now occupies this cell, to the previous
    # cell of the other one. Both previous cells were rewritten; otherwise they would be empty. The
    # goal is placed first, so the agent must avoid the new cell of the goal.
    bits_goal, bits_start = jax.random.bits(key, (2,), jnp.uint32)
    empty, every = edited.tiles == EMPTY, jnp.arange(edited.tiles.size)
    back = jnp.where(before.goal == edited.start, before.start, before.goal)
    goal = _place(bits_goal, empty & (every != edited.start), back)
    goal = jnp.where(edited.goal < 0, goal, edited.goal)
    back = jnp.where(before.start == goal, before.goal, before.start)
    start = _place(bits_start, empty & (every != goal), back)
    return _Edited(edited.tiles, jnp.where(edited.start < 0, start, edited.start), goal)


def _place(
    bits: UInt32[Array, ""], free: Bool[Array, " C"], otherwise: Int[Array, ""]
) -> Int[Array, ""]:
    """Draw a cell of a set uniformly; return `otherwise` if the set is empty."""
    # The remainder of a random 32-bit number has a bias below num_cells / 2^32.
    upto = jnp.cumsum(free)
    nth = (bits % jnp.maximum(upto[-1], 1).astype(jnp.uint32)).astype(jnp.int32)
    return jnp.where(upto[-1] > 0, jnp.argmax(upto > nth), otherwise).astype(jnp.int32)


def _cell(index: Int[Array, ""], width: int) -> Int[Array, "2"]:
    return jnp.stack([index % width, index // width])
