"""Values of positions in mazes and caves, against breadth-first search by env steps."""

from collections import deque

import jax
import numpy as np
import pytest

from rlgen.envs import cave, maze

ENVS = {
    "maze": maze.Maze(height=5, width=7, num_walls=12),
    "cave": cave.Cave(height=5, width=7, num_objects=16),
}
STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # right, down, left, up
NUM_LEVELS = 24


def slow_values(blocked, start, goal, discount):
    """Compute values by breadth-first search from each state reachable from the start."""
    height, width = blocked.shape

    def around(x, y, facing):
        ahead = (x + STEPS[facing][0], y + STEPS[facing][1])
        inside = 0 <= ahead[0] < width and 0 <= ahead[1] < height
        moves = inside and not blocked[ahead[1], ahead[0]]
        return [(x, y, (facing + turn) % 4) for turn in (1, 3)] + [(*ahead, facing)] * moves

    def search(first):
        fewest, queue = {first: 0}, deque([first])
        while queue:
            here = queue.popleft()
            over = here[:2] == goal
            for state in [] if over else around(*here):
                if state not in fewest:
                    fewest[state] = fewest[here] + 1
                    queue.append(state)
        return fewest

    values = np.full(height * width, np.inf)
    for x, y, facing in search((*start, 0)):
        ends = [n for state, n in search((x, y, facing)).items() if state[:2] == goal]
        value = discount ** min(ends) if ends and (x, y) != goal else 0.0
        values[y * width + x] = min(values[y * width + x], value)
    return np.where(np.isinf(values), 0.0, values)


def blocked_cells(name, level):
    if name == "maze":
        return maze.to_grid(level).walls
    tiles = cave.to_grid(level).tiles
    return (tiles == cave.WALL) | (tiles == cave.LAVA)


@pytest.mark.parametrize("name", ENVS)
def test_values_are_those_of_a_search_from_every_state(name):
    env = ENVS[name]

    @jax.jit
    def sample(keys):
        level = jax.vmap(env.sample_level)(keys)
        found = jax.vmap(lambda one: env.feature_values(one, "position", 0.9))(level)
        return jax.vmap(lambda one: blocked_cells(name, one))(level), level.start, level.goal, found

    blocked, *ends, found = map(np.asarray, sample(jax.random.split(jax.random.key(0), NUM_LEVELS)))
    for i in range(NUM_LEVELS):
        start, goal = (tuple(x[i].tolist()) for x in ends)
        slow = slow_values(blocked[i], start, goal, 0.9)
        np.testing.assert_allclose(found[i], slow, rtol=1e-5, err_msg=str(i))
    reachable = (found > 0).any(1)
    assert reachable.any() and not reachable.all()  # some levels have no solution


@pytest.mark.parametrize("env", ENVS.values())
def test_a_grid_has_no_events(env):
    with pytest.raises(ValueError, match="no feature 'event'"):
        env.feature_values(env.default_params, "event", 0.9)
