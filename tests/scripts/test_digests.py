"""Comparisons and renamings of `scripts/digests.py`, on synthetic arrays."""

import importlib.util
import json

import numpy as np
import pytest

from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "digests.py"


@pytest.fixture(scope="module")
def digests():
    spec = importlib.util.spec_from_file_location("digests", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def floats(*values) -> np.ndarray:
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (floats(1, np.nan, -0.0), ""),
        (floats(1, np.nan, 0.0), "x differs in 1 of 3, max abs difference 0"),
        (floats(1.5, np.nan, 0.25), "x differs in 2 of 3, max abs difference 0.5"),
        (floats(1, 2, -0.0), "x differs in 1 of 3, max abs difference nan"),
        (floats(1, np.nan), "x was float32[3], is float32[2]"),
        (np.array([1, np.nan, -0.0]), "x was float32[3], is float64[3]"),
    ],
)
def test_arrays_are_equal_by_their_bits(digests, new, said):
    old = floats(1, np.nan, -0.0)
    assert "\n".join(digests.differences({"x": old}, {"x": new})) == said
    same_digest = digests.digest({"part": {"x": old}}) == digests.digest({"part": {"x": new}})
    assert same_digest == (said == "")


def test_the_last_bit_counts(digests):
    one = floats(1)
    (line,) = digests.differences({"x": one}, {"x": np.nextafter(one, floats(2))})
    assert line == f"x differs in 1 of 1, max abs difference {2.0**-23:.3g}"


def test_other_kinds_of_numbers_are_compared(digests):
    old = {"key": np.array([1, 2**32 - 1], np.uint32), "flag": np.array(True), "none": floats()}
    new = {"key": np.array([1, 0], np.uint32), "flag": np.array(False), "none": floats()}
    assert digests.differences(old, new) == [
        "key differs in 1 of 2, max abs difference 4.29e+09",
        "flag differs in 1 of 1, max abs difference 1",
    ]


def test_texts_are_quoted(digests):
    old, new = ({"level": np.array(["a", name])} for name in "bc")
    assert digests.differences(old, new) == ["level differs in 1 of 2: was 'b', is 'c'"]


def test_missing_names_come_first(digests):
    old, new = {"a": floats(0), "b": floats(1)}, {"a": floats(1), "c": floats(1)}
    lines = digests.differences(old, new)
    assert sorted(lines[:2]) == ["b is missing in the new tree", "c is missing in the old tree"]
    assert lines[2:] == ["a differs in 1 of 1, max abs difference 1"]


def test_the_digest_is_of_names_and_parts_in_any_order(digests):
    a, b = floats(1), floats(2)
    whole = digests.digest({"p": {"a": a, "b": b}, "q": {"c": a}})
    assert whole == digests.digest({"q": {"c": a}, "p": {"b": b, "a": a}})
    assert whole != digests.digest({"p": {"a": b, "b": a}, "q": {"c": a}})
    assert whole != digests.digest({"p": {"a": a}, "q": {"c": a, "b": b}})
    assert len(whole) == 12


@pytest.mark.parametrize(
    ("old", "new", "renamed"),
    [
        ("num_queued", "per_slot", {"num_queued": "per_slot"}),
        ("num_queued", "per_slot", {"per_slot": "num_queued"}),  # the revision is newer
        ("slots.note.depth", "slots.info.depth", {"note": "info"}),
        ("slots.memory", "slots.state", {"slots.memory": "slots.state"}),
        ("buffer.memory", "buffer.memory", {"slots.memory": "slots.state"}),
        ("num_queued_levels", "num_queued_levels", {"num_queued": "per_slot"}),
        ("a.b.c", "x.b.z", {"a": "x", "c": "z"}),
        ("a.x", "c.x", {"a": "b", "b": "c"}),  # renamed twice
    ],
)
def test_old_names_become_those_of_the_new_tree(digests, old, new, renamed):
    assert digests.with_names_of({old: 1}, {new}, renamed) == {new: 1}


def test_equal_names_stay_whatever_the_table_says(digests):
    names = {"slots.row": 1, "slots.index": 2, "row": 3}
    assert digests.with_names_of(names, set(names), {"row": "index"}) == names


def test_a_name_whose_new_spelling_is_taken_stays(digests):
    assert digests.with_names_of({"a": 1, "b": 2}, {"b"}, {"a": "b"}) == {"a": 1, "b": 2}
    both = digests.with_names_of({"a": 1, "b": 2}, {"c"}, {"a": "c", "b": "c"})
    assert both == {"c": 1, "b": 2}


def test_json_becomes_arrays_by_path(digests):
    found = digests.flatten({"a": {"b": [1, None]}, "c": [{"d": "x"}, {"d": "y"}], "e": [[1], []]})
    assert list(found) == ["a.b", "c.0.d", "c.1.d", "e.0", "e.1"]
    np.testing.assert_array_equal(found["a.b"], [1, np.nan])
    assert [found["c.0.d"], found["c.1.d"], found["e.1"].shape] == ["x", "y", (0,)]


def test_columns_leave_wall_clock_time_out(digests):
    lines = [
        {"update": 1, "wall_seconds": 0.1, "clock": 7, "env_steps": {"train": 8}, "loss": [0.1]},
        {"update": 2, "wall_seconds": 0.2, "clock": 8, "env_steps": {"train": 16}, "loss": [None]},
        {"update": 3, "wall_seconds": 0.3, "clock": 9, "env_steps": {"train": 24}},
    ]
    found = digests.columns([json.dumps(line) for line in lines], {"steps_per_second": "clock"})
    assert list(found) == ["update", "env_steps.train", "loss"]
    np.testing.assert_array_equal(found["env_steps.train"], [8, 16, 24])
    np.testing.assert_array_equal(found["loss"], [[0.1], [np.nan], [np.nan]])


@pytest.mark.parametrize("written", ["tenancy", "updates_per_level"])
@pytest.mark.parametrize("known", ["tenancy", "updates-per-level"])
def test_a_tree_is_given_the_options_that_it_lists(digests, monkeypatch, written, known):
    monkeypatch.setitem(digests.RENAMED, "tenancy", "updates_per_level")
    listed = f"│ --env NAME\n│ --num-slots INT\n│ --student.{known} INT"
    monkeypatch.setattr(digests, "_python", lambda tree, *arguments: listed)
    options = ["--env=maze", "--num-slots=8", f"--student.{written}=2"]
    given = digests._spelled("tree", "dr", options)
    assert given == ["--env=maze", "--num-slots=8", f"--student.{known}=2"]
