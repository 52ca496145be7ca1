"""Further contents of result files, read back, and errors that name what is missing."""

import json

import numpy as np
import pytest

from rlgen.evaluation.generalisation.gap import Gap, Gaps, LevelInformation
from rlgen.evaluation.report import results
from rlgen.evaluation.stats.cvar import cvar
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.settings import Intervals
from tests.core.evaluation.report.test_results import evaluation


def _interval(i):
    return Interval(np.array(float(i)), np.array(np.nan), np.array(i + 1.0), "student")


def _gap(seeds=2):
    return Gap(*map(_interval, range(3)), per_seed=np.arange(seeds) / 3)


def _same(one, other):
    """Return whether two records are equal, including arrays and NaN."""
    if hasattr(one, "_asdict"):
        return type(one) is type(other) and all(map(_same, one, other))
    if isinstance(one, str | tuple) or isinstance(other, str | tuple):
        return one == other
    return np.array_equal(one, other, equal_nan=True)


def test_gaps_and_worst_levels_are_read_back(tmp_path):
    first = evaluation(meta={"update": 7, "evaluation_seed": 0})
    second = evaluation(seed=9, meta={"update": 7, "evaluation_seed": 1})
    worst = [cvar(first, second, (0.1, 1.0))]
    parts = (np.array([0.1, x]) for x in (0.2, np.nan, 0.3, 0.4))
    nats = LevelInformation(*parts, most=1.5)
    gaps = [
        Gaps("agent", 9, 9, 3, 3, _gap(), _gap(), nats, np.array([0.5, -0.5])),
        Gaps("other", 9, 9, 2, 3, _gap(), (), (), ()),
    ]
    results.save(tmp_path, [first], intervals=Intervals(reps=50), gaps=gaps, worst=worst)
    found = results.read(tmp_path)
    assert all(map(_same, found.gaps, gaps))
    assert all(map(_same, found.worst, worst))
    assert not _same(found.gaps[0], gaps[1])
    assert results.load(tmp_path)[0].run == found.evaluations[0].run == "agent"
    assert (results.read(tmp_path).gaps != (), len(found.worst)) == (True, 1)


def remove_digest(folder):
    """Make the results look like those of version 0.1, whose episodes have no digest."""
    path = folder / "results.json"
    content = json.loads(path.read_text())
    del content["digest"]
    path.write_text(json.dumps(content))


def test_classes_and_standing_are_in_the_json(tmp_path):
    results.save(tmp_path, [evaluation("a"), evaluation("b", 0.2)], intervals=Intervals(reps=50))
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["normalised_scores"]["without_span"] == ["Walled"]
    assert np.shape(content["normalised_scores"]["runs"][0]["percentile"]["value"]) == (11,)
    assert content["normalised_scores"]["dominance"][0]["run"] == "a"
    assert "classes" not in content  # two levels with a solution form a single class
    assert results.read(tmp_path).gaps == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x: x.__setitem__((1, 2, 0), np.nan),
            "run 'agent': .* is missing for 'seed 1 on Walled'",
        ),
        (lambda x: x[:2], "has 2 seeds, 3 levels and 8 attempts, but results.json has 3 seeds"),
        (
            lambda x: x[:, 1:],
            "has 3 seeds, 2 levels and 8 attempts, but results.json has 3 seeds",
        ),
    ],
)
def test_missing_seeds_and_levels_of_saved_results_are_named(tmp_path, change, message):
    results.save(tmp_path, [evaluation()])
    path = tmp_path / "episodes.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    x = arrays["0/episode_return"]
    arrays["0/episode_return"] = x if (cut := change(x)) is None else cut
    np.savez(path, allow_pickle=False, **arrays)
    remove_digest(tmp_path)
    with pytest.raises(ValueError, match=message):
        results.load(tmp_path)


def test_saved_solve_rates_without_their_episodes_do_not_become_returns(tmp_path):
    results.save(tmp_path, [evaluation()])
    path = tmp_path / "episodes.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if "success" not in name}
    np.savez(path, allow_pickle=False, **arrays)
    remove_digest(tmp_path)
    with pytest.raises(ValueError, match="run 'agent': success is missing"):
        results.load(tmp_path)
