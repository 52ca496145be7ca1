"""Sampling of levels from the table of a mode, with JAX or with numpy.

The suites are sampled with numpy, so that they are identical on all machines. All randomness comes
from uniform numbers that the caller passes in, so JAX and numpy give the same levels up to
rounding.
"""

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.gridworld.level import Level
from rlgen.envs.gridworld.modes import Family, Mode

Numbers: TypeAlias = Any  # JAX or numpy arrays, or numpy scalars, which are not arrays


class Table(NamedTuple):
    """The M families of a mode as arrays of equal shapes; unused entries are 0."""

    size: Int[np.ndarray, "M 2"]  # lowest and highest value, as in all axes of length 2
    max_steps: Int[np.ndarray, "M 2"]
    num_objects: Int[np.ndarray, "M 2"]
    num_walls: Int[np.ndarray, " M"]
    walls: Bool[np.ndarray, "M C"]
    object_type: Int[np.ndarray, "M n"]
    reward: Float[np.ndarray, "M k 2"]
    terminate_prob: Float[np.ndarray, "M k 2"]
    respawn_prob: Float[np.ndarray, "M k 2"]


def table_of(mode: Mode) -> Table:
    """Return the arrays of a mode, large enough for each of its families."""
    families = mode.families
    num_cells = max(family.size[1] for family in families) ** 2
    num_objects = max(len(family.objects) for family in families)
    num_types = max(len(family.kinds) for family in families)
    rows = [_row(family, num_cells, num_objects, num_types) for family in families]
    return Table(*(np.stack(column) for column in zip(*rows, strict=True)))


def _row(family: Family, num_cells: int, num_objects: int, num_types: int) -> Table:
    walls = np.zeros(num_cells, bool)
    walls[: family.walls.size] = family.walls
    object_type = np.zeros(num_objects, np.int32)
    object_type[: len(family.objects)] = family.objects
    kinds = np.zeros((3, num_types, 2), np.float32)
    kinds[:, : len(family.kinds)] = np.array(family.kinds, np.float32).transpose(1, 0, 2)
    return Table(
        size=np.array(family.size, np.int32),
        max_steps=np.array(family.max_steps, np.int32),
        num_objects=np.array(family.num_objects, np.int32),
        num_walls=np.array(family.num_walls, np.int32),
        walls=walls,
        object_type=object_type,
        reward=kinds[0],
        terminate_prob=kinds[1],
        respawn_prob=kinds[2],
    )


def num_draws(table: Table) -> int:
    """Number of uniform numbers that a level needs."""
    return sum(_parts(table))


def _parts(table: Table) -> tuple[int, int, int, int]:
    (_, num_cells), (_, num_objects) = table.walls.shape, table.object_type.shape
    num_scores = num_cells if table.num_walls.any() else 0
    # The parts are, in this order: four scalars (family, size, number of objects, time limit); one
    # score per cell if there are random walls; one number for the start and one for each object;
    # three numbers for each type.
    return 4, num_scores, num_objects + 1, 3 * table.reward.shape[1]


def draw(table: Table, uniform: Float[Array | np.ndarray, " D"], xp: Any) -> Level:
    """Sample a level from one of the families.

    If fewer cells are free than the start and the objects need, the last objects are left out. In
    the families of `modes` this is almost impossible.

    Args:
        table: Table of the mode. Cells of objects are sampled even if each episode resamples them.
        uniform: `num_draws(table)` numbers in [0, 1).
        xp: `jax.numpy` or `numpy`, the library of the level's arrays.
    """
    ends = np.cumsum(_parts(table))
    scalar, scores, places, kinds = (uniform[a:b] for a, b in zip([0, *ends], ends, strict=False))
    row = _choose(table, scalar[0], xp)
    size = _integer(scalar[1], row.size, xp)
    walls, free = _walls(row, size, scores, xp)
    cells = distinct_cells(places, free, xp)  # [1 + n], the start first
    num_objects = _integer(scalar[2], row.num_objects, xp)
    num_objects = xp.minimum(num_objects, free.sum() - 1).astype(np.int32)
    used = xp.arange(row.object_type.shape[0]) < num_objects
    types = xp.arange(row.reward.shape[0])
    # Types without an object keep 0, so that equal worlds have equal arrays.
    known = ((types[:, None] == row.object_type[None]) & used[None]).any(1)
    reward, terminate, respawn = (kinds[i::3] for i in range(3))
    reward = row.reward[:, 0] + reward * (row.reward[:, 1] - row.reward[:, 0])
    terminate = _log_uniform(terminate, row.terminate_prob, xp)
    respawn = _log_uniform(respawn, row.respawn_prob, xp)
    reward, terminate, respawn = (xp.where(known, x, 0) for x in (reward, terminate, respawn))
    return Level(
        size=size,
        walls=walls,
        start=cells[0],
        num_objects=num_objects,
        object_type=xp.where(used, row.object_type, 0),
        object_pos=xp.where(used, cells[1:], -1).astype(np.int32),
        reward=reward.astype(np.float32),
        terminate_prob=terminate.astype(np.float32),
        respawn_prob=respawn.astype(np.float32),
        max_steps_in_episode=xp.round(_log_uniform(scalar[3], row.max_steps, xp)).astype(np.int32),
    )


def distinct_cells(
    uniform: Float[Array | np.ndarray, " m"], vacant: Bool[Array | np.ndarray, " C"], xp: Any
) -> Int[Array | np.ndarray, " m"]:
    """Draw cells one after another from the vacant ones, without replacement.

    The i-th number selects a rank among the vacant cells that are not yet taken. This rank is
    converted to a rank among all vacant cells: it increases by one for each taken cell that comes
    before the selected cell. All ranks are converted to cells at the end. This procedure costs far
    less than giving each cell a random score.

    Returns:
        Cells, [m]; -1 where no vacant cell was left.
    """
    count = xp.cumsum(vacant, dtype=np.int32)
    num_vacant = count[-1]
    ranks: list = []
    for i in range(uniform.shape[0]):
        left = num_vacant - i
        among_rest = xp.minimum((uniform[i] * left).astype(np.int32), left - 1)
        rank = among_rest
        # After the loop `rank` is the smallest rank with `among_rest` untaken ranks below it.
        for _ in ranks:
            rank = among_rest + sum((taken <= rank).astype(np.int32) for taken in ranks)
        ranks.append(rank)
    # The cells before the cell of a rank are those whose cumulative count does not exceed the rank.
    cells = (count[None] <= xp.stack(ranks)[:, None]).sum(1).astype(np.int32)
    return xp.where(xp.arange(len(ranks)) < num_vacant, cells, -1).astype(np.int32)


def _choose(table: Table, uniform: Numbers, xp: Any) -> Table:
    num = table.size.shape[0]
    if num == 1:
        return jax.tree.map(lambda x: xp.asarray(x[0]), table)
    which = xp.minimum((uniform * num).astype(np.int32), num - 1)
    return jax.tree.map(lambda x: xp.asarray(x)[which], table)


def _walls(row: Table, size: Numbers, scores: Numbers, xp: Any) -> tuple[Numbers, Numbers]:
    """Return the walls and the free cells of the grid.

    If there are scores, the `num_walls` cells with the lowest scores become walls, too.
    """
    cells = xp.arange(row.walls.shape[0])
    inside = cells < size * size
    walls = row.walls & inside
    if scores.shape[0]:
        walls |= (scores < xp.sort(scores)[row.num_walls]) & inside
    return walls, inside & ~walls


def _integer(uniform: Numbers, limits: Numbers, xp: Any) -> Numbers:
    low, high = limits[0], limits[1]
    # Rounding can raise the sum to high + 1, so the minimum is needed.
    return xp.minimum(low + (uniform * (high - low + 1)).astype(np.int32), high).astype(np.int32)


def _log_uniform(uniform: Numbers, limits: Numbers, xp: Any) -> Numbers:
    """Sample log-uniformly from ranges [..., 2].

    If the two ends of a range are equal, the result is their value, which may be 0.
    """
    low, high = limits[..., 0], limits[..., 1]
    # The inner `where` avoids 0 / 0 in ranges with equal ends.
    ratio = xp.where(low < high, high, 1) / xp.where(low < high, low, 1)
    return xp.where(low < high, xp.clip(low * ratio**uniform, low, high), low)
