"""Means of the exploration study where no episode ended."""

import numpy as np
import pytest

from tests.paths import ROOT


@pytest.fixture
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "reproduce")


@pytest.mark.usefixtures("_scripts")
def test_a_bin_without_an_episode_has_no_mean():
    from _exploration_run import _binned  # pyright: ignore[reportMissingImports]

    solved = np.array([[1.0, 0.0, np.nan, np.nan, 0.5]])
    found = _binned(solved, np.array([[3, 1, 0, 0, 2]]), 3)
    np.testing.assert_allclose(found, [[0.75, np.nan, 0.5]])


@pytest.mark.usefixtures("_scripts")
def test_seeds_without_an_episode_are_left_out_of_the_mean():
    from _exploration_figures import interval_of  # pyright: ignore[reportMissingImports]

    scores = np.array([[0.2], [np.nan], [0.4]])
    assert interval_of(scores) == interval_of(scores[[0, 2]])
    assert float(interval_of(scores).value) == pytest.approx(0.3)
    assert np.isnan(interval_of(scores[[1]]).value)
