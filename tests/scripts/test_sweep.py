"""Tiny sweeps by the command line: invalid input, interruption, resumption, tables."""

import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rlgen.evaluation.report import results
from rlgen.runs import checkpoint, folder, program, training
from rlgen.runs.test_set_access import accesses
from tests.algos.recipes.test_reproduce import SMALL
from tests.core.runs.test_runs import same
from tests.paths import ROOT, TESTS

SCRIPTS = ROOT / "scripts"
TRIAL = (  # very fast: 16 env steps per update, 6 updates in chunks of 3
    "standins.trial --env standins.arm --steps 96 --chunk 3 --seeds 2 --log-levels 0 --suite= --out"
)
RATES = "student.learner.rate=0.1,0.2"


@pytest.fixture(scope="module")
def sweep():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        patch.syspath_prepend(TESTS)
        spec = importlib.util.spec_from_file_location("sweep", SCRIPTS / "sweep.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def trial(sweep, out, *more) -> int:
    return sweep.main([*TRIAL.split(), str(out), *more])


def points(out) -> dict[str, dict]:
    return {p["name"]: p for p in json.loads((out / "sweep.json").read_text())["points"]}


def files(out) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def trained(run):
    record = folder.read(run)
    spec, _, curriculum = folder.rebuild(record, allow_imports=True)
    like = program.abstract_states(spec, curriculum)
    return training.restore(run, record, like, record["plan"]["num_updates"])[0]


@pytest.fixture(scope="module")
def whole(sweep, tmp_path_factory):
    """A complete sweep over two learning rates."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    assert trial(sweep, out, "--grid", RATES, "--preset", "strong") == 0
    return out


@pytest.mark.thorough
def test_every_point_is_an_ordinary_run_of_its_values(whole):
    found = {name: folder.read(whole / name) for name in points(whole)}
    assert sorted(found) == ["1-rate-0.1", "2-rate-0.2"]
    values = [
        (r["fields"]["student.learner.rate"], r["env"]["spread"], r["spec"]["seeds"])
        for _, r in sorted(found.items())
    ]
    assert values == [(0.1, 3.0, 2), (0.2, 3.0, 2)]
    assert all(checkpoint.updates(whole / name)[-1] == 6 for name in found)


@pytest.mark.thorough
def test_a_point_is_the_run_that_train_makes_of_the_same_options(whole, tmp_path):
    from rlgen.cli.main import main

    options = TRIAL.replace("--suite= --out", "--preset strong --student.learner.rate 0.2 --out")
    assert main(["train", *options.split(), str(tmp_path / "run")]) == 0
    one = folder.read(tmp_path / "run")
    other = folder.read(whole / "2-rate-0.2")
    assert one == other


def test_what_is_done_is_left_as_it_is_also_in_another_order(sweep, whole, capsys):
    before = files(whole)
    swapped = ("--grid", "student.learner.rate=0.2,0.1", "--preset", "strong")
    assert trial(sweep, whole, *swapped) == 0
    after = files(whole)
    assert {n for n in before if before[n] != after[n]} <= set(sweep.tables.FILES)
    assert set(before) == set(after)
    assert "compiled" not in capsys.readouterr().err


def test_a_changed_sweep_is_refused_by_the_name_of_a_point(sweep, whole, capsys):
    wider = ("--grid", "student.learner.rate=0.1,0.2,0.3", "--preset", "strong")
    assert trial(sweep, whole, *wider) == 2
    said = capsys.readouterr().err
    assert "another sweep with 2 points: it does not have the point 'rate 0.3'. Use" in said
    assert trial(sweep, whole, "--grid", RATES, "--preset", "fast") == 2
    assert "its preset was strong, but is fast now. Use" in capsys.readouterr().err
    assert trial(sweep, whole, "--grid", "sampler.weight=0,1", "--preset", "strong") == 2
    said = capsys.readouterr().err
    assert "its point 1-rate-0.1 is not requested now" in said
    assert ", and it does not have the point 'weight 0'" in said
    assert len(points(whole)) == 2


def test_a_run_folder_of_another_run_is_refused(sweep, whole, tmp_path, capsys):
    shutil.copytree(whole / "2-rate-0.2", tmp_path / "sweep" / "1-rate-0.1")
    assert trial(sweep, tmp_path / "sweep", "--grid", RATES) == 2
    assert "1-rate-0.1 is a run with other options" in capsys.readouterr().err


def test_a_damaged_table_is_refused_and_left(sweep, whole, tmp_path, capsys):
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "sweep.json").write_text('{"format": "rlgen-sweep-1", "points": [{}]}')
    assert trial(sweep, out, "--grid", RATES) == 2
    assert "sweep.json is damaged" in capsys.readouterr().err
    assert [p.name for p in out.iterdir()] == ["sweep.json"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "no option varies; give --grid"),
        (["--grid", "student.learner.rate"], "write it as --grid"),
        (["--grid", RATES, "--grid", RATES], "is given twice"),
        (["--grid", "student.learner.rate=0.1,0.1"], "a value occurs twice"),
        (["--grid", "student.learner.rate=0.1,0.10"], "are the same run"),
        (["--grid", RATES, "--student.learner.rate", "1"], "by the options and by --grid"),
        (["--grid", RATES, "--sampler.wait", "1"], "--sampler.wait; did you mean 'sampler.weight'"),
        (["--grid", "student.learner.width=4,x"], "point 2 (width x): student.learner.width must"),
        (["--grid", "preset=fast,strog"], "point 2 (preset strog): unknown preset 'strog'"),
        (["--grid", RATES, "--seeds"], "--seeds has no value"),
        (["--grid", RATES, "and"], "unexpected argument 'and'"),
        (["--grid", "out=a,b"], "unknown option --out"),
        (["--grid", RATES, "--list", "nowhere.json"], "--list nowhere.json cannot be read"),
        (["--grid", RATES, "--attempts", "0"], "--attempts must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(sweep, tmp_path, capsys, more, said):
    assert trial(sweep, tmp_path / "sweep", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


def test_a_list_has_points_of_different_options(sweep, tmp_path):
    from _sweep_points import make_points, read_list  # pyright: ignore[reportMissingImports]

    listed = tmp_path / "points.json"
    listed.write_text('[{"sampler.weight": 0.5}, {"num-slots": 8, "preset": "strong"}]')
    common = {"recipe": "standins.trial", "env": "standins.arm", "steps": "1e3"}
    one, two = make_points(common, read_list(listed))
    assert (one.curriculum.sampler.weight, one.env.spread, one.spec.steps) == (0.5, 2.0, 1000)
    assert (two.curriculum.sampler.weight, two.env.spread, two.curriculum.num_slots) == (1.0, 3, 8)
    assert (one.name, two.name) == ("1-weight-0.5", "2-num-slots-8_preset-strong")
    listed.write_text('[{"sampler.weight": 0.5}, 3]')
    with pytest.raises(ValueError, match="entry 2 is 3"):
        read_list(listed)


@pytest.mark.thorough
def test_a_point_that_fails_is_named_and_stops_no_other(sweep, tmp_path, capsys):
    out = tmp_path / "sweep"
    assert trial(sweep, out, "--grid", "student.learner.bad-update=4,-1") == 1
    found = points(out)
    assert found["1-bad-update-4"]["state"] == "failed"
    assert found["2-bad-update--1"]["state"] == "done"
    said = capsys.readouterr().out.replace("\n", " ")
    assert "1-bad-update-4 failed: update 5: loss of seed 0 is not finite." in said
    rows = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["state"] for row in rows] == ["failed", "done"]  # neither point has a solve rate
    assert "- 1-bad-update-4 failed: update 5" in (out / "sweep.md").read_text()
    assert checkpoint.updates(out / "1-bad-update-4")[-1] == 3


@pytest.mark.thorough
def test_what_was_killed_is_gone_on_with_bit_for_bit(sweep, whole, tmp_path):
    """The sweep is killed (kill -9) in the middle of the second point."""
    out = tmp_path / "sweep"
    grid = ["--grid", RATES, "--preset", "strong"]
    killer = (
        "import os, sys; sys.path[:0] = sys.argv[1:3]\n"
        "import sweep\n"
        "from rlgen.runs import checkpoint\n"
        "save, saved = checkpoint.save, []\n"
        "def then_die(folder, *args):\n"
        "    save(folder, *args); saved.append(folder.name)\n"
        "    if len(saved) == 3: os.kill(os.getpid(), 9)\n"  # halfway through the second point
        "checkpoint.save = then_die\n"
        "sys.exit(sweep.main(sys.argv[3:]))"
    )
    command = [sys.executable, "-c", killer, str(SCRIPTS), str(TESTS)]
    died = subprocess.run([*command, *TRIAL.split(), str(out), *grid], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert checkpoint.updates(out / "2-rate-0.2") == [3]
    states = {name: point["state"] for name, point in points(out).items()}
    assert states == {"1-rate-0.1": "done", "2-rate-0.2": "waiting"}
    assert trial(sweep, out, *grid) == 0
    assert {point["state"] for point in points(out).values()} == {"done"}
    for name in points(out):
        same(trained(out / name), trained(whole / name))


@pytest.mark.thorough
def test_a_signal_ends_the_sweep_after_the_chunk(sweep, tmp_path, monkeypatch, capsys):
    save = checkpoint.save

    def then_stop(folder, update, *args):
        save(folder, update, *args)
        if folder.name.startswith("1") and update == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "save", then_stop)
    assert trial(sweep, tmp_path / "sweep", "--grid", RATES) == 143
    found = points(tmp_path / "sweep")
    assert [found[name]["state"] for name in sorted(found)] == ["cut", "waiting"]
    assert "2 of 2 points are not done; the same command resumes" in capsys.readouterr().out
    assert trial(sweep, tmp_path / "sweep", "--grid", RATES) == 0


def test_two_sweeps_do_not_share_a_folder(sweep, whole, capsys):
    with sweep._alone(whole):
        assert trial(sweep, whole, "--grid", RATES, "--preset", "strong") == 2
    assert "another sweep is running" in capsys.readouterr().err


def test_without_ray_there_is_one_clear_line(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert trial(sweep, tmp_path / "sweep", "--ray", "--grid", RATES) == 2
    assert 'pip install "rlgen[ray]"' in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@pytest.mark.thorough
def test_ray_gives_the_same_runs_with_two_workers(whole, tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "sweep"
    command = [*TRIAL.split(), str(out), "--grid", RATES, "--preset", "strong", "--ray"]
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "sweep.py"), *command],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 points, 2 at a time" in done.stderr and "2 of 2" in done.stderr
    for name, point in points(out).items():
        assert point["state"] == "done"
        same(trained(out / name), trained(whole / name))


@pytest.fixture(scope="module")
def scored(sweep, tmp_path_factory):
    """A sweep with one point that plays a suite, using the programs of test_reproduce.py."""
    out = tmp_path_factory.mktemp("scored") / "sweep"
    command = ["dr", "--env", "cart-pole", *SMALL.split(), "--seeds", "2", "--steps", "128"]
    command += ["--grid", "seed=0", "--out", str(out)]
    command += ["--suite", "cart-pole/nominal", "--attempts", "2"]
    assert sweep.main(command) == 0
    return out, command


@pytest.mark.thorough
def test_the_score_is_that_of_the_saved_evaluation(scored, tmp_path):
    out, _ = scored
    (row,) = csv.DictReader((out / "sweep.csv").open())
    assert row["state"] == "done" and row["point"] == "1-seed-0"
    (saved,) = (out / "1-seed-0" / "eval").glob("*/results.json")
    found = json.loads(saved.read_text())["runs"][0]["aggregate"]["mean"]
    told = [float(row[k]) for k in ("mean", "mean_low", "mean_high")]
    assert told == [found["value"], found["low"], found["high"]]
    (evaluation,) = results.load(saved.parent)
    assert evaluation.shape[0] == 2 and evaluation.shape[2] == 2


@pytest.mark.thorough
def test_what_was_played_is_not_played_again(sweep, scored):
    out, command = scored
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/eval/*/episodes.npz")}
    assert sweep.main(command) == 0
    after = {p: p.stat().st_mtime_ns for p in out.glob("*/eval/*/episodes.npz")}
    assert len(before) == 1 and before == after
    assert points(out)["1-seed-0"]["look"] == 1 == len(accesses(out / "1-seed-0"))


@pytest.mark.thorough
def test_a_suite_that_a_point_cannot_play_is_refused(sweep, tmp_path, capsys):
    command = ["dr", "--env", "cart-pole", "--grid", "seed=0,9", "--suite", "maze/heldout"]
    assert sweep.main([*command, "--out", str(tmp_path / "sweep")]) == 2
    message = "belongs to a different family than the environment, cart-pole"
    assert message in capsys.readouterr().err
    command = ["lpg", "--env", "gridworld", "--grid", "seed=0,9", "--suite", "gridworld/unseen"]
    assert sweep.main([*command, "--out", str(tmp_path / "sweep")]) == 2
    assert "lpg learns an update rule" in capsys.readouterr().err


def test_no_number_is_made_of_seeds_without_episodes(sweep):
    from _sweep_run import train_solve_rate  # pyright: ignore[reportMissingImports]

    old = [{"solve_rate": [1.0, 1.0]}] * 18
    assert train_solve_rate([*old, {"solve_rate": [0.5, None]}, {"solve_rate": [0.1, 0.4]}]) == (
        pytest.approx((0.3 + 0.4) / 2)
    )
    assert (
        train_solve_rate([*old, {"solve_rate": [0.5, None]}, {"solve_rate": [0.1, None]}]) is None
    )
    assert train_solve_rate([{"episode_return": [1.0]}]) is None
    # Weighted by episodes: (3 * 1 + 1 * 0) / 4, and the second seed's only update with an episode.
    tail = [
        {"solve_rate": [1.0, None], "num_episodes": [3, 0]},
        {"solve_rate": [0.0, 0.5], "num_episodes": [1, 2]},
    ]
    assert train_solve_rate([*old, *tail], of_episodes=True) == pytest.approx((0.75 + 0.5) / 2)


def test_the_terminal_table_fits_80_columns(sweep):
    console = Console(width=80, record=True, force_terminal=False)
    base = {"error": "", "exit_code": 0, "score": "solve rate", "interval": "95 %", "look": 1}
    base |= {"train_solve_rate": 0.5, "env_steps": 1e7, "seconds": 8000.0, "state": "done"}
    values = {"sampler.priority.temperature": "0.3", "student.learner.learning_rate": "0.0003"}
    scores = (0.25, 0.75, None)
    rows = [
        {"name": f"{i}-x", "values": values, **base, "mean": x, "mean_low": x, "mean_high": x}
        for i, x in enumerate(scores)
    ]
    facts = {"suite": "cart-pole/train-range", "split": "validation"}
    sweep.tables.show_table(Path("runs/sweep"), rows, facts, console)
    lines = console.export_text().splitlines()
    assert lines[-1].startswith("Is the first clearly better? rlgen compare runs/sweep/1-x ")
    assert max(map(len, lines[:-1])) <= 80
    text = "\n".join(lines)
    assert text.index("75.0 % [75.0, 75.0]") < text.index("25.0 % [25.0, 25.0]")
    assert "0.0003" in text and "are meant for model selection" in text and "2:13:20" in text
    sweep.tables.show_table(Path("runs/sweep"), rows, facts | {"split": "test"}, console)
    assert "cart-pole/train-range is a test suite" in console.export_text()


def test_points_are_sorted_by_new_levels_which_all_share(sweep):
    from _sweep_points import make_points  # pyright: ignore[reportMissingImports]
    from _sweep_run import find_suite  # pyright: ignore[reportMissingImports]

    common = {"recipe": "dr", "env": "cart-pole", "learner": "ppo"}
    points = make_points(common, [{"num_slots": "4"}, {"num_slots": "8"}])
    assert sweep._check_suite(points, "validation", 5) == "validation"
    suite = find_suite(points[0].env, "validation", 5)
    assert suite.name == "cart-pole/validation" and len(suite.levels) == 5
    other = make_points(common, [{"env.gravity": "7,30"}, {"num_slots": "8"}])
    with pytest.raises(ValueError, match="and 2-num-slots-8 train on different levels"):
        sweep._check_suite(other, "validation", 5)
