"""Random mazes and small random edits to them.

Sources: Dennis et al., 2020, "Emergent Complexity and Zero-shot Transfer via Unsupervised
Environment Design" (random blocks); Jiang et al., 2023, "minimax: Efficient Baselines for
Autocurricula in JAX" (edits `flip`); Parker-Holder et al., 2022, "Evolving Curricula with
Regret-Based Environment Design" (edits `cells`).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.envs.grid.bitboard import MARGIN, Level, border, cell_bits, interior, size_of
from rlgen.types import Key


def sample_level(
    key: Key, height: int, width: int, num_walls: int, vary_num_walls: bool, max_steps: int
) -> Level:
    """Sample a maze with random walls, agent and goal; the maze may be unsolvable.

    Wall cells are drawn uniformly with replacement, so fewer than `num_walls` may be distinct. Then
    the agent is drawn uniformly from the free cells, its direction from the four directions, and
    the goal from the remaining free cells.

    Args:
        key: Consumed.
        height: Height of the maze, in cells.
        width: Width of the maze, in cells.
        num_walls: Number of wall cells drawn, at most `height * width - 2`, so that two cells stay
            free.
        vary_num_walls: If True, the number of draws is itself uniform in 0 .. `num_walls`.
        max_steps: Time limit of the level, in steps.
    """
    # One call for all random numbers; 32 bits modulo a small number are almost uniform.
    bits = jax.random.bits(key, (num_walls + 4,), jnp.uint32)
    bits_start, bits_goal, bits_direction, bits_count = bits[:4]
    index = (bits[4:] % (height * width)).astype(jnp.int32)
    points = jax.vmap(lambda i: cell_bits(_cell(i, width), height, width))(index)
    if vary_num_walls:
        drawn = jnp.arange(num_walls) < bits_count % (num_walls + 1)
        points = jnp.where(drawn[:, None, None], points, 0)
    empty = border(height, width)
    walls = empty | jax.lax.reduce(points, jnp.uint32(0), jax.lax.bitwise_or, (0,))
    free = ~interior(walls, height)
    num_free = _count(free)
    start = bits_start % num_free
    goal = bits_goal % (num_free - 1)
    goal = goal + (goal >= start)  # skips the start's rank among the free cells
    direction = (bits_direction & 3).astype(jnp.int32)
    where, steps = (_nth_cell(free, start), _nth_cell(free, goal)), jnp.int32(max_steps)
    return Level(walls, where[0], direction, where[1], steps, height)


def flip_edits(key: Key, level: Level, num_edits: int) -> Level:
    """Make `num_edits` edits; each flips a wall, moves the goal or does nothing, equally likely.

    A flip adds or removes a wall in any cell except the cells of the agent and the goal. A move
    takes the goal to any other free cell. The agent never moves. Edits may undo earlier edits, so
    at most `num_edits` walls differ.
    """
    height, width = size_of(level)
    bits = jax.random.bits(key, (num_edits, 2), jnp.uint32)
    agent = _index(level.start, width)

    def edit(i: Int[Array, ""], level: Level) -> Level:
        kind, draw = bits[i, 0] % 3, bits[i, 1]
        goal = _index(level.goal, width)
        cell = (draw % max(height * width - 2, 1)).astype(jnp.int32)
        # Skip the cells of agent and goal, first the cell with the lower index.
        cell = cell + (cell >= jnp.minimum(agent, goal))
        cell = cell + (cell >= jnp.maximum(agent, goal))
        flip = jnp.where(kind == 1, cell_bits(_cell(cell, width), height, width), 0)
        stands = cell_bits(level.goal, height, width) | cell_bits(level.start, height, width)
        free = ~interior(level.walls | stands, height)
        num_free = _count(free)
        moved = _nth_cell(free, draw % jnp.maximum(num_free, 1))
        goal_moves = (kind == 2) & (num_free > 0)
        return replace(
            level, walls=level.walls ^ flip, goal=jnp.where(goal_moves, moved, level.goal)
        )

    if height * width <= 2:  # agent and goal occupy every cell
        return level
    return jax.lax.fori_loop(0, num_edits, edit, level)


class _Edited(NamedTuple):
    walls: UInt32[Array, "lines words"]
    goal: Int[Array, "2"]
    goal_lost: Bool[Array, ""]
    agent_lost: Bool[Array, ""]


def cell_edits(key: Key, level: Level, num_edits: int) -> Level:
    """Rewrite up to `num_edits` cells; each becomes a wall, empty or the goal, equally likely.

    Cells are drawn with replacement, and each distinct cell is rewritten once. A rewrite removes
    the previous content of the cell. If the cell becomes the goal, the old goal is removed, too. A
    goal or agent that is missing after all rewrites is placed on a free cell, drawn uniformly. If
    no cell is free, the missing goal or agent returns to its old cell.
    """
    height, width = size_of(level)
    key_cell, key_place = jax.random.split(key)
    bits = jax.random.bits(key_cell, (num_edits, 2), jnp.uint32)
    cells = (bits[:, 0] % (height * width)).astype(jnp.int32)

    def edit(i: Int[Array, ""], edited: _Edited) -> _Edited:
        # If the cell was drawn before, it has been rewritten already.
        repeated = jnp.any((cells == cells[i]) & (jnp.arange(num_edits) < i))
        return jax.tree.map(
            lambda new, old: jnp.where(repeated, old, new),
            _rewrite(edited, level, cells[i], bits[i, 1] % 3),
            edited,
        )

    intact = _Edited(level.walls, level.goal, jnp.bool_(False), jnp.bool_(False))
    return _replace_lost(key_place, level, jax.lax.fori_loop(0, num_edits, edit, intact))


def _rewrite(
    edited: _Edited, level: Level, cell: Int[Array, ""], kind: UInt32[Array, ""]
) -> _Edited:
    height, width = size_of(level)
    here = _cell(cell, width)
    bits = cell_bits(here, height, width)
    walls = jnp.where(kind == 0, edited.walls | bits, edited.walls & ~bits)
    goal_here = jnp.all(here == edited.goal) & ~edited.goal_lost
    becomes_goal = kind == 2
    return _Edited(
        walls,
        jnp.where(becomes_goal, here, edited.goal),
        ~becomes_goal & (edited.goal_lost | goal_here),
        edited.agent_lost | jnp.all(here == level.start),
    )


def _replace_lost(key: Key, level: Level, edited: _Edited) -> Level:
    height, width = size_of(level)
    bits_goal, bits_agent = jax.random.bits(key, (2,), jnp.uint32)
    # If no cell is free, a missing goal or agent returns to its old cell. If the goal has taken the
    # agent's old cell, the agent gets the goal's old cell.
    agent = jnp.where(edited.agent_lost, 0, cell_bits(level.start, height, width))
    goal = _place(bits_goal, edited.walls | agent, height, level.goal)
    goal = jnp.where(edited.goal_lost, goal, edited.goal)
    back = jnp.where(jnp.all(goal == level.start), level.goal, level.start)
    taken = edited.walls | cell_bits(goal, height, width)
    start = _place(bits_agent, taken, height, back)
    start = jnp.where(edited.agent_lost, start, level.start)
    walls = edited.walls
    for cell in (goal, start):  # an old cell may have become a wall
        walls = walls & ~cell_bits(cell, height, width)
    return replace(level, walls=walls, start=start, goal=goal)


def _place(
    bits: UInt32[Array, ""],
    walls: UInt32[Array, "lines words"],
    height: int,
    otherwise: Int[Array, "2"],
) -> Int[Array, "2"]:
    free = ~interior(walls, height)
    num_free = _count(free)
    cell = _nth_cell(free, bits % jnp.maximum(num_free, 1))
    return jnp.where(num_free > 0, cell, otherwise)


def _count(cells: UInt32[Array, "H words"]) -> UInt32[Array, ""]:
    return jax.lax.population_count(cells).sum(dtype=jnp.uint32)


def _nth_cell(cells: UInt32[Array, "H words"], n: UInt32[Array, ""]) -> Int[Array, "2"]:
    """x, y of the n-th cell of a set, counted from 0, row by row."""
    words = cells.shape[1]
    flat = cells.reshape(-1)
    upto = jnp.cumsum(jax.lax.population_count(flat), dtype=jnp.uint32)
    at = (upto <= n).sum()  # index of the word that holds the cell
    here = jnp.arange(flat.size) == at
    word = jnp.where(here, flat, 0).sum(dtype=jnp.uint32)
    before = jnp.where(here, upto - jax.lax.population_count(flat), 0).sum(dtype=jnp.uint32)
    lower = (jnp.uint32(2) << jnp.arange(32, dtype=jnp.uint32)) - 1  # bits 0 .. i; 2 << 31 is 0
    # Index of the bit: the number of prefixes of the word that hold at most n - before cells.
    bit = (jax.lax.population_count(word & lower) <= n - before).sum()
    return jnp.stack([at % words * 32 + bit - MARGIN, at // words]).astype(jnp.int32)


def _index(cell: Int[Array, "2"], width: int) -> Int[Array, ""]:
    return cell[1] * width + cell[0]


def _cell(index: Int[Array, ""], width: int) -> Int[Array, "2"]:
    return jnp.stack([index % width, index // width])
