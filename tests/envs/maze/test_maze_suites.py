import collections
import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs.maze import Maze, check_levels, to_grid
from rlgen.envs.maze import suites as layouts
from rlgen.evaluation.suites import family_of, levels_from_file, load_suite, suite_names
from rlgen.gymnax import from_gymnax
from rlgen.levels import disjoint, exclude, make_level_set, save_levels, take

ENV = Maze()
SUITES = list(ENV.suites())

# Name: number of walls, path length, fewest steps with turns, best return within 250 steps.
TABLE = {
    "SixteenRooms": (46, 20, 26, 0.9064),
    "SixteenRooms2": (53, 22, 28, 0.8992),
    "Labyrinth": (72, 96, 113, 0.5932),
    "LabyrinthFlipped": (72, 96, 113, 0.5932),
    "Labyrinth2": (72, 96, 113, 0.5932),
    "StandardMaze": (73, 40, 54, 0.8056),
    "StandardMaze2": (72, 56, 73, 0.7372),
    "StandardMaze3": (71, 39, 54, 0.8056),
}

# Number of levels, and the first digits of a hash of their contents. If the levels of a suite
# change, give it a new version together with the new hash.
PINNED = {
    "heldout": (8, "ce29aa786ca1ed50"),
    "trivial": (3, "ea837b3e6f1b00f7"),
    "small-corridor": (10, "ad9113649a5988c5"),
    "large-corridor": (16, "64163f19cee804d7"),
    "four-rooms": (64, "ea9b955149036671"),
    "crossing": (64, "e8f832e50f242d84"),
    "perfect-13": (100, "e2c3afc1aa7d9bf6"),
    "perfect-19": (100, "a70d080d68b3826b"),
    "perfect-51": (50, "f9a884e4f9758b17"),
    "perfect-101": (10, "c4f621181ee67509"),
    "test-25": (200, "311da8f6d43352da"),
    "test-60": (200, "3237c95b2f90aa8f"),
    "cvar-60": (1000, "ef741ea956860457"),
}


@functools.cache
def suite(name):
    return load_suite(ENV, f"maze/{name}")


@functools.cache
def grids(name):
    found = jax.jit(jax.vmap(to_grid))(suite(name).levels.level)
    return jax.tree.map(np.asarray, found)


def search(walls, start, goal, direction=None):
    """Breadth-first search over cells, or over cells and directions if a direction is given."""
    turning = direction is not None
    first = (*map(int, start), int(direction) if turning else 0)
    steps, queue = {first: 0}, collections.deque([first])
    while queue:
        x, y, facing = here = queue.popleft()
        if (x, y) == tuple(goal):
            return steps[here]
        moves = [(1, 0), (0, 1), (-1, 0), (0, -1)]
        after = [(x, y, (facing + 1) % 4), (x, y, (facing - 1) % 4)] if turning else []
        after += [
            (x + a, y + b, facing) for a, b in (moves[facing : facing + 1] if turning else moves)
        ]
        for place in after:
            inside = 0 <= place[0] < walls.shape[1] and 0 <= place[1] < walls.shape[0]
            if inside and not walls[place[1], place[0]] and place not in steps:
                steps[place] = steps[here] + 1
                queue.append(place)
    return -1


def content(name):
    walls, start, direction, goal = grids(name)
    digest = hashlib.sha256(repr(walls.shape).encode())
    digest.update(np.packbits(walls).tobytes())
    limits = np.asarray(suite(name).levels.level.max_steps_in_episode)
    for numbers in (start, direction, goal, limits):
        digest.update(numbers.astype("<i4").tobytes())
    return digest.hexdigest()[:16]


def test_named_mazes_are_those_of_the_literature():
    levels = suite("heldout").levels
    assert levels.names == tuple(TABLE)
    walls, start, _, goal = grids("heldout")
    for i, (num_walls, path, steps, best) in enumerate(TABLE.values()):
        assert walls[i].sum() == num_walls
        assert search(walls[i], start[i], goal[i]) == path
        assert levels.optimal_steps[i] == steps
        assert levels.optimal_return[i] == pytest.approx(best, abs=1e-6)
    assert (np.asarray(levels.level.max_steps_in_episode) == 250).all()


def test_named_mazes_flipped_left_to_right_only_where_they_should_be():
    walls, start, direction, goal = (dict(zip(TABLE, x, strict=True)) for x in grids("heldout"))
    mirrored, flipped = "Labyrinth", "LabyrinthFlipped"
    assert (walls[flipped] == walls[mirrored][:, ::-1]).all()
    assert tuple(start[flipped]) == (12 - start[mirrored][0], start[mirrored][1])
    assert (direction[mirrored], direction[flipped]) == (0, 2)
    assert (goal[flipped] == goal[mirrored]).all()


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUITES)
def test_every_level_is_well_formed_solvable_and_unlike_the_others(name):
    played, levels = suite(name), suite(name).levels
    check_levels(levels.level, levels.names)
    assert played.name == f"maze/{name}" and levels.split == "test" and levels.version == "1"
    assert len(set(levels.names)) == len(levels)
    assert len({tuple(h) for h in np.asarray(levels.hash).tolist()}) == len(levels)
    walls, start, direction, goal = grids(name)
    expected = [search(*maze) for maze in zip(walls, start, goal, direction, strict=True)]
    assert min(expected) > 0
    np.testing.assert_array_equal(levels.optimal_steps, expected)
    limits = np.asarray(levels.level.max_steps_in_episode)
    assert (
        isinstance(played.env, Maze)
        and (limits == played.env.max_steps).all()
        and (limits >= expected).all()
    )
    np.testing.assert_allclose(
        levels.optimal_return, 1 - 0.9 * np.array(expected) / limits, rtol=1e-6
    )


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUITES)
def test_levels_stay_the_same_for_ever(name):
    assert (len(suite(name).levels), content(name)) == PINNED[name]


def test_suites_keep_all_of_the_environment_but_its_size():
    env = Maze(height=5, width=6, num_walls=3, observation="image", penalize_time=False)
    played = load_suite(env, "large-corridor")
    assert played.env == dataclasses.replace(env, height=19, width=19, max_steps=882)
    assert (np.asarray(played.levels.optimal_return) == 1).all()
    crowded = dataclasses.replace(ENV, height=20, width=20, num_walls=300)
    small = load_suite(crowded, "crossing").env
    assert isinstance(small, Maze) and small.num_walls == 79  # two of the 9 x 9 cells stay free


@pytest.mark.thorough
def test_levels_can_be_played_in_their_environment():
    played = suite("perfect-51")
    level = jax.tree.map(lambda x: x[0], played.levels.level)
    obs, state = played.env.reset_env(jax.random.key(0), level)
    _, state, reward, terminated, _ = played.env.step_env(
        jax.random.key(1), state, jnp.int32(1), level
    )
    assert reward == 0 and not terminated and state.time == 1
    assert jax.tree.structure(obs) == jax.tree.structure(
        ENV.reset_env(jax.random.key(0), ENV.default_params)[0]
    )


@pytest.mark.parametrize(("name", "size"), [("small-corridor", 13), ("large-corridor", 19)])
def test_corridors_have_a_goal_in_each_dead_end_along_the_middle(name, size):
    walls, start, direction, goal = grids(name)
    middle = size // 2
    expected = {(x, y) for x in range(2, size - 2, 2) for y in (middle - 1, middle + 1)}
    assert {tuple(cell) for cell in goal.tolist()} == expected
    assert (walls == walls[0]).all() and (start == (0, middle)).all() and (direction == 0).all()
    drawn = ["#" if wall else "." for wall in walls[0, 1]]
    assert "".join(drawn) == "." + "#." * (size // 2)
    assert walls[0, middle].sum() == size - 2 and not walls[0, [0, -1]].any()
    assert not walls[0, :, [0, -1]].any()
    for x, y in expected:
        around = [walls[0, y, x - 1], walls[0, y, x + 1], walls[0, y - 1, x], walls[0, y + 1, x]]
        assert sum(around) == 3


def test_four_rooms_have_one_door_in_each_arm_of_the_cross():
    for walls, start, goal in zip(*(grids("four-rooms")[i] for i in (0, 1, 3)), strict=True):
        for arm in (walls[8, :8], walls[8, 9:], walls[:8, 8], walls[9:, 8]):
            assert (~arm).sum() == 1
        assert walls.sum() == 2 * 17 - 1 - 4
        assert 8 not in (*start, *goal)


def test_crossings_have_five_lines_of_wall_and_one_monotone_way():
    for i, walls in enumerate(grids("crossing")[0]):
        rows, cols = (walls.sum(axis=axis) >= 7 for axis in (1, 0))
        assert rows.sum() + cols.sum() == 5
        assert not rows[::2].any() and not cols[::2].any()
        for line in (*walls[rows], *walls.T[cols]):
            assert (~line).sum() == 1
        assert (grids("crossing").start[i] == 0).all() and (grids("crossing").goal[i] == 8).all()
        assert search(walls, (0, 0), (8, 8)) == 16


@pytest.mark.parametrize("size", [13, 19, 51, 101])
def test_perfect_mazes_are_trees(size):
    walls, _, direction, _ = grids(f"perfect-{size}")
    assert walls.shape[1:] == (size, size)
    free = ~walls
    upright, level = free[:, 1:] & free[:, :-1], free[:, :, 1:] & free[:, :, :-1]
    edges = upright.sum((1, 2)) + level.sum((1, 2))
    num_cells = free.sum((1, 2))
    np.testing.assert_array_equal(edges, num_cells - 1)
    # All rooms and all passages of the spanning tree.
    assert (num_cells == 2 * (size // 2 + 1) ** 2 - 1).all()
    for one in free[:3]:
        assert reachable(one) == one.sum()
    assert size > 51 or set(direction.tolist()) == {0, 1, 2, 3}


def reachable(free):
    first = tuple(int(x) for x in np.argwhere(free)[0])
    seen, todo = {first}, [first]
    while todo:
        y, x = todo.pop()
        for place in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            inside = min(place) >= 0 and max(place) < len(free)
            if inside and free[place] and place not in seen:
                seen.add(place)
                todo.append(place)
    return len(seen)


def test_random_mazes_are_placed_uniformly():
    open_rooms = [layouts.random_walls(layouts.level_stream(8, i), 0, 3) for i in range(3600)]
    for where in ("start", "goal"):
        counts = collections.Counter(getattr(room, where) for room in open_rooms)
        # 5 standard deviations.
        assert len(counts) == 9 and max(abs(n - 400) for n in counts.values()) < 100
    turns = collections.Counter(room.direction for room in open_rooms)
    assert max(abs(turns[d] - 900) for d in range(4)) < 130


@pytest.mark.thorough
def test_fresh_mazes_are_of_the_training_distribution():
    """The mean fewest steps of solvable mazes with 25 and 60 walls are 11.4 and 14.9."""
    for name, mean in (("test-25", 11.4), ("test-60", 14.9), ("cvar-60", 14.9)):
        steps = np.asarray(suite(name).levels.optimal_steps)
        assert abs(steps.mean() - mean) < 3.5 * steps.std() / len(steps) ** 0.5


def test_test_streams_share_no_maze_with_each_other_or_with_a_training_set():
    fresh, crowded, many = (suite(name).levels for name in ("test-25", "test-60", "cvar-60"))
    assert disjoint(fresh.hash, crowded.hash)
    assert disjoint(many.hash, crowded.hash) and disjoint(many.hash, fresh.hash)
    train = take(fresh, [3, 1])
    assert not disjoint(train.hash, fresh.hash)
    kept, num_dropped = exclude(fresh, train.hash)
    assert num_dropped == 2 and len(kept) == len(fresh) - 2
    assert disjoint(train.hash, kept.hash)
    assert kept.names == tuple(n for i, n in enumerate(fresh.names) if i not in (1, 3))
    again = make_level_set(ENV, kept.level, kept.names)
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(kept), strict=True):
        np.testing.assert_array_equal(one, other)


def test_exclude_keeps_one_of_equal_levels():
    trivial = suite("trivial").levels
    kept, num_dropped = exclude(take(trivial, [0, 2, 0, 0]), jnp.zeros((0, 2), jnp.uint32))
    assert kept.names == ("TrivialMaze", "TrivialMaze3") and num_dropped == 2


def test_suites_are_listed_and_unknown_ones_answered_with_the_nearest():
    assert {f"maze/{name}" for name in SUITES} <= set(suite_names())
    assert family_of(ENV) == "maze" in registry.names("envs")
    assert load_suite(ENV, "trivial").name == "maze/trivial"
    with pytest.raises(ValueError, match="did you mean 'maze/heldout'"):
        load_suite(ENV, "maze/heldoot")
    with pytest.raises(ValueError, match="a different family than the environment, maze"):
        load_suite(ENV, "gridworld/heldout")
    with pytest.raises(ValueError, match="OneLevel has no suites"):
        load_suite(from_gymnax("Catch-bsuite"), "maze/heldout")


def test_files_of_levels_are_suites_whose_optima_are_computed_anew(tmp_path):
    (tmp_path / "mine.txt").write_text("name: corner\n>..\n.#.\n..G\n")
    mine = levels_from_file(Maze(height=3, width=3, num_walls=2), tmp_path / "mine.txt")
    assert mine.name == "mine" and mine.levels.names == ("corner",)
    assert mine.levels.optimal_steps.tolist() == [5]
    wrong = dataclasses.replace(suite("trivial").levels, optimal_steps=jnp.zeros(3, jnp.int32))
    save_levels(tmp_path / "wrong.npz", wrong)
    assert levels_from_file(ENV, tmp_path / "wrong.npz").levels.optimal_steps.tolist() == [
        9,
        13,
        17,
    ]
    with pytest.raises(ValueError, match="there is no file"):
        levels_from_file(ENV, tmp_path / "missing.npz")
