"""`rlgen eval` and `rlgen compare` on real runs: looks are counted, bad runs rejected unplayed."""

import json
import shutil
from pathlib import Path

import pytest

from rlgen.cli import main
from rlgen.envs.classic_control import cart_pole
from rlgen.evaluation import load_runs, zero_shot
from rlgen.evaluation.from_runs import saved_results, showcase
from rlgen.evaluation.report import figures, results
from rlgen.evaluation.suites import load_suite
from rlgen.levels import take
from rlgen.runs import folder
from rlgen.runs.test_set_access import accesses
from tests.standins.command_line import rlgen

TINY = ["--learner", "ppo", "--num-slots", "4", "--student.num-steps", "8", "--steps", "32"]
TINY += ["--env.height", "5", "--env.width", "5", "--env.num-walls", "4", "--env.max-steps", "20"]
TINY += ["--student.learner.num-minibatches", "1", "--student.learner.num-epochs", "1"]
TINY += ["--student.learner.bptt-steps", "0", "--student.learner.network.hidden-size", "8"]
PLAY = ["--suite", "maze/heldout", "--attempts", "1"]
NAME = "maze-heldout-1-attempts-seed-0-update-1"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of seed 0, and a copy of it recorded as seed 1."""
    folder_of_runs = tmp_path_factory.mktemp("runs")
    one, other = folder_of_runs / "a", folder_of_runs / "b"
    assert main.main(["train", "dr", *TINY, "--out", str(one)]) == 0
    shutil.copytree(one, other)
    record = folder.read(other)
    record["spec"]["seed"] = 1
    (other / "config.json").write_text(json.dumps(record))
    (meta,) = other.glob("checkpoints/*/meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"run": folder.fingerprint(record)}))
    return folder_of_runs


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    """A copy of the runs in the current folder that tests may damage; figures are stubbed out."""
    shutil.copytree(trained, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(showcase, "replays", lambda *args: {})
    monkeypatch.setattr(figures, "png_bytes", lambda figure: b"figure")
    return Path("runs")


@pytest.fixture
def unplayed(monkeypatch):
    """Fail if an episode is played."""

    def refuse(*args, **more):
        pytest.fail("episodes were played before all checks")

    monkeypatch.setattr(zero_shot, "evaluate", refuse)
    return monkeypatch


@pytest.mark.thorough
def test_a_comparison_plays_once_and_counts_one_look(runs, capsys):
    args = ["compare", "both=runs/a,runs/b", "one=runs/again", *PLAY, "--json"]
    shutil.copytree(runs / "a", runs / "again")
    code, out, err = rlgen(capsys, *args, "--out", "first")
    found = json.loads(out)
    assert (code, err.count("8 of 8 episodes")) == (0, 3)
    assert [run["run"] for run in found["runs"]] == ["both", "one"]
    assert [run["num_seeds"] for run in found["runs"]] == [2, 1]
    assert "Numbers of seeds differ: both 2, one 1." in found["comparison"]["notes"]
    files = {path.name for path in Path("first").iterdir()}
    made = {"report.html", "results.json", "results.csv", "comparison.json", "comparison.csv"}
    assert made <= files
    assert json.loads(Path("first/comparison.json").read_text()) == found
    for run in ("a", "b", "again"):
        assert len(accesses(runs / run)) == 1
        assert results.load(runs / run / "eval" / NAME)[0].meta["look"] == 1

    code, out, err = rlgen(capsys, *args, "--out", "second")
    again = json.loads(out)
    assert "episodes" not in err  # no episode was played
    assert again["comparison"] == found["comparison"]
    assert len(accesses(runs / "a")) == 1


@pytest.mark.thorough
def test_eval_counts_a_look_and_saves_what_compare_takes(runs, capsys):
    """Compare takes only the first run's results: the second's are in the first one's folder."""
    for log in (runs / "a" / "curriculum").iterdir():
        log.write_bytes(b"cut")
    more = ["--attempts", "2", "--gaps", "none", "--worst"]
    code, out, _ = rlgen(capsys, "eval", runs / "a", runs / "b", *PLAY[:2], *more)
    assert code == 0
    assert "on the worst levels, played again" in " ".join(out.split())
    assert (
        out.index("All levels")
        < out.index("a: evaluation 1 on this suite")
        < out.index("The report")
    )
    place = runs / "a/eval/maze-heldout"
    page = (place / "report.html").read_text()
    assert "evaluation 1 on this suite" in page
    assert "The curriculum could not be drawn: " in page  # the truncated log
    assert [one["suite"] for one in accesses(runs / "b")] == ["maze/heldout"]
    assert [one.run for one in results.read(place).worst] == ["a", "b"]
    assert (place / "normalised-cvar.png").is_file()

    one, other = (load_runs.open_run(runs / name) for name in ("a", "b"))
    suite = load_suite(one.env, "maze/heldout")
    saved, passed = saved_results.find_saved(one, suite, 2, 0)
    assert saved is not None
    assert (saved.run, saved.meta["look"], passed) == ("a", 1, [])
    assert saved_results.find_saved(other, suite, 2, 0) == (None, [])
    why = {
        "of attempts 2, not 1": saved_results.find_saved(one, suite, 1, 0),
        "of evaluation seed 0, not 3": saved_results.find_saved(one, suite, 2, 3),
        "of update 1, not 7": saved_results.find_saved(one._replace(update=7), suite, 2, 0),
        "of other levels": saved_results.find_saved(one, shuffled(suite), 2, 0),
    }
    for said, (found, reasons) in why.items():
        assert found is None
        assert said in reasons[0]
    (place / "episodes.npz").write_bytes(b"cut")
    found, reasons = saved_results.find_saved(one, suite, 2, 0)
    assert found is None
    assert "episodes.npz is missing or damaged" in reasons[0]


def shuffled(suite):
    return suite._replace(levels=take(suite.levels, [1, 0, *range(2, len(suite.levels))]))


def no_config(run):
    (run / "config.json").unlink()


def damaged_config(run):
    (run / "config.json").write_text("{")


def odd_config(run):
    record = json.loads((run / "config.json").read_text())
    del record["spec"]["recipe"]
    record["env"]["height"] = "high"
    (run / "config.json").write_text(json.dumps(record))


def edited_config(run):
    record = json.loads((run / "config.json").read_text())
    record["fields"]["student.learner.clip"] = 0.5
    (run / "config.json").write_text(json.dumps(record))


def no_checkpoint(run):
    shutil.rmtree(run / "checkpoints")


def truncated_checkpoint(run):
    files = [p for p in (run / "checkpoints").rglob("*") if p.is_file() and p.name != "meta.json"]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-10])


def damaged_looks(run):
    (run / "looks.jsonl").write_text("{\n")


def of_another_environment(run):
    """Set a key that the fingerprint omits, for which `rebuild` below changes the environment."""
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | {"pole": True}))


def rebuild(record, allow_imports=False, original=folder.rebuild):
    spec, env, curriculum = original(record, allow_imports)
    return spec, cart_pole.build() if record.get("pole") else env, curriculum


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["eval", "compare"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "runs/b is not a run folder: it has no config.json"),
        (damaged_config, "runs/b/config.json is damaged"),
        (odd_config, "runs/b"),
        (edited_config, "belongs to a different run than"),
        (no_checkpoint, "runs/b has no checkpoint yet"),
        (damaged_looks, "runs/b/looks.jsonl, line 1, is damaged"),
        (truncated_checkpoint, "runs/b/checkpoints/00000001 is damaged"),
        (of_another_environment, "and runs/b in cart-pole (CartPole)"),
    ],
)
def test_a_bad_run_is_refused_by_name_unplayed(runs, capsys, unplayed, command, damage, message):
    damage(runs / "b")
    unplayed.setattr(folder, "rebuild", rebuild)
    code, out, err = rlgen(capsys, command, runs / "b", runs / "a", *PLAY, "--out", "report")
    assert (code, out) == (2, "")
    assert message in err
    assert "runs/b" in err
    assert err.startswith("rlgen: ")
    assert err.count("\n") == 1
    assert not Path("report").exists()
    assert accesses(runs / "a") == []


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["eval", "compare"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--suite", "cave/heldout"], "suite 'cave/heldout' belongs to a different family"),
        (["--suite", "maze/heldou"], "did you mean 'maze/heldout'?"),
        (["--attempts", "0"], "attempts must be at least 1, got 0"),
        (["--attempts", "-3"], "attempts must be at least 1, got -3"),
    ],
)
def test_what_cannot_be_played_is_refused_unplayed(runs, capsys, unplayed, command, args, message):
    code, out, err = rlgen(capsys, command, runs / "a", runs / "b", *args)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.thorough
def test_worst_levels_cannot_be_found_with_one_attempt(runs, capsys, unplayed):
    code, out, err = rlgen(capsys, "eval", runs / "a", *PLAY, "--worst")
    assert (code, out) == (2, "")
    assert "CVaR needs at least 2 attempts on each level" in err


@pytest.mark.thorough
def test_two_runs_of_a_name_and_seeds_that_count_twice_are_refused(runs, capsys, unplayed):
    shutil.copytree(runs / "a", runs / "more" / "a")
    code, _, err = rlgen(capsys, "eval", runs / "a", runs / "more" / "a", *PLAY)
    assert code == 2
    assert "runs/a and runs/more/a are both called 'a'" in err
    code, _, err = rlgen(capsys, "compare", "m=runs/a,runs/more/a", "runs/b", *PLAY)
    assert code == 2
    assert "'m': seed 0 is both in runs/a and in runs/more/a" in err
    code, _, err = rlgen(capsys, "compare", "runs/a", "runs/b", *PLAY, "--baseline", "c")
    assert code == 2
    assert "--baseline c is not one of the methods; they are a, b" in err
