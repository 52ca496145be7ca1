"""Uses of a curriculum log: facts of levels, rank correlations, figures, the report."""

import io
import shutil
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rlgen.cli import main
from rlgen.evaluation.from_runs.curricula import find_examples
from rlgen.evaluation.generalisation import level_facts, score_calibration
from rlgen.evaluation.report.calibration_figure import calibration_figure
from rlgen.evaluation.report.curriculum_figure import history, in_pieces, quartiles
from rlgen.evaluation.report.curriculum_section import CurriculumSummary, curricula_section
from rlgen.evaluation.report.figures import THEMES, png_bytes
from rlgen.evaluation.report.html import Page, render
from rlgen.runs.curriculum_log import LevelLog
from rlgen.types import EpisodeStats, Solution
from tests.standins.stubs import Unplayed

UPDATES, SEEDS, KEPT = 40, 2, 3
SHAPE = (UPDATES, SEEDS, KEPT)


@dataclass(frozen=True)
class Numbers(Unplayed, abstract=True):
    """Family whose levels are numbers x with optimal return 2x; from 0.9 on unsolvable."""

    def level_features(self, level):
        hard = level >= 0.9
        return {"num_walls": jnp.where(hard, -1, jnp.int32(100 * level)), "hard": hard}

    def level_image(self, level):
        return np.full((4, 6, 3), int(255 * level), np.uint8)


@dataclass(frozen=True)
class Solved(Numbers):
    def solve(self, level):
        good = level < 0.9
        return Solution(good, jnp.where(good, 3, -1), jnp.where(good, 2.0 * level, 0.0))


def made_up(seed: int = 0, **changes: Any) -> LevelLog:
    """Return a log that trains in every other update; a level's score is its number."""
    rng = np.random.default_rng(seed)
    level = rng.random(SHAPE, np.float32)
    weight = np.zeros(SHAPE)
    weight[::2] = 1.0
    zeros = np.zeros(SHAPE)
    solved = rng.integers(0, 5, SHAPE)
    episodes = EpisodeStats._make((np.full(SHAPE, 4), solved, zeros, zeros, zeros))
    log = LevelLog(
        update=np.arange(1, UPDATES + 1),
        env_steps=np.arange(1, UPDATES + 1) * 100.0,
        share=np.tile([0.5, 0.5, 0.0], (UPDATES, 1)),
        slot=np.arange(KEPT),
        level=level,
        score=level.copy(),
        origin=(weight > 0).astype(int),
        weight=weight,
        row=np.full(SHAPE, -1),
        lineage={"age": np.ones(SHAPE, int), "depth": np.zeros(SHAPE, int)},
        episodes=episodes,
    )
    return log._replace(**changes)


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes if axes.get_title(loc="left")]


def test_rank_correlations_equal_a_case_worked_by_hand():
    """ρ = 1 - 6 Σ d² / n (n² - 1) without ties: d² = 1 + 1 + 0 + 1 + 1, n = 5."""
    x, y = np.array([10.0, 20.0, 30.0, 40.0, 50.0]), np.array([2.0, 1.0, 3.0, 5.0, 4.0])
    assert score_calibration.rank_correlation(x, y) == pytest.approx(1 - 6 * 4 / (5 * 24))
    assert score_calibration.rank_correlation(x, -(x**3)) == pytest.approx(-1)
    tied = np.array([1.0, 1.0, 2.0, 2.0, 3.0])  # ranks 1.5 1.5 3.5 3.5 5: r = 9 / √(10 · 9)
    assert score_calibration.rank_correlation(x, tied) == pytest.approx(9 / np.sqrt(90))
    assert np.isnan(score_calibration.rank_correlation(x, np.ones(5)))
    assert np.isnan(score_calibration.rank_correlation(x[:4], y[:4]))  # too few levels


def test_scores_that_are_true_regret_are_calibrated_in_every_tenth():
    env, log = Solved(), made_up()
    facts = level_facts.find_facts(env, log)
    optimal = np.where(log.level < 0.9, 2 * log.level, 0.0)
    np.testing.assert_allclose(facts.optimal_return, optimal.ravel(), rtol=1e-6)
    played = log.episodes._replace(mean_return=0.3 * optimal)
    found = score_calibration.calibrate(log._replace(episodes=played, score=optimal), facts)
    regret, learnability = found.measures
    assert regret.overall == pytest.approx(1)
    np.testing.assert_allclose(regret.tenths, 1)
    np.testing.assert_allclose(regret.value, 0.7 * optimal.ravel(), rtol=1e-6)
    share = log.episodes.num_success.ravel() / 4
    np.testing.assert_allclose(learnability.value, share * (1 - share))
    assert (found.num_levels, found.num_used, found.missing) == (240, 240, "")
    np.testing.assert_array_equal(found.ends, np.arange(4, 41, 4) * 100.0)


def test_each_tenth_has_its_own_correlation():
    log = made_up()
    sign = np.where(np.arange(UPDATES) < 20, 1.0, -1.0)[:, None, None]
    log = log._replace(score=sign * log.level)
    log = log._replace(episodes=log.episodes._replace(mean_return=-log.level * 1.0))
    facts = level_facts.find_facts(Solved(), log)._replace(optimal_return=np.zeros(240))
    regret = score_calibration.calibrate(log, facts).measures[0]
    np.testing.assert_allclose(regret.tenths, [1] * 5 + [-1] * 5)


def test_levels_without_a_score_or_a_completed_episode_are_left_out_and_counted():
    log = made_up()
    num, score = log.episodes.num.copy(), log.score.copy()
    num[:10] = 0
    score[10:15] = -np.inf
    log = log._replace(score=score, episodes=log.episodes._replace(num=num))
    found = score_calibration.calibrate(log, level_facts.find_facts(Solved(), log))
    assert found.num_used == 25 * SEEDS * KEPT == len(found.measures[0].score)
    assert np.isnan(found.measures[0].tenths[:2]).all()
    assert "computed on 150 levels. 90 further levels" in score_calibration.words(found)
    assert "same rollouts" in score_calibration.words(found)


def test_without_solver_or_episodes_it_says_what_is_missing():
    log = made_up()
    facts = level_facts.find_facts(Numbers(), log)
    found = score_calibration.calibrate(log, facts)
    assert facts.optimal_return == ()
    assert [m.name.split()[0] for m in found.measures] == ["learnability"]
    assert (
        "There is no true regret, since the environment has no solver"
        in score_calibration.words(found)
    )
    found = score_calibration.calibrate(log._replace(episodes=()), facts)
    assert "student does not report its episodes" in score_calibration.words(found)
    with pytest.raises(ValueError, match="does not report its episodes"):
        calibration_figure(found)


def test_facts_are_of_the_levels_that_they_stand_beside(monkeypatch):
    """The sample covers all updates, and its size is no multiple of the batch size, 7."""
    monkeypatch.setattr(level_facts, "BATCH", 7)
    log = made_up()
    facts = level_facts.find_facts(Solved(), log, limit=60)
    flat = np.ravel_multi_index(facts.place, SHAPE)
    np.testing.assert_array_equal(flat // 4, np.arange(60))
    assert len(np.unique(facts.place[2])) == KEPT
    level = facts.of(log.level)
    hard = level >= 0.9
    np.testing.assert_array_equal(facts.features["hard"], hard)
    np.testing.assert_array_equal(facts.features["solvable"], ~hard)
    walls = np.where(hard, np.nan, (100 * level).astype(np.int32))  # -1 means missing
    np.testing.assert_array_equal(facts.features["num_walls"], walls)


def test_quartiles_are_of_each_piece_and_skip_what_is_no_number():
    values = np.array([1.0, 2.0, 3.0, -np.inf, 10.0, np.nan])
    found = quartiles(values, np.array([0, 0, 0, 0, 1, 2]), 3)
    np.testing.assert_allclose(found[:2], [[1.5, 2.0, 2.5], [10.0] * 3])
    assert np.isnan(found[2]).all()


def test_updates_are_the_abscissa_where_steps_are_unknown():
    assert in_pieces(made_up()).unit.startswith("env steps")
    pieces = in_pieces(made_up(env_steps=np.full(UPDATES, np.nan)), 4)
    assert pieces.unit == "updates"
    np.testing.assert_allclose(pieces.x, [5.5, 15.5, 25.5, 35.5])


@pytest.mark.thorough
@pytest.mark.parametrize("theme", list(THEMES))
def test_the_history_shows_what_was_trained_on_beside_what_was_new(theme):
    log = made_up()
    score = np.where(log.weight > 0, 5.0, 1.0)
    log = log._replace(score=score)
    facts, examples = level_facts.find_facts(Solved(), log), find_examples(Solved(), log)
    figure = history(log, facts, examples, theme)
    shown = titles(figure)  # no panel of edits, since no level was edited
    assert shown[:3] == ["levels by origin", "score", "age (updates)"]
    assert sorted(shown[3:]) == ["hard", "solvable", "walls"]
    trained, new = figure.axes[1].lines
    np.testing.assert_array_equal(trained.get_ydata(), 5.0)
    np.testing.assert_array_equal(new.get_ydata(), 1.0)
    assert new.get_linestyle() == "--"
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 6 * 3
    image = np.asarray(Image.open(io.BytesIO(png_bytes(figure))).convert("RGB"))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 20


def test_examples_are_levels_that_were_trained_on_ordered_by_score():
    log = made_up()
    log = log._replace(level=np.where(log.weight > 0, log.score / 2, 1.0).astype(np.float32))
    figure = history(log, level_facts.find_facts(Numbers(), log), find_examples(Numbers(), log))
    grey = [np.asarray(axes.images[0].get_array()).flat[0] for axes in figure.axes if axes.images]
    grey = np.array(grey, int).reshape(3, 6)
    assert (grey < 255).all()
    assert (np.diff(grey, axis=0) < 0).all()  # high, middle, low


def test_a_run_of_one_update_and_no_abilities_is_drawn():
    cut = jax.tree.map(lambda x: x[:1], made_up()._replace(slot=np.arange(1)))
    log = cut._replace(slot=np.arange(KEPT), lineage={})
    env = Unplayed()
    assert find_examples(env, log) is None
    figure = history(log, level_facts.find_facts(env, log))
    assert titles(figure) == ["levels by origin", "score"]
    assert len(png_bytes(figure)) > 1000


def test_the_calibration_figure_names_its_measures():
    log = made_up()
    facts = level_facts.find_facts(Solved(), log)
    figure = calibration_figure(score_calibration.calibrate(log, facts))
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels[0] == "true regret"
    assert labels[2].startswith("learnability")
    assert len(png_bytes(figure)) > 1000


def test_names_in_the_reports_section_cannot_leave_the_text():
    nasty = '<script>alert("1")</script>'
    story = CurriculumSummary({"light": b"a", "dark": b"b"}, nasty)
    section = curricula_section({nasty: story}, [nasty])
    assert section is not None
    text = render(Page(nasty, nasty, nasty, nasty, [section]))
    assert "<script" not in text
    assert text.count("data:image/png;base64,") == 2
    assert curricula_section({}, [nasty]) is None


TINY = "--learner ppo --env.height 5 --env.width 5 --env.num-walls 4 --env.max-steps 20"
TINY += " --num-slots 4 --student.num-steps 32 --student.learner.num-minibatches 1 --chunk 4"
TINY += " --student.learner.bptt-steps 0 --student.learner.network.hidden-size 8"
TINY += " --sampler.capacity 8 --steps 1e3"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny run with a log and one without, trained by the command line."""
    folder = tmp_path_factory.mktemp("runs")
    assert main.main(["train", "plr", *TINY.split(), "--out", str(folder / "logged")]) == 0
    bare = shutil.copytree(folder / "logged", folder / "bare")
    shutil.rmtree(bare / "curriculum")  # like runs of earlier versions
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["history", "calibration"])
def test_levels_draws_a_runs_curriculum(runs, tmp_path, monkeypatch, capsys, what):
    monkeypatch.chdir(tmp_path)
    code = main.main(["levels", "--run", str(runs / "logged"), "--what", what])
    out = capsys.readouterr().out
    assert code == 0
    assert f"{what} of 32 levels in {what}.png" in out
    assert "Spearman" in out
    assert Image.open(tmp_path / f"{what}.png").size[0] > 800


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--run {bare} --what history", "has no curriculum log"),
        ("--what history", "--what history needs a run; name its folder with --run"),
        ("--run {bare} --what story", "buffer, calibration, history"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    runs, tmp_path, monkeypatch, capsys, args, message
):
    monkeypatch.chdir(tmp_path)
    code = main.main(["levels", *args.format(bare=runs / "bare").split()])
    err = capsys.readouterr().err
    assert code == 2
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.thorough
def test_the_report_tells_the_curriculum_of_each_run_that_kept_a_log(runs, tmp_path, capsys):
    args = ["eval", str(runs / "logged"), str(runs / "bare"), "--attempts", "1", "--json", "--out"]
    assert main.main([*args, str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text()
    assert text.count("<h2>Curriculum</h2>") == 1
    assert text.count("Curriculum of logged over time") == 1
    assert "Curriculum of bare" not in text
    assert "Rank correlation (Spearman)" in text
    assert (tmp_path / "curriculum-0.png").is_file()
    assert main.main(["eval", str(runs / "bare"), *args[3:], str(tmp_path), "--overwrite"]) == 0
    assert not (tmp_path / "curriculum-0.png").exists()
    assert "<h2>Curriculum</h2>" not in (tmp_path / "report.html").read_text()
