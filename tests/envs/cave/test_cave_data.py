"""Generation of caves, and properties of the level files that ship with rlgen."""

from collections import deque
from importlib.util import module_from_spec, spec_from_file_location
from itertools import product

import numpy as np
import pytest

from rlgen.envs.cave import decoration as decoration
from rlgen.envs.cave.decoration import EMPTY, LAVA, MOSS, WALL, Share, decorate
from rlgen.envs.cave.suites import FOLDER
from rlgen.envs.cave.wave_function_collapse import Drawing, layout, patterns_of, read_drawings
from tests.paths import ROOT

DRAWINGS = read_drawings()
SIZES = {"train": 512, "test": 2048, "unseen": 112, "few-cues": 112, "lava": 112, "large": 108}
USUAL = Share(0.1, 0.25)


def walk(free, goal):
    """Distances to the goal, (row, column), by breadth-first search with a queue."""
    found, queue = {goal: 0}, deque([goal])
    while queue:
        row, column = queue.popleft()
        for there in ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)):
            inside = 0 <= there[0] < free.shape[0] and 0 <= there[1] < free.shape[1]
            if inside and free[there] and there not in found:
                found[there] = found[row, column] + 1
                queue.append(there)
    return found


def windows(walls, size):
    found = np.lib.stride_tricks.sliding_window_view(walls, (size, size))
    return found.reshape(-1, size, size)


# Layouts.


@pytest.mark.thorough
@pytest.mark.parametrize("name", list(DRAWINGS))
def test_a_layout_holds_only_patterns_of_its_drawing(name):
    drawing = DRAWINGS[name]
    size, walls = drawing.size, drawing.walls
    tiled = np.tile(walls, (2, 2))[: walls.shape[0] + size - 1, : walls.shape[1] + size - 1]
    known = set()
    for window in windows(tiled, size):
        for turns, mirrored in product(range(4), (False, True)):
            turned = np.rot90(window, turns)
            known.add((turned.T if mirrored else turned).tobytes())
    made = [layout(np.random.default_rng(i), patterns_of(drawing), (13, 13)) for i in range(2)]
    made = [walls for walls in made if walls is not None]
    assert made
    for walls in made:
        assert walls.shape == (13, 13)
        assert {window.tobytes() for window in windows(walls, size)} <= known
    again = layout(np.random.default_rng(0), patterns_of(drawing), (13, 13))
    assert again is None or (again == made[0]).all()


def test_a_layout_that_wraps_goes_on_over_its_edges():
    drawing = DRAWINGS["partitions"]
    made = layout(np.random.default_rng(0), patterns_of(drawing), (8, 8), wraps=True)
    assert made is not None
    known = {pattern.tobytes() for pattern in patterns_of(drawing).walls}
    over = np.tile(made, (2, 2))[:9, :9]
    assert {window.tobytes() for window in windows(over, 2)} <= known


@pytest.mark.thorough
def test_what_is_ruled_out_is_what_has_no_layout():
    """All layouts of a tiny drawing, enumerated by brute force, are found, and no others."""
    drawing = Drawing("tiny", np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], bool), 2, wraps=True)
    patterns = patterns_of(drawing)
    known = {pattern.tobytes() for pattern in patterns.walls}
    possible = set()
    # The 2 x 2 patterns of 3 x 3 cells cover 4 x 4 cells.
    for bits in product((False, True), repeat=16):
        walls = np.array(bits).reshape(4, 4)
        if {window.tobytes() for window in windows(walls, 2)} <= known:
            possible.add(walls[:3, :3].tobytes())
    made = (layout(np.random.default_rng(i), patterns, (3, 3)) for i in range(600))
    found = {walls.tobytes() for walls in made if walls is not None}
    assert found <= possible and len(found) > 0.9 * len(possible) > 10


def naive_layout(rng, patterns, shape):
    """Reference for `layout` by sweeps over all cells to a fixed point, with the same draws."""
    height, width = shape
    count, size = len(patterns.weight), patterns.walls.shape[1]

    def agree(a, b, down, right):
        overlap = product(range(size), repeat=2)
        inside = [(r, c) for r, c in overlap if 0 <= r - down < size and 0 <= c - right < size]
        return all(
            patterns.walls[a][r, c] == patterns.walls[b][r - down, c - right] for r, c in inside
        )

    steps = ((0, 1), (1, 0), (0, -1), (-1, 0))
    fits = {
        step: {a: {b for b in range(count) if agree(a, b, *step)} for a in range(count)}
        for step in steps
    }
    noise = rng.random(height * width) * 0.1
    cells = list(product(range(height), range(width)))
    left = {cell: set(range(count)) for cell in cells}
    while any(len(some) > 1 for some in left.values()):
        entropy = [
            len(left[cell]) + x if len(left[cell]) > 1 else np.inf
            for cell, x in zip(cells, noise, strict=True)
        ]
        cell = cells[int(np.argmin(entropy))]
        chance = np.cumsum([w if i in left[cell] else 0.0 for i, w in enumerate(patterns.weight)])
        left[cell] = {int(np.searchsorted(chance, rng.random() * chance[-1], side="right"))}
        before = {}
        while before != left:
            before = dict(left)
            for (row, column), step in product(cells, steps):
                there = (row + step[0], column + step[1])
                if there in left:
                    allowed = set().union(*(fits[step][i] for i in left[row, column]))
                    left[there] = left[there] & allowed
        if not all(left.values()):
            return None
    first = [patterns.walls[left[cell].pop()][0, 0] for cell in cells]
    return np.array(first).reshape(shape)


def test_layouts_and_dead_ends_are_those_of_a_naive_solver():
    """Random drawings are used, because those that ship rarely lead to a contradiction."""
    dead_ends = 0
    for seed in range(12):
        walls = np.random.default_rng(seed).random((4, 4)) < 0.5
        patterns = patterns_of(Drawing("random", walls, 2 + seed % 2, wraps=seed % 4 < 2))
        made, naive = (
            solve(np.random.default_rng(seed), patterns, (5, 5)) for solve in (layout, naive_layout)
        )
        dead_ends += made is None
        assert (made is None) == (naive is None)
        assert made is None or (made == naive).all()
    assert 0 < dead_ends < 12


# Decoration.


@pytest.fixture(scope="module")
def decorated():
    patterns, found = patterns_of(DRAWINGS["partitions"]), []
    for seed in range(40):
        walls = layout(np.random.default_rng(seed), patterns, (13, 13))
        if walls is not None:
            found.append((walls, decorate(np.random.default_rng(seed), walls, USUAL, USUAL)))
    return found


@pytest.mark.thorough
def test_the_start_is_half_way_and_lava_was_wall(decorated):
    for walls, (tiles, start, goal) in decorated:
        free = np.isin(tiles, (EMPTY, MOSS))
        away = walk(free, (int(goal[1]), int(goal[0])))
        assert len(away) == free.sum()  # connected
        assert not (free & walls).any()
        assert away[start[1], start[0]] == int(np.median(list(away.values())))
        assert tiles[start[1], start[0]] == EMPTY == tiles[goal[1], goal[0]]
        assert tuple(start) != tuple(goal)


def test_nearer_cells_are_likelier_to_have_moss_and_farther_walls_lava(decorated):
    near, far = [], []
    for _, (tiles, _, goal) in decorated:
        away = decoration.distances(np.isin(tiles, (EMPTY, MOSS)), goal[::-1])
        order = np.argsort(away[away > 0], kind="stable")
        moss = (tiles == MOSS)[away > 0][order]
        near.append([moss[:8].mean(), moss[-8:].mean()])
        behind = decoration.wall_distances(away)
        order = np.argsort(-behind[behind >= 0], kind="stable")
        lava = (tiles == LAVA)[behind >= 0][order]
        far.append([lava[:8].mean(), lava[-8:].mean()])
    for first, last in (np.mean(near, axis=0), np.mean(far, axis=0)):
        assert first > 2 * last


def test_walls_are_as_far_as_one_walks_and_then_straight_through():
    # A corridor of three cells with the goal at its left end, in five rows of wall.
    free = np.zeros((5, 7), bool)
    free[2, :3] = True
    away = decoration.distances(free, np.array([2, 0]))
    np.testing.assert_array_equal(away[2], [0, 1, 2, -1, -1, -1, -1])
    found = decoration.wall_distances(away)
    # Wall cells above, below and at the end of the corridor are next to free cells; all others add
    # their distance to the nearest of these.
    np.testing.assert_array_equal(found[1], [1, 2, 3, 4, 5, 6, -1])
    np.testing.assert_array_equal(found[2], [-1, -1, -1, 3, 4, 5, 6])
    np.testing.assert_array_equal(found[0], [2, 3, 4, 5, 6, -1, -1])


def test_the_back_of_a_thin_wall_is_as_near_as_its_front():
    # Two lanes, separated by a wall of one cell, that meet only at the far end from the goal.
    free = np.ones((3, 7), bool)
    free[1, :6] = False
    away = decoration.distances(free, np.array([0, 0]))
    found = decoration.wall_distances(away)
    np.testing.assert_array_equal(found[1, :6], [1, 2, 3, 4, 5, 6])
    # Two cells thick: the lower wall row touches only the far lane, one step behind the upper row.
    free = np.ones((4, 7), bool)
    free[1:3, :6] = False
    away = decoration.distances(free, np.array([0, 0]))
    found = decoration.wall_distances(away)
    np.testing.assert_array_equal(found[1, :6], [1, 2, 3, 4, 5, 6])
    np.testing.assert_array_equal(found[2, :6], [2, 3, 4, 5, 6, 7])


def test_the_shares_of_moss_and_lava_are_as_asked_for():
    walls = np.zeros((9, 9), bool)
    walls[:, 4] = True
    walls[4, 4] = False
    for seed in range(20):
        some = decorate(
            np.random.default_rng(seed), walls, Share(0.5, 0.5), Share(0.25, 0.25)
        ).tiles
        assert (some == LAVA).sum() == 2  # of eight candidates
        assert (some == MOSS).sum() in (35, 36)  # of 72; the start may have replaced one


def test_the_temperature_evens_out():
    def mean_rank(temperature):
        cells = np.stack([np.arange(60)] * 2, 1)
        share = Share(0.2, 0.2, temperature)
        drawn = [decoration._draw(np.random.default_rng(i), cells, share) for i in range(200)]
        return np.concatenate(drawn)[:, 0].mean()

    # A uniform draw has mean 29.5.
    assert mean_rank(1.0) < mean_rank(2.0) - 2 and mean_rank(1e6) > 28


# Shipped level files.


@pytest.fixture(scope="module")
def shipped():
    found = {}
    for name in SIZES:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
            found[name] = dict(file)
    return found


def words(arrays):
    columns = (arrays["tiles"], arrays["start"], arrays["goal"])
    return [b"".join(x[i].tobytes() for x in columns) for i in range(len(arrays["tiles"]))]


def test_the_sets_are_as_large_as_they_say_and_share_no_level(shipped):
    for name, arrays in shipped.items():
        assert len(arrays["tiles"]) >= 0.99 * SIZES[name]
        assert arrays["tiles"].dtype == np.uint8
        assert set(arrays["split"]) == {"train" if name == "train" else "test"}
    every = [word for arrays in shipped.values() for word in words(arrays)]
    assert len(set(every)) == len(every)
    training, tested = (set(shipped[name]["structure"]) for name in ("train", "test"))
    assert training == tested == {"boulders", "partitions", "winding", "offices"}
    assert len(set(shipped["unseen"]["structure"])) == 14
    assert training.isdisjoint(shipped["unseen"]["structure"])
    assert len(set(shipped["large"]["structure"])) == 18


@pytest.mark.thorough
def test_every_level_is_one_part_with_the_start_half_way(shipped):
    for name, arrays in shipped.items():
        every = 8 if name == "test" else 1  # 2,048 levels, generated like the training set
        for i in range(0, len(arrays["tiles"]), every):
            tiles, start, goal = (arrays[key][i] for key in ("tiles", "start", "goal"))
            free = np.isin(tiles, (EMPTY, MOSS))
            away = decoration.distances(free, goal[::-1].astype(int))
            assert ((away >= 0) == free).all()
            assert away[start[1], start[0]] == int(np.median(away[free]))


EXPECTED = {
    # Free cells, moss, lava, mean distance, mean distance of moss, largest distance. The numbers
    # are from the specification, for ten levels each of other drawings of the same kinds.
    "boulders": (123, 24, 7.5, 8.2, 5.4, 16.6),
    "partitions": (97, 15, 11.5, 9.7, 6.3, 18.9),
    "winding": (58, 10, 17, 10.6, 7.2, 20.7),
    "offices": (80, 12, 12, 8.1, 4.7, 16.9),
}


@pytest.mark.thorough
def test_the_training_set_is_like_what_was_measured_elsewhere(shipped):
    arrays, everywhere = shipped["train"], []
    for structure, expected in EXPECTED.items():
        rows = np.flatnonzero(arrays["structure"] == structure)
        found = []
        for i in rows:
            tiles, goal = arrays["tiles"][i], arrays["goal"][i]
            away = decoration.distances(np.isin(tiles, (EMPTY, MOSS)), goal[::-1].astype(int))
            behind = decoration.wall_distances(away)
            free, moss, lava = away >= 0, tiles == MOSS, tiles == LAVA
            found.append(
                [
                    free.sum(),
                    moss.sum(),
                    lava.sum(),
                    away[free].mean(),
                    away[moss].mean(),
                    away.max(),
                ]
            )
            wall = (tiles == WALL) & (behind >= 0) | lava
            everywhere.append([behind[wall].mean(), behind[lava].mean()])
        mean = np.nanmean(found, axis=0)
        np.testing.assert_allclose(mean[[0, 3, 4, 5]], np.array(expected)[[0, 3, 4, 5]], rtol=0.2)
        # Expected from ten levels only.
        np.testing.assert_allclose(mean[[1, 2]], expected[1:3], rtol=0.3)
    wall, lava = np.nanmean(everywhere, axis=0)
    assert lava > wall + 1  # lava is farther away than candidate walls on average


def test_the_script_makes_the_same_sets_again(tmp_path, capsys):
    spec = spec_from_file_location("make_cave_levels", ROOT / "scripts" / "make_cave_levels.py")
    assert spec is not None and spec.loader is not None
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    part = script.Part("unseen", "knots", 2)
    first, again = tmp_path / "first", tmp_path / "again"
    for folder in (first, again):
        folder.mkdir()
        script._make(folder, script.DRAWINGS, 3, part)
    paths = [script._file(folder, 3, part) for folder in (first, again)]
    loaded = [dict(np.load(path)) for path in paths]
    for name in loaded[0]:
        np.testing.assert_array_equal(*(arrays[name] for arrays in loaded))
    known = script._put_together(tmp_path / "set.npz", [paths[0], paths[1]], "test", set())
    assert len(known) == 2  # the second file adds no new level
    assert "2 levels, 2 left out" in capsys.readouterr().out
    assert script._put_together(tmp_path / "other.npz", [paths[0]], "test", known) == set()
