"""Caves as a family: distribution, edits, exact solutions, codec, hashes and features."""

import collections
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.codec import LevelCodec
from rlgen.envs.cave import (
    EMPTY,
    LAVA,
    MOSS,
    WALL,
    Cave,
    check_levels,
    distances,
    make_level,
    path_length,
    tiny,
    to_grid,
    to_text,
)

AHEAD = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def neighbours(x, y):
    return [(x + dx, y + dy) for dx, dy in AHEAD]


def walkable(tiles, cell):
    height, width = tiles.shape
    inside = 0 <= cell[0] < width and 0 <= cell[1] < height
    return inside and tiles[cell[1], cell[0]] in (EMPTY, MOSS)


def reference_distances(tiles, goal):
    """Breadth-first search from the goal."""
    found = np.full(tiles.shape, -1)
    found[goal[1], goal[0]] = 0
    queue = collections.deque([tuple(goal)])
    while queue:
        x, y = queue.popleft()
        for cell in neighbours(x, y):
            if walkable(tiles, cell) and found[cell[1], cell[0]] < 0:
                found[cell[1], cell[0]] = found[y, x] + 1
                queue.append(cell)
    return found


def reference_steps(tiles, start, goal, directions):
    """Fewest moves and turns from the best of given directions; -1 if unsolvable."""
    steps = {(*start, d): 0 for d in directions}
    queue = collections.deque(steps)
    while queue:
        x, y, d = here = queue.popleft()
        if (x, y) == tuple(goal):
            return steps[here]
        ahead = neighbours(x, y)[d]
        ways = [(*ahead, d)] if walkable(tiles, ahead) else []
        for way in [*ways, (x, y, (d + 1) % 4), (x, y, (d - 1) % 4)]:
            if way not in steps:
                steps[way] = steps[here] + 1
                queue.append(way)
    return -1


def sampled(env, num_levels, seed=0):
    return jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(seed), num_levels))


GRIDS = jax.jit(jax.vmap(to_grid))


def grids(levels):
    return jax.tree.map(np.asarray, GRIDS(levels))


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("height", "width", "num_objects", "num"), [(13, 13, 100, 100), (43, 43, 1100, 20)]
)
def test_solver_distances_and_features_equal_breadth_first_search(height, width, num_objects, num):
    env = Cave(height, width, num_objects)
    levels = sampled(env, num)
    fixed = replace(levels, direction=jnp.arange(num) % 4)
    solve = jax.jit(jax.vmap(lambda one: (env.solve(one), path_length(one), distances(one))))
    any_steps, length, found = jax.tree.map(np.asarray, solve(levels))
    fixed_steps = jax.tree.map(np.asarray, solve(fixed)[0])
    features = jax.tree.map(np.asarray, jax.jit(jax.vmap(env.level_features))(levels))
    for i, (tiles, start, goal) in enumerate(zip(*grids(levels), strict=True)):
        expected = reference_distances(tiles, goal)
        np.testing.assert_array_equal(found[i], expected)
        assert length[i] == features["path_length"][i] == expected[start[1], start[0]]
        assert any_steps.steps[i] == reference_steps(tiles, start, goal, range(4))
        assert fixed_steps.steps[i] == reference_steps(tiles, start, goal, [i % 4])
        assert features["optimal_steps"][i] == any_steps.steps[i]
        assert features["solvable"][i] == any_steps.solvable[i] == (length[i] >= 0)
        for name, kind in (("num_walls", WALL), ("num_lava", LAVA), ("num_moss", MOSS)):
            assert features[name][i] == (tiles == kind).sum()
    assert 0 < any_steps.solvable.sum() < num
    best = np.where(any_steps.solvable & (any_steps.steps <= 250), 1 - any_steps.steps * 0.0036, 0)
    np.testing.assert_allclose(any_steps.optimal_return, best, atol=1e-6)


def test_features_of_a_cave_by_hand():
    env = Cave(4, 6, 0)
    level = env.from_text('G."~#~\n#.#.."\n~.#S#.\n#"~#..')
    np.testing.assert_array_equal(
        distances(level),
        [[0, 1, 2, -1, -1, -1], [-1, 2, -1] + [-1] * 3, [-1, 3] + [-1] * 4, [-1, 4] + [-1] * 4],
    )
    features = jax.jit(env.level_features)
    found = features(level)
    expected = {"num_walls": 7, "num_lava": 4, "num_moss": 3, "path_length": -1}
    assert {name: int(found[name]) for name in expected} == expected
    assert float(found["mean_distance"]) == 2  # mean of 0, 1, 2, 2, 3, 4
    # Mean of 2 and 4; the third moss cell cannot reach the goal.
    assert float(found["moss_distance"]) == 3
    np.testing.assert_allclose(found["lava_distance"], 4)  # next to cells at distance 2, 3 and 4
    bare = features(env.from_text("G.....\n......\n......\n.....S"))
    assert float(bare["moss_distance"]) == float(bare["lava_distance"]) == -1


def test_lava_is_never_crossed_and_a_known_direction_costs_its_turns():
    env = Cave(3, 5, 0)
    for start, steps in (("S", 6), ("v", 6), (">", 7), ("<", 7), ("^", 8)):
        level = env.from_text(f"..#..\n.{start}~G.\n.....")
        assert int(env.solve(level).steps) == steps
        assert int(path_length(level)) == 4
    blocked = env.solve(env.from_text("..#..\n.S~G.\n..~.."))
    assert (bool(blocked.solvable), int(blocked.steps)) == (False, -1)


def test_random_caves_have_uniform_numbers_of_uniform_objects_on_uniform_cells():
    env, num = Cave(4, 5, 12), 6500
    levels = sampled(env, num)
    check_levels(levels)
    tiles, start, goal = grids(levels)
    count = np.bincount((tiles != EMPTY).sum((1, 2)), minlength=13)
    assert count.size == 13 and abs(count - num / 13).max() < 5 * np.sqrt(num / 13)
    for kind in (WALL, LAVA, MOSS):
        assert abs((tiles == kind).sum() / (tiles != EMPTY).sum() - 1 / 3) < 0.012
    share = num / 20
    for cell in (start, goal):
        held = np.bincount(cell[:, 1] * 5 + cell[:, 0], minlength=20)
        assert abs(held - share).max() < 5 * np.sqrt(share)
    assert abs((tiles != EMPTY).mean(0) - 0.3).max() < 5 * np.sqrt(0.3 * 0.7 / num)
    assert (np.asarray(levels.direction) == -1).all()


def test_simple_levels_are_empty_and_full_ones_keep_two_cells_free():
    key = jax.random.key(1)
    room = jax.jit(Cave().sample_simple_level)(key)
    assert (np.asarray(to_grid(room).tiles) == EMPTY).all()
    full = sampled(Cave(2, 3, 4), 300)
    check_levels(full)
    assert (grids(full).tiles != EMPTY).sum((1, 2)).max() == 4


@pytest.mark.thorough
def test_edits_rewrite_at_most_as_many_cells_with_all_six_alike():
    env, num = Cave(num_objects=59), 6000
    levels = jax.jit(jax.vmap(env.sample_simple_level))(jax.random.split(jax.random.key(0), num))
    edited = jax.jit(lambda key, x: env.mutate_levels(key, x, 5))(jax.random.key(1), levels)
    check_levels(edited)
    before, after = grids(levels), grids(edited)
    assert (before.tiles != after.tiles).sum((1, 2)).max() == 5
    distinct = 169 * (1 - (168 / 169) ** 5)
    for kind in (WALL, LAVA, MOSS):
        assert abs((after.tiles == kind).sum() / num - distinct / 6) < 0.07
    for one, other in ((before.start, after.start), (before.goal, after.goal)):
        # Either it was written to one of the cells, or its own cell was overwritten.
        moved = (one != other).any(1).mean()
        assert abs(moved - (1 - (5 / 6) ** distinct) - (5 / 6) ** distinct * distinct / 169) < 0.03


@pytest.mark.thorough
@pytest.mark.parametrize("size", [(1, 2), (3, 3)])
def test_edits_keep_the_smallest_and_the_fullest_caves_well_formed(size):
    env = Cave(*size, num_objects=size[0] * size[1] - 2)
    levels = sampled(env, 300)
    edit = jax.jit(lambda key, x: env.mutate_levels(key, x, 4))
    for seed in range(6):
        before = levels
        levels = edit(jax.random.key(seed), levels)
        check_levels(levels)
        assert (grids(before).tiles != grids(levels).tiles).sum((1, 2)).max() <= 4
        np.testing.assert_array_equal(before.direction, levels.direction)


def test_parts_of_a_level_make_it_again():
    env = Cave(6, 9, 30, max_steps=77)
    codec = env.codec()
    assert (
        isinstance(codec, LevelCodec) and codec == Cave(6, 9, max_steps=77, num_objects=0).codec()
    )
    layout, goal, start = codec.parts
    assert (layout.name, goal.name, start.name) == ("layout", "goal", "start")
    levels = sampled(env, 50)
    values = jax.jit(jax.vmap(codec.encode))(levels)
    assert set(values) == {part.name for part in codec.parts}
    same(jax.jit(jax.vmap(codec.decode))(values), levels)
    assert values["layout"].shape == (50, 6, 9)
    tiles, starts, goals = grids(levels)
    np.testing.assert_array_equal(values["layout"], tiles)
    np.testing.assert_array_equal(values["goal"], goals[:, 1] * 9 + goals[:, 0])
    np.testing.assert_array_equal(values["start"], starts[:, 1] * 9 + starts[:, 0])


def test_places_become_empty_cells():
    level = (
        tiny()
        .codec()
        .decode({"layout": jnp.full((5, 5), MOSS), "goal": jnp.int32(7), "start": jnp.int32(20)})
    )
    rows = ['"""""', '""G""', '"""""', '"""""', 'S""""']
    assert to_text(level) == "\n".join(rows)
    check_levels(jax.tree.map(lambda x: x[None], level))


def test_hash_tells_caves_apart_and_forgets_time_limit_and_direction():
    env = Cave()
    levels = sampled(env, 2000)
    hashes = np.asarray(jax.jit(jax.vmap(env.level_hash))(levels))
    assert len(np.unique(hashes, axis=0)) == 2000
    level = jax.tree.map(lambda x: x[0], levels)
    grid = to_grid(level)
    again = make_level(*grid, max_steps=7, direction=2)
    np.testing.assert_array_equal(env.level_hash(again), hashes[0])
    kinds = [env.level_hash(make_level(jnp.full((13, 13), k), *grid[1:])) for k in range(4)]
    swapped = env.level_hash(make_level(grid.tiles, grid.goal, grid.start))
    assert len({np.asarray(x).tobytes() for x in (*kinds, swapped, hashes[0])}) == 6


def test_text_comes_back_unchanged_and_wrong_ones_are_refused():
    env = Cave(4, 7, 20)
    for level in (env.default_params, replace(env.default_params, direction=jnp.int32(3))):
        same(env.from_text(to_text(level)), level)
    for text, said in (
        ("S.G", "4 lines of 7 characters"),
        ("S.....G\n" * 3 + ".......", r"exactly one goal \(G\), found 3"),
        ("S.....G\n" + "...x...\n" * 3, "'x' is none of"),
    ):
        with pytest.raises(ValueError, match=said):
            env.from_text(text)


def test_pictures_show_tiles_and_the_view():
    env = Cave()
    level, (_, state) = env.default_params, env.reset(jax.random.key(0))
    plain, seen = env.level_image(level), env.render(level, state)
    assert plain.shape == seen.shape == (416, 416, 3) and plain.dtype == np.uint8
    np.testing.assert_array_equal(env.render(state, level), seen)  # gymnax's order of arguments
    # The level image shows a disc, the state a triangle.
    assert (plain != env.render(level, state, highlight=False)).any()
    corner = plain.reshape(13, 32, 13, 32, 3)[:, 2, :, 2]
    tiles = np.asarray(to_grid(level).tiles)
    kinds = [np.unique(corner[tiles == k], axis=0) for k in (WALL, LAVA, MOSS)]
    assert all(len(colours) == 1 for colours in kinds)
    assert len(np.unique(np.concatenate(kinds), axis=0)) == 3
