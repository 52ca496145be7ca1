"""Rules of the grid worlds: the start of an episode and one step.

Source: Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with
Adversarial Environment Design", after Oh et al., 2020, "Discovering Reinforcement Learning
Algorithms". Differs from the code of Jackson et al. in that no object is placed in a wall.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.envs.gridworld.generator import distinct_cells
from rlgen.envs.gridworld.level import DOWN, LEFT, RIGHT, UP, Level, State
from rlgen.types import Key


def reset(key: Key, level: Level, is_tabular: bool) -> State:
    """Return the state at the start of an episode, in which each object with a cell is present."""
    object_pos = level.object_pos
    if not is_tabular:  # objects get random cells in each episode
        uniform = jax.random.uniform(key, object_pos.shape)
        vacant = _free(level) & ~_among(level, level.start[None])
        object_pos = distinct_cells(uniform, vacant, jnp)
    there = _used(level)
    object_pos = jnp.where(there, object_pos, -1)
    there &= object_pos >= 0
    return State(level.start, to_bits(there), jnp.zeros_like(level.start), object_pos)


def step(
    key: Key, state: State, action: Int[Array, ""] | int | float, level: Level, is_tabular: bool
) -> tuple[State, Float[Array, ""], Bool[Array, ""]]:
    """Take one step: move, collect, respawn, terminate.

    A collected object respawns in the following step at the earliest.

    Returns:
        State, reward, and whether collecting an object ended the episode.
    """
    num = level.object_type.shape[0]
    # One call draws all random numbers, because a second call would cost as much as the whole rest
    # of the step.
    uniform = jax.random.uniform(key, (num + 1 if is_tabular else 2 * num + 1,))
    pos = move(level, state.pos, action)
    there = from_bits(state.present, num)
    collected = there & (state.object_pos == pos)
    reward, terminate_prob = (
        jnp.where(collected, x[level.object_type], 0.0).sum()
        for x in (level.reward, level.terminate_prob)
    )
    # `there` marks the objects that were present before this step, so an object that was just
    # collected cannot appear.
    appears = ~there & _used(level) & (uniform[:num] < level.respawn_prob[level.object_type])
    object_pos = state.object_pos
    if not is_tabular:
        taken = jnp.append(object_pos, pos)  # cells of the agent and all objects, present or absent
        vacant = _free(level) & ~_among(level, taken)
        cells = distinct_cells(uniform[num:-1], vacant, jnp)
        appears &= cells >= 0
        object_pos = jnp.where(appears, cells, object_pos)
    present = to_bits((there & ~collected) | appears)
    terminated = uniform[-1] < terminate_prob
    return State(pos, present, state.time + 1, object_pos), reward, terminated


def move(level: Level, pos: Int[Array, ""], action: Int[Array, ""] | int | float) -> Int[Array, ""]:
    """Return the agent's cell after an action; borders and walls block moves."""
    size = level.size
    column = pos % size
    ahead = pos + (
        jnp.where((action == DOWN) & (pos < size * (size - 1)), size, 0)
        - jnp.where((action == UP) & (pos >= size), size, 0)
        + jnp.where((action == RIGHT) & (column < size - 1), 1, 0)
        - jnp.where((action == LEFT) & (column > 0), 1, 0)
    )
    return jnp.where(level.walls[ahead], pos, ahead)


def path_length(level: Level) -> Int[Array, ""]:
    """Number of steps from the start to the nearest object with positive reward.

    The result is -1 if no path leads to an object with positive reward.
    """
    cells, far = jnp.arange(level.walls.size), level.walls.size
    good = _used(level) & (level.reward[level.object_type] > 0)
    goals = _among(level, jnp.where(good, level.object_pos, -1))
    distance = jnp.where(goals, 0, far)  # [C]; `far`, which is C, exceeds the length of any path
    moves = [jax.vmap(lambda cell, a=a: move(level, cell, a))(cells) for a in range(4)]

    def nearer(carry: tuple) -> tuple:
        _, old = carry
        new = old
        for following in moves:  # moves are reversible, so distances are symmetric
            new = jnp.minimum(new, old[following] + 1)
        return (new < old).any(), new

    # Relax the distances of all cells at once until none changes.
    changing = jax.lax.while_loop(lambda carry: carry[0], nearer, (jnp.bool_(True), distance))
    length = changing[1][level.start]
    return jnp.where(length < far, length, -1)


def to_bits(flags: Bool[Array, " n"]) -> Int[Array, ""]:
    """Return the integer whose bit i is flag i."""
    return jnp.where(flags, 1 << jnp.arange(flags.shape[0], dtype=jnp.int32), 0).sum(
        dtype=jnp.int32
    )


def from_bits(bits: Int[Array, "*B"], num: int) -> Bool[Array, "*B n"]:
    """Return the lowest `num` bits as flags."""
    shifts = jnp.arange(num, dtype=jnp.int32).reshape(*(1,) * bits.ndim, num)
    return (bits[..., None] >> shifts) & 1 == 1


def _used(level: Level) -> Bool[Array, " n"]:
    return jnp.arange(level.object_type.shape[0]) < level.num_objects


def _free(level: Level) -> Bool[Array, " C"]:
    return ~level.walls & (jnp.arange(level.walls.size) < level.size * level.size)


def _among(level: Level, cells: Int[Array, " m"]) -> Bool[Array, " C"]:
    """Return a mask of the given cells; -1 stands for no cell."""
    return (jnp.arange(level.walls.size)[None] == cells[:, None]).any(0)
