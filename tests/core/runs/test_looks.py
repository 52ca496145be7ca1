"""Looks at sealed levels are counted in the run's folder."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rlgen.runs.looks import FILE, look, looks


def test_looks_are_counted_by_suite_and_version(tmp_path):
    assert looks(tmp_path) == []
    assert [look(tmp_path, "maze/heldout", "1", "test", update=7) for _ in range(3)] == [1, 2, 3]
    assert look(tmp_path, "maze/heldout", "2", "test") == 1
    assert look(tmp_path, "maze/perfect-13", "1", "ood-size") == 1
    assert [one["suite"] for one in looks(tmp_path)] == ["maze/heldout"] * 4 + ["maze/perfect-13"]
    assert looks(tmp_path)[0]["update"] == 7


@pytest.mark.parametrize("split", ["train", "validation"])
def test_splits_to_choose_by_are_not_sealed(tmp_path, split):
    assert look(tmp_path, "maze/validation", "1", split) == 0
    assert not (tmp_path / FILE).exists()


def test_looks_at_once_do_not_mix(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: look(tmp_path, "a", "1", "test", note="x" * 500, i=i), range(64)))
    assert sorted(one["i"] for one in looks(tmp_path)) == list(range(64))


def test_a_damaged_count_is_refused_by_line(tmp_path):
    look(tmp_path, "a", "1", "test")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"suite": "a"\n')
    with pytest.raises(ValueError, match=r"looks\.jsonl, line 2, is damaged"):
        look(tmp_path, "a", "1", "test")
