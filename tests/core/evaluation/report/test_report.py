"""Table, figures and page: readable, self-contained, and safe for any name of a run."""

import io
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.from_runs.metrics import read_metrics
from rlgen.evaluation.report import figures, learning_curves
from rlgen.evaluation.report.curriculum_section import CurriculumSummary
from rlgen.evaluation.report.images import gif_bytes
from rlgen.evaluation.report.report import write_report
from rlgen.evaluation.report.sections import access_counts, suite_data
from rlgen.evaluation.report.terminal import print_table
from rlgen.evaluation.stats.cost import COSTS
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.stats.settings import Intervals
from rlgen.evaluation.stats.summary import summarise

QUICK = Intervals(reps=200)
NASTY = '<script>alert("1")</script>&$x_{$[red]\x1b[31m{0}'
VOID = {"meta", "img", "source", "br", "link", "input"}


def evaluation(run="agent", solve=0.6, seeds=3, levels=3, seed=0, names=()):
    """Return a synthetic evaluation."""
    rng = np.random.default_rng(seed)
    success = rng.random((seeds, levels, 5)) < solve
    length = np.where(success, 20, 50)
    return Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="1",
        level_names=names or tuple(f"level-{i}" for i in range(levels)),
        level_hashes=np.arange(2 * levels, dtype=np.uint32).reshape(levels, 2),
        optimal_steps=np.full(levels, 16),
        optimal_return=np.full(levels, 0.9),
        episode_return=success * 0.8,
        length=length,
        success=success,
        meta={"update": 12, "env_steps": {"training": 4096}},
    )


class Page(HTMLParser):
    """Parser that records the unclosed tags, all attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open += [tag] if tag not in VOID else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and page of a report with all sections."""
    folder = tmp_path_factory.mktemp("report")
    runs = [evaluation("untrained", 0.1), evaluation("accel", 0.9, seed=1)]
    images = {name: np.full((4, 4, 3), 9, np.uint8) for name in runs[0].level_names}
    gifs = {"accel on level-0": gif_bytes(np.zeros((2, 4, 4, 3), np.uint8))}
    lines = [metrics_line(i) for i in range(9)]
    stories = {"accel": CurriculumSummary(missing="curriculum/log.npz is damaged <&>")}
    path = write_report(folder, runs, images, gifs, {"accel": lines}, QUICK, stories)
    return folder, path.read_text()


def metrics_line(i):
    """Return a line of `metrics.jsonl` in which the second seed completed no episode."""
    spent = {"env_steps": 100 * i, "gradient_updates": 4 * i, "wall_seconds": 0.5 * i}
    return {"update": i, "solve_rate": [0.1 * i, None], **spent}


@pytest.mark.thorough
def test_the_page_is_well_formed_and_headline_comes_first(written):
    page = Page(written[1])
    assert page.open == []
    words = [word for word in page.words if word.strip()]
    headline = next(i for i, word in enumerate(words) if "accel reaches a solve rate of" in word)
    assert "95 % interval over seeds" in words[headline]
    assert "points against untrained (" in words[headline]
    assert headline < words.index("All levels")


@pytest.mark.thorough
def test_the_page_holds_table_pictures_gif_curve_and_method(written):
    page = Page(written[1])
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    kinds = [source.split(";")[0] for source in sources]
    normalised_scores = len(list(written[0].glob("normalised-*.png")))
    assert kinds.count("data:image/png") == 5 + normalised_scores + 3  # figures and level images
    assert kinds.count("data:image/gif") == 1
    for said in ("How it was measured", "3 × 3 × 5 episodes", "Welch", "0000000000000001"):  # noqa: RUF001
        assert said in written[1]
    assert page.tags.count("table") >= 4


def test_the_page_loads_nothing_and_runs_nothing(written):
    page = Page(written[1])
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    anchors = {value for _, name, value in page.attributes if name == "id"}
    for tag, name, value in page.attributes:
        assert not name.startswith("on")
        if (tag, name) == ("a", "href"):
            assert value[0] == "#" and value[1:] in anchors
        elif name in ("src", "srcset", "href", "action"):
            assert value.startswith("data:image/")
    assert not re.search(r"https?:|@import|url\(", written[1])
    policy = [value for _, name, value in page.attributes if name == "content"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy


def test_the_page_is_made_for_light_dark_and_phones(written):
    page = Page(written[1])
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    assert ("source", "media", "screen and (prefers-color-scheme: dark)") in page.attributes
    assert "@media screen and (prefers-color-scheme:dark)" in written[1]
    assert "@media print" in written[1]
    assert ("img", "alt", "") not in page.attributes


def test_the_parts_are_listed_at_the_top_and_each_is_there_once(written):
    page = Page(written[1])
    links = [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert links[0] == "#to-in-short"
    assert {"#to-worst-levels", "#to-training", "#to-how-it-was-measured"} <= {*links}
    anchors = [value for _, name, value in page.attributes if name == "id"]
    assert len(set(anchors)) == len(anchors)


def test_training_is_shown_against_steps_updates_and_seconds(written):
    page = Page(written[1])
    alts = [value for _, name, value in page.attributes if name == "alt"]
    for cost in COSTS.values():
        assert f"Learning curves, {cost}" in alts
    assert sum(name == "checked" for _, name, _ in page.attributes) == 1


def test_a_curriculum_that_cannot_be_read_is_named(written):
    assert "could not be drawn: curriculum/log.npz is damaged &lt;&amp;&gt;" in written[1]


def test_looks_are_told_with_the_score(tmp_path):
    runs = [evaluation("a"), evaluation("b", seed=1)]
    runs[0] = replace(runs[0], meta=runs[0].meta | {"look": 3})
    assert access_counts(runs) == ["a: evaluation 3 on this suite"]
    text = write_report(tmp_path, runs, intervals=QUICK).read_text()
    numbers = text[text.index('class="numbers"') : text.index("All levels</h2>")]
    assert numbers.count("evaluation 3 on this suite") == 1
    assert "look:" not in text  # not repeated among the other facts about the run


def test_the_best_of_a_level_is_bold_and_nobody_where_all_tie(tmp_path):
    success = np.zeros((2, 3, 5), bool)
    success[:, 0], success[0, 1] = True, True
    a = replace(evaluation("a", seeds=2), success=success, episode_return=success * 0.8)
    b = replace(a, run="b", success=success & False, episode_return=0.0 * success)
    text = write_report(tmp_path, [a, b], intervals=QUICK).read_text()
    rows = re.findall(r'<th scope="row">level-(\d)</th>(.*?)</tr>', text)[:3]
    bold = {name: [cell.startswith("<b>") for cell in row.split("<td>")[1:3]] for name, row in rows}
    assert bold == {"0": [True, False], "1": [True, False], "2": [False, False]}


def test_worst_levels_are_those_of_the_lowest_mean_then_of_the_longest_optimum(tmp_path):
    success = np.ones((2, 4, 5), bool)
    success[0, 1:3, :2] = False  # two levels tie
    e = evaluation("a", seeds=2, levels=4)
    e = replace(e, success=success, optimal_steps=np.array([9, 5, 7, -1]))
    summary = summarise([e], QUICK)
    (worst,) = suite_data([e], summary, {}, {}).worst
    assert (worst.level, worst.num_ties) == (summary.runs[0].levels[2], 1)
    assert worst.level.score.value == pytest.approx(0.8)  # 8 of 10
    assert (worst.worst_seed, worst.optimal_steps) == (pytest.approx(0.6), 7)
    text = write_report(tmp_path, [e], intervals=QUICK).read_text()
    cells = re.findall(r"<td>(.*?)</td>", text[text.index("of the worst seed") :])
    assert cells[0] == "level-2 and 1 more"
    assert cells[1].startswith("80 %")
    assert cells[2:4] == ["60 %", "7"]


@pytest.mark.thorough
def test_figures_lie_beside_the_page_and_stale_ones_go(tmp_path):
    gif = gif_bytes(np.zeros((1, 2, 2, 3), np.uint8))
    lines = {"agent": [{"update": 1, "solve_rate": 0.5}]}
    write_report(tmp_path, [evaluation()], gifs={"a": gif, "b": gif}, curves=lines, intervals=QUICK)
    (tmp_path / "normalised-of-old.png").write_bytes(b"")
    names = {path.name for path in tmp_path.iterdir() if "normalised" not in path.name}
    pngs = {"intervals.png", "profile.png", "learning.png"}
    assert names == pngs | {"report.html", "episode-0.gif", "episode-1.gif"}
    write_report(tmp_path, [evaluation()], gifs={"a": gif}, intervals=QUICK)
    names = {path.name for path in tmp_path.iterdir()}
    assert "normalised-of-old.png" not in names
    names = {name for name in names if "normalised" not in name}
    assert names == {"intervals.png", "profile.png", "report.html", "episode-0.gif"}


@pytest.mark.thorough
def test_a_strangers_names_cannot_leave_the_text(tmp_path):
    e = replace(
        evaluation(NASTY, names=(NASTY, "b", "c")),
        suite=NASTY,
        suite_version=NASTY,
        meta={NASTY: NASTY, "deep": {NASTY: [NASTY]}},
    )
    images = {NASTY: np.zeros((2, 2, 3), np.uint8)}
    gifs = {f'" onload="x {NASTY}': gif_bytes(np.zeros((1, 2, 2, 3), np.uint8))}
    lines = {NASTY: [{"update": 1, "solve_rate": [0.5]}]}
    runs = [e, replace(e, run=NASTY + "2")]
    text = write_report(tmp_path, runs, images, gifs, lines, QUICK).read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert not any(name == "onload" for _, name, _ in page.attributes)
    assert "\x1b" not in text
    assert any('<script>alert("1")</script>' in word for word in page.words)  # as text


def _printed(runs, width=80):
    out = io.StringIO()
    console = Console(width=width, file=out, force_terminal=True, color_system=None)
    print_table(analyse(runs, QUICK), console)
    return out.getvalue()


@pytest.mark.parametrize("num_runs", [1, 2, 3, 5])
def test_the_table_fits_80_columns_with_nothing_cut(num_runs):
    names = ("StandardMaze", "LabyrinthFlipped", "SixteenRooms2FewerDoors")
    runs = [evaluation(f"a-run-{i}", 0.9, seed=i, names=names) for i in range(num_runs)]
    printed = _printed(runs)
    assert max(len(line) for line in printed.splitlines()) <= 80
    for said in (*(run.run for run in runs), "LabyrinthFlipped", "IQM", "[95 % over seeds]"):
        assert said in printed
    assert printed.count("…") == printed.count("SixteenRooms2FewerDoo…")  # only the long name


def test_the_table_of_one_run_tells_return_optimum_and_steps():
    e = evaluation()
    row = next(line for line in _printed([e]).splitlines() if "level-0" in line)
    rate = float(e.score[1][:, 0].mean())
    assert f"{100 * rate:.0f} % [" in row
    assert f"{0.8 * rate:.3g}" in row
    assert f"{100 * 0.8 * rate / 0.9:.0f} %" in row
    assert "20.0 / 16" in row


def test_the_table_of_two_runs_tells_their_difference():
    runs = [evaluation("a", 0.1), evaluation("b", 0.9, seed=1)]
    printed = _printed(runs)
    gap = summarise(runs, QUICK).comparisons[0]
    assert "difference" in printed
    assert f"{100 * gap.mean.value:+.1f} [{100 * gap.mean.low:+.1f}, " in printed
    assert f"{gap.improvement.value:.2f}" in printed


def test_the_table_says_when_an_interval_is_of_one_agent_only():
    printed = _printed([evaluation(seeds=1)])
    assert "[95 % over one agent's episodes]" in printed
    assert "1 seed: no interval over seeds, only of this agent's episodes" in printed


def test_the_table_of_a_large_suite_shows_the_hardest_and_says_so():
    printed = _printed([evaluation(levels=60)])
    assert sum(row.strip().startswith("level-") for row in printed.splitlines()) == 40
    assert "Only the 40 hardest of 60 levels are shown; results.csv lists all levels." in printed


def test_names_cannot_steer_the_terminal():
    """Rich markup and escape sequences are shown and not interpreted."""
    printed = _printed([evaluation("[red]x\x1b[31m"), evaluation("b")])
    assert "[red]x?[31m" in printed
    assert "\x1b" not in printed


@pytest.mark.parametrize("success", [True, False])
def test_a_family_without_success_is_reported_by_its_return(tmp_path, success):
    """With negative returns and no optimum, no value is shown as a rate."""
    base = replace(
        evaluation(), optimal_return=np.full(3, np.nan), episode_return=-np.ones((3, 3, 5))
    )
    e = base if success else replace(base, success=())
    text = write_report(tmp_path, [e], intervals=QUICK).read_text()
    assert ("reaches a return of -1 on" in text) is not success
    assert (tmp_path / "profile.png").exists() is success
    assert ("solve rate" in _printed([e])) is success


def _drawn(line):
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def test_learning_curves_forgive_missing_and_damaged_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"update": 1, "env_steps": {"train": 10, "scout": 5, "evaluate": 99}, '
        '"episode_return": [null, 1.0]}\n'
        '{"update": 2}\n[1]\n{"env_steps": "x", "episode_return": [1, 2]}\n'
        '{"update": 3, "env_steps": 30, "episode_return": [2.0, 3.0], "solve_rate": 0.5}\n'
        '{"update": 4, "env_st'
    )
    lines = read_metrics(path)
    assert len(lines) == 4
    figure = learning_curves.learning_curves({"run": lines})
    rate, returns = figure.axes
    assert returns.get_xlabel() == "env steps (all but evaluation)"
    np.testing.assert_allclose(_drawn(returns.lines[-1]), [[15, 30], [1.0, 2.5]])
    np.testing.assert_allclose(_drawn(rate.lines[-1]), [[30], [0.5]])


def test_learning_curves_are_drawn_against_each_cost():
    lines = [metrics_line(i) for i in range(1, 5)]
    for cost, spent in {"gradient_updates": 4, "wall_seconds": 0.5, "env_steps": 100}.items():
        figure = learning_curves.learning_curves({"run": lines}, cost=cost)
        x, y = _drawn(figure.axes[0].lines[-1])
        np.testing.assert_allclose(x, spent * np.arange(1, 5))
        np.testing.assert_allclose(y, 0.1 * np.arange(1, 5))  # of the seed that completed episodes
        assert figure.axes[0].get_xlabel() == COSTS[cost]
    with pytest.raises(ValueError, match="unknown cost='price'; choose one of env_steps"):
        learning_curves.learning_curves({"run": lines}, cost="price")
    assert not learning_curves.has_curves(
        {"run": [{"update": 1, "solve_rate": [0.5]}]}, "wall_seconds"
    )


def test_long_learning_curves_are_averaged_not_thinned():
    lines = [{"update": i, "solve_rate": [float(i % 2)]} for i in range(3000)]
    x, y = _drawn(learning_curves.learning_curves({"run": lines}).axes[0].lines[-1])
    assert len(x) == learning_curves.POINTS
    np.testing.assert_allclose(y, 0.5)


def test_a_point_of_the_return_gives_every_episode_the_same_weight():
    """Updates have three episodes of return 1, one episode of return 5, or none."""
    values, numbers = ([1.0], [5.0], [None]), ([3], [1], [0])
    lines = [
        {"update": i, "episode_return": values[i % 3], "num_episodes": numbers[i % 3]}
        for i in range(9 * learning_curves.POINTS)
    ]
    _, y = _drawn(learning_curves.learning_curves({"run": lines}).axes[0].lines[-1])
    assert len(y) == learning_curves.POINTS
    np.testing.assert_allclose(y, (3 * 1 + 5) / 4)


def test_lives_which_end_seldom_are_averaged_over_more_updates():
    lines = [{"update": i, "lifetime_return": [None if i % 10 else 2.0]} for i in range(3000)]
    x, y = _drawn(learning_curves.learning_curves({"run": lines}).axes[0].lines[-1])
    assert len(x) == learning_curves.POINTS_OF_LIVES
    np.testing.assert_allclose(y, 2.0)


def test_no_curve_at_all_is_refused_and_left_out_of_the_report():
    assert not learning_curves.has_curves({"run": [{"update": 1}]})
    with pytest.raises(ValueError, match="solve_rate, episode_return"):
        learning_curves.learning_curves({"run": [{"update": 1}]})


def test_a_run_keeps_its_colour_in_every_figure():
    lines = [{"update": i, "solve_rate": [0.1]} for i in range(3)]
    figure = learning_curves.learning_curves({"b": lines}, labels=("a", "b"))
    assert figure.axes[0].lines[-1].get_color() == figures.THEMES["light"].runs[1]


def test_the_interval_figure_shows_each_value_where_it_is():
    summary = summarise([evaluation("a"), evaluation("b", seed=1)], QUICK)
    figure = figures.intervals(summary)
    bottom = figure.axes[1]
    points = [x[0] for x, _ in map(_drawn, bottom.lines) if len(x) == 1]
    expected = [float(level.score.value) for run in summary.runs for level in run.levels]
    np.testing.assert_allclose(points, expected)
    assert [text.get_text() for text in bottom.get_yticklabels()] == [
        f"level-{i}" for i in range(3)
    ]
    assert bottom.get_xlabel() == "solve rate, with 95 % interval over seeds"


def test_the_same_results_make_the_same_bytes():
    first, second = (figures.png_bytes(figures.profile(summarise([evaluation()]))) for _ in "ab")
    assert first == second


def test_figures_leave_pyplot_alone():
    pyplot = sys.modules.get("matplotlib.pyplot")
    before = pyplot.get_fignums() if pyplot else []
    figures.intervals(summarise([evaluation()], QUICK))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert (pyplot.get_fignums() if pyplot else []) == before
