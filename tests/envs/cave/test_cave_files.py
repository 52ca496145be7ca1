"""Cave files: round trips, rejected files, and the suites that ship."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.cave import LAVA, MOSS, WALL, Cave, save_plain, size_of, suites, to_grid
from rlgen.evaluation.suites import levels_from_file, load_suite
from rlgen.levels import disjoint, make_level_set, save_levels

KEY = jax.random.key(0)


def env():
    return Cave(5, 5, 8, max_steps=30)


def arrays(num=4):
    """Arrays of a plain file: rooms with one wall, one lava and one moss cell."""
    tiles = np.zeros((num, 5, 5), np.uint8)
    tiles[:, 0, 0], tiles[:, 1, 1], tiles[:, 2, 2] = WALL, LAVA, MOSS
    cells = np.stack([np.arange(num) % 5, np.full(num, 4)], 1)
    return {"tiles": tiles, "start": cells, "goal": np.tile([4, 0], (num, 1))}


def saved(path, **changes):
    """Save a plain file with changed arrays; None omits an array."""
    data = {name: x for name, x in (arrays() | changes).items() if x is not None}
    np.savez_compressed(path, **data)
    return path


def same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.thorough
def test_plain_files_say_what_was_saved(tmp_path):
    path = tmp_path / "four.npz"
    levels = jax.jit(jax.vmap(env().sample_level))(jax.random.split(KEY, 4))
    save_plain(path, levels, ["maze", "maze", "rooms", "maze"], "train")
    found = env().load_levels(path)
    same(found.level, levels)
    assert found.names == ("maze-0000", "maze-0001", "rooms-0002", "maze-0003")
    assert (found.split, len(found)) == ("train", 4)
    solution = jax.vmap(env().solve)(levels)
    np.testing.assert_array_equal(found.optimal_steps, solution.steps)
    save_plain(path, levels, names=list("abcd"))
    again = levels_from_file(env(), path).levels
    assert (again.names, again.split) == (tuple("abcd"), "test")
    np.testing.assert_array_equal(again.hash, found.hash)


def test_plain_files_need_no_names_and_moss_under_a_place_is_no_fault(tmp_path):
    tiles = arrays()["tiles"]
    tiles[0, 4, 0] = MOSS  # the start cell of the first level
    found = env().load_levels(saved(tmp_path / "rooms.npz", tiles=tiles.astype(np.int64)))
    assert found.names == ("rooms-0000", "rooms-0001", "rooms-0002", "rooms-0003")
    grid = to_grid(jax.tree.map(lambda x: x[0], found.level))
    np.testing.assert_array_equal(grid.tiles, arrays()["tiles"][0])
    assert (np.asarray(found.level.max_steps_in_episode) == 30).all()


def changed(name, row, value):
    data = arrays()[name].copy()
    data[row] = value
    return {name: data}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"goal": None}, r"lacks the array goal; it has tiles, start$"),
        ({name: x[:0] for name, x in arrays().items()}, "contains no levels$"),
        (
            {"tiles": np.zeros((4, 7, 6), np.uint8)},
            "have 7 x 6 cells .* 5 x 5; set height=7 and wid",
        ),
        ({"tiles": np.zeros((4, 25), np.uint8)}, r"tiles should have shape \[n, H, W\], found"),
        ({"tiles": np.zeros((4, 5, 5))}, "tiles should be integers, found float64$"),
        ({"tiles": np.array([np.zeros((5, 5)), 0], object)}, "tiles holds Python objects"),
        (
            {"start": np.zeros((3, 2), int)},
            r"start should have shape \[4, 2\], one row per level, f",
        ),
        ({"names": np.array(["a"])}, r"names should have shape \[4\]"),
        ({"split": np.array(["train", "test"] * 2)}, "mixes the splits test, train; keep each"),
        (changed("tiles", 2, 7), "level 2: tile 7 is none of 0 empty, 1 wall, 2 lava, 3 moss$"),
        (changed("start", 1, [5, 0]), r"level 1: the start is at \(5, 0\), outside the 5 x 5 cave"),
        (changed("goal", 3, [0, -1]), r"level 3: the goal is at \(0, -1\), outside"),
        (changed("start", 2, [0, 0]), r"level 2: the start is on wall, at \(0, 0\)"),
        (changed("goal", 0, [1, 1]), r"level 0: the goal is on lava, at \(1, 1\)"),
        (changed("goal", 2, [2, 4]), r"level 2: start and goal are on the same cell, \(2, 4\)"),
    ],
)
def test_faulty_plain_files_are_refused_by_name(tmp_path, changes, said):
    path = saved(tmp_path / "levels.npz", **changes)
    with pytest.raises(ValueError, match=said) as refusal:
        env().load_levels(path)
    assert str(path) in str(refusal.value)


def test_what_is_no_whole_npz_is_refused(tmp_path):
    path = tmp_path / "levels.npz"
    with pytest.raises(ValueError, match=r"there is no file .*levels\.npz"):
        env().load_levels(path)
    whole = saved(path).read_bytes()
    for content in (whole[:-40], whole[:100], b"", b"no levels", whole[:80] + b"?" + whole[81:]):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"levels\.npz is (not an \.npz file, or it is )?damaged"
        ):
            env().load_levels(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match="is a single array"):
        env().load_levels(path)


@pytest.mark.thorough
def test_files_of_rlgen_come_back_unchanged_and_faulty_ones_are_refused(tmp_path):
    path = tmp_path / "levels.npz"
    levels = jax.jit(jax.vmap(env().sample_level))(jax.random.split(KEY, 3))
    levels = replace(levels, direction=jnp.array([-1, 2, 0]))
    whole = make_level_set(env(), levels)
    save_levels(path, whole)
    same(env().load_levels(path), whole)
    with pytest.raises(ValueError, match="should have shape"):
        Cave().load_levels(path)
    # Different size, but arrays of the same shapes.
    with pytest.raises(ValueError, match=r"levels\.npz"):
        Cave(4, 6, 8).load_levels(path)
    limit, marked = levels.max_steps_in_episode, levels.marked
    for fault, said in (
        ({"goal": levels.start}, "level 0: start and goal are on the same cell"),
        ({"direction": levels.direction.at[1].set(4)}, "level 1: direction 4 is none of"),
        ({"max_steps_in_episode": limit.at[2].set(0)}, "level 2: its time limit is 0"),
        ({"marked": marked.at[1, 20].set(~marked[1, 20])}, "level 1: its bit masks disagree"),
    ):
        save_levels(path, replace(whole, level=replace(levels, **fault)))
        with pytest.raises(ValueError, match=f"levels.npz: {said}"):
            env().load_levels(path)


def test_a_suite_is_its_file_in_an_environment_of_its_size(tmp_path):
    saved(tmp_path / "large.npz", split=np.array(["test"] * 4), structure=np.array(list("abab")))
    trained = Cave(num_objects=30, observation="image")
    name, played, levels = suites.suite(trained, "large", tmp_path)
    assert name == "cave/large"
    assert played == Cave(5, 5, 23, max_steps=2250, observation="image")
    assert (levels.names, levels.split) == (("a-0000", "b-0001", "a-0002", "b-0003"), "test")
    assert (np.asarray(levels.level.max_steps_in_episode) == 2250).all()
    assert (np.asarray(levels.optimal_steps) > 0).all()
    with pytest.raises(ValueError, match=r"there is no file .*lava\.npz"):
        suites.suite(trained, "lava", tmp_path)


SHIPPED = {"train": 512, "test": 2048, "unseen": 112, "few-cues": 112, "lava": 112, "large": 108}


@pytest.mark.thorough
def test_suites_that_ship_are_solvable_and_apart_from_the_training_set():
    suites = {name: load_suite(Cave(), f"cave/{name}") for name in Cave().suites()}
    assert {name: len(suite.levels) for name, suite in suites.items()} == SHIPPED
    for name, suite in suites.items():
        levels, size = suite.levels, 43 if name == "large" else 13
        assert size_of(levels.level) == size_of(suite.env.sample_level(KEY)) == (size, size)
        assert (levels.split == "train") == (name == "train")
        assert (np.asarray(levels.optimal_steps) > 0).all()
        assert (np.asarray(levels.optimal_return) > 0).all()
        assert len(np.unique(levels.hash, axis=0)) == len(levels) == len(set(levels.names))
        assert name == "train" or disjoint(suites["train"].levels.hash, levels.hash)
