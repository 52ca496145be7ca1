"""Evaluations on sealed levels (looks) are counted in the run's folder."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlgen.runs.test_set_access import FILE, accesses, count_access


def test_looks_are_counted_by_suite_and_version(tmp_path):
    assert accesses(tmp_path) == []
    assert [count_access(tmp_path, "maze/heldout", "1", "test", update=7) for _ in range(3)] == [
        1,
        2,
        3,
    ]
    assert count_access(tmp_path, "maze/heldout", "2", "test") == 1
    assert count_access(tmp_path, "maze/perfect-13", "1", "ood-size") == 1
    assert [one["suite"] for one in accesses(tmp_path)] == ["maze/heldout"] * 4 + [
        "maze/perfect-13"
    ]
    assert accesses(tmp_path)[0]["update"] == 7


@pytest.mark.parametrize("split", ["train", "validation"])
def test_splits_to_choose_by_are_not_sealed(tmp_path, split):
    assert count_access(tmp_path, "maze/validation", "1", split) == 0
    assert not (tmp_path / FILE).exists()


def test_looks_at_once_do_not_mix(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: count_access(tmp_path, "a", "1", "test", note="x" * 500, i=i), range(64)
            )
        )
    assert sorted(one["i"] for one in accesses(tmp_path)) == list(range(64))


def test_a_line_that_is_being_written_is_waited_for(tmp_path):
    count_access(tmp_path, "a", "1", "test")
    line = (tmp_path / FILE).read_text()
    with (tmp_path / FILE).open("a") as file:
        file.write(line[:20])
        file.flush()
        rest = threading.Timer(0.2, lambda: (file.write(line[20:]), file.flush()))
        rest.start()
        assert len(accesses(tmp_path)) == 2
        rest.join()


def test_a_damaged_count_is_refused_by_line(tmp_path):
    count_access(tmp_path, "a", "1", "test")
    with (tmp_path / FILE).open("a") as file:
        file.write('{"suite": "a"\n')
    with pytest.raises(ValueError, match=r"looks\.jsonl, line 2, is damaged"):
        count_access(tmp_path, "a", "1", "test")
