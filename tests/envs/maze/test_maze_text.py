"""Mazes to and from text, files and pictures, and error messages for malformed ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.maze import Maze, State, check_level, make_level, size_of, to_grid, to_text
from rlgen.levels import load_levels, make_level_set, save_levels

MAZE = """\
>.#..
..#.#
.....
####.
G...."""
FILE = f"\nname: first one\n{MAZE}\n\n\n{MAZE.replace('>', '^')}\n"


def small():
    return Maze(5, 5, 4, max_steps=30)


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_text_says_what_the_grid_says_and_comes_back_unchanged():
    level = small().from_text(MAZE)
    grid = to_grid(level)
    assert to_text(level) == MAZE
    assert (tuple(map(int, grid.start)), int(grid.direction)) == ((0, 0), 0)
    assert tuple(map(int, grid.goal)) == (0, 4)
    assert np.asarray(grid.walls).sum() == MAZE.count("#") and bool(grid.walls[3, 0])
    assert int(level.max_steps_in_episode) == 30
    same(make_level(*grid, max_steps=30), level)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(13, 13), (40, 33)])
def test_sampled_mazes_survive_text(size):
    env = Maze(*size, num_walls=60)
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(0), 5))
    for i in range(5):
        level = jax.tree.map(lambda x, i=i: x[i], levels)
        same(env.from_text(to_text(level)), level)
    assert size_of(levels) == size


def test_smaller_mazes_are_padded_by_walls_to_the_right_and_below():
    grown = to_text(Maze(6, 7).from_text(MAZE)).split("\n")
    assert grown == [row + "##" for row in MAZE.split("\n")] + ["#######"]


def test_text_file_holds_several_mazes_with_and_without_names(tmp_path):
    path = tmp_path / "two.txt"
    path.write_text(FILE)
    levels = small().load_levels(path)
    assert levels.names == ("first one", "two-0001")
    np.testing.assert_array_equal(levels.level.direction, [0, 3])
    np.testing.assert_array_equal(levels.optimal_steps, [16, 17])


@pytest.mark.thorough
def test_npz_files_come_back_unchanged_and_foreign_ones_are_refused(tmp_path):
    env, path = small(), tmp_path / "levels.npz"
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(0), 3))
    saved = make_level_set(env, levels)
    save_levels(path, saved)
    same(env.load_levels(path), saved)
    # The second has another size, but arrays of the same shapes.
    for other in (Maze(), Maze(4, 6, 4)):
        with pytest.raises(ValueError, match=str(path)):
            other.load_levels(path)
    crossed = replace(saved, level=replace(levels, goal=levels.start))
    save_levels(path, crossed)
    # The generic loader accepts it; the maze itself rejects it.
    assert load_levels(path, env.default_params)
    with pytest.raises(ValueError, match=r"levels.npz: level 'test-0000': agent and goal"):
        env.load_levels(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (FILE.replace("####.", "####x"), "line 6: 'x' is none of"),
        (FILE.replace("####.", "###."), "line 6: 4 cells, but the maze's first line has 5"),
        (MAZE.replace("G", "."), "one goal .* starts at line 1, found 0"),
        (MAZE + "\n\n" + MAZE.replace("#.#", "#v#"), "one agent .* starts at line 7, found 2"),
        (MAZE + "\n.....", "line 1: the maze is 5 x 6 cells"),
        (MAZE + "\nname: late\n", "line 6: a name belongs before"),
        ("name: alone", "line 1: the name 'alone' has no maze"),
        ("\n\n", "no maze found"),
    ],
)
def test_malformed_text_is_refused_with_file_and_line(tmp_path, text, said):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"bad.txt: .*{said}"):
        small().load_levels(path)


def test_a_missing_or_binary_file_is_refused(tmp_path):
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("binary.txt", "nowhere.txt", "nowhere.npz"):
        with pytest.raises(ValueError, match=name):
            small().load_levels(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"start": (2, 0)}, "the agent is on a wall, at"),
        ({"goal": (1, 3)}, "the goal is on a wall"),
        ({"goal": (5, 0)}, "the goal is at .* outside"),
        ({"start": (0, -1)}, "the agent is at .* outside"),
        ({"goal": (0, 0)}, "agent and goal are on the same cell"),
        ({"direction": 4}, "direction 4 is none of"),
        ({"max_steps": 0}, "time limit is 0"),
    ],
)
def test_levels_that_cannot_be_played_are_refused(change, said):
    fields = {**to_grid(small().from_text(MAZE))._asdict(), "max_steps": 30, **change}
    with pytest.raises(ValueError, match=said):
        check_level(make_level(**fields))


def test_levels_whose_rows_and_columns_disagree_are_refused():
    level = small().from_text(MAZE)
    with pytest.raises(ValueError, match="rows and columns disagree"):
        check_level(replace(level, walls=level.walls.at[4, 0].add(1 << 4)))


def test_pictures_show_walls_goal_agent_and_the_cells_in_view():
    env = small()
    level = env.from_text(MAZE)
    image = env.level_image(level)
    assert image.shape == (160, 160, 3) and image.dtype == np.uint8

    def middle(picture, x, y):
        return picture[32 * y + 16, 32 * x + 16].astype(int)

    red, green, _ = middle(image, 0, 0), middle(image, 0, 4), None
    assert red.argmax() == 0 and green.argmax() == 1
    assert middle(image, 2, 0).max() < 110 < 240 < middle(image, 1, 0).min()
    state = State(jnp.int32(4), jnp.int32(3), jnp.int32(3), jnp.int32(7))
    seen = env.render(level, state)
    np.testing.assert_array_equal(env.render(state, level), seen)
    tinted = [
        [(middle(seen, x, y) != middle(image, x, y)).any() for x in range(5)] for y in range(5)
    ]
    expected = np.zeros((5, 5), bool)
    expected[:4, 2:] = expected[0, 0] = (
        True  # four ahead (up), two to each side; the agent left (0, 0)
    )
    np.testing.assert_array_equal(tinted, expected)


def test_a_turned_agent_points_the_other_way():
    env, level = small(), small().from_text(MAZE)
    tiles = [env.level_image(replace(level, direction=jnp.int32(d)))[:31, :31] for d in range(4)]
    weight = [(np.indices((31, 31)) - 15)[:, tile[..., 2] < 100].mean(1) for tile in tiles]
    # The base of the triangle is opposite to its direction: left, above, right, below.
    for (y, x), (away_x, away_y) in zip(weight, [(-1, 0), (0, -1), (1, 0), (0, 1)], strict=True):
        assert x * away_x + y * away_y > 1 > abs(x * away_y) + abs(y * away_x)


def test_pictures_of_large_mazes_stay_small():
    walls = np.zeros((101, 101), bool)
    assert Maze(101, 101).level_image(make_level(walls, (0, 0), 1, (100, 100))).shape == (
        404,
        404,
        3,
    )
