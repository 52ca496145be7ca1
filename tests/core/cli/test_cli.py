"""The command line as users see it: help, lists, errors, and one real run from end to end."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from rlgen.cli import main
from rlgen.runs import metrics
from tests.paths import ROOT
from tests.standins.command_line import rlgen

TINY = ["--learner", "ppo", "--env.height", "5", "--env.width", "5", "--env.num-walls", "4"]
TINY += ["--env.max-steps", "20", "--num-slots", "8", "--student.num-steps", "16"]
TINY += ["--student.learner.num-minibatches", "1", "--student.learner.bptt-steps", "0"]
TINY += ["--student.learner.network.hidden-size", "8", "--sampler.capacity", "16"]
TINY += ["--steps", "1.2e3", "--chunk", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run of two seeds, trained by the command line."""
    path = tmp_path_factory.mktemp("runs") / "tiny"
    assert main.main(["train", "robust-plr", *TINY, "--seeds", "2", "--out", str(path)]) == 0
    return path


@pytest.mark.parametrize("args", [["--help"], [], ["list", "--help"], ["list"], ["--version"]])
def test_help_and_lists_need_nothing_heavy(args):
    program = (
        "import sys; from rlgen.cli.main import main; code = main(sys.argv[1:]);"
        "heavy = {'jax', 'gymnax', 'flax', 'tyro'} & set(sys.modules);"
        "print(*heavy, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", program, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr.strip() == ""


def test_python_m_is_the_same(capsys):
    command = [sys.executable, "-m", "rlgen", "list", "recipes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == rlgen(capsys, "list", "recipes")[1]
    assert "robust-plr" in done.stdout


def test_list_says_what_each_thing_is(capsys):
    code, out, _ = rlgen(capsys, "list", "--json")
    found = json.loads(out)
    assert code == 0
    assert {"envs", "learners", "samplers", "scores", "recipes"} <= set(found)
    assert found["envs"]["maze"].startswith("Maze")
    assert all(about for kind in found.values() for about in kind.values())


def test_list_suites(capsys):
    code, out, _ = rlgen(capsys, "list", "suites", "--json")
    assert code == 0
    assert "maze/heldout" in json.loads(out)["suites"]


@pytest.mark.parametrize("command", [["train", "plr"], ["train"], ["eval"], ["levels"]])
def test_every_command_explains_its_options(capsys, command):
    code, out, err = rlgen(capsys, *command, "--help")
    assert (code, err) == (0, "")
    assert f"usage: rlgen {' '.join(command)}" in out
    if command == ["train", "plr"]:
        text = " ".join(out.replace("│", " ").split())
        capacity = "--sampler.capacity INT Number of rows of the level buffer, K."
        for shown in (capacity, "--env.num-walls", "(default: max-mc)"):
            assert shown in text
        assert "--student.learner.num-updates" not in text  # it follows from --steps


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("tran", "unknown command 'tran'; did you mean 'train'?"),
        ("list env", "unknown kind 'env'; did you mean 'envs'?"),
        ("train", "name a recipe first: rlgen train RECIPE; Known: "),
        ("train --steps 5", "name a recipe first"),
        ("train plrr", "unknown recipe 'plrr'; did you mean 'plr'?"),
        ("train plr --env mase", "unknown env 'mase'; did you mean 'maze'?"),
        ("train plr --learner ppo-lst", "did you mean 'ppo-lstm'?"),
        ("train plr --score maxmc", "unknown score 'maxmc'; did you mean 'max-mc'?"),
        ("train plr --preset quick", "unknown preset 'quick'; Known: fast, parity, strong"),
        ("train plr --sampler.capcity 3", "did you mean '--sampler.capacity'?"),
        ("train plr --sampler.capacity", "option '--sampler.capacity' needs a value"),
        ("train plr --sampler.capacity x", "capacity must be a whole number, got 'x'"),
        ("train plr --sampler.capacity 3", "capacity=3 is below the "),
        ("train plr --steps 5.5", "steps must be a whole number, got '5.5'"),
        ("train plr --steps 0", "steps must be at least 1, got 0"),
        ("train plr --student.num-steps 0", "num_steps must be at least 1, got 0"),
        ("train plr --student.learner.num-minibatches 7", "num_minibatches=7 does not divide"),
        ("train plr --env.num-walls 9999", "num_walls=9999"),
        ("train plr --devices 64", "devices=64, but there are"),
        ("train plr --bonus e3c", "unknown bonus 'e3c'; did you mean 'e3b'?"),
        ("train plr --bonus e3b&rnd", "unknown combinator '&' in the bonus 'e3b&rnd'"),
        ("train plr --bonus counts*", "lacks a name next to a combinator"),
        ("train plr --bonus counts/room", "unknown variant 'room' of the bonus counts"),
        ("train plr --bonus counts/event", "Maze has no event"),
        ("train groove --env gridworld --bonus rnd", "learns a rule from whole lifetimes"),
        ("list learners --shared-structure", "measures environments, not learners"),
        ("list envs --shared-structure --envs cart-pole", "CartPole has no feature_values"),
        ("list envs --shared-structure --levels 0", "levels must be at least 1, got 0"),
        ("train plr more", "unexpected argument 'more'"),
        ("train --resume nowhere", "nowhere is not a run folder"),
        ("eval nowhere", "nowhere is not a run folder"),
        ("eval", "RUN"),
        ("levels --suite maze/heldou", "did you mean 'maze/heldout'?"),
        ("levels --suite a --file b", "give only one of --suite and --file"),
        ("levels -n 0", "num must be at least 1"),
        ("levels -n", "option '-n' needs a value"),
        ("train plr --env --seeds 2", "option '--env' needs a value"),
        ("train --resume", "option '--resume' needs a value"),
        ("train plr --student.learner.normalize_advantage maybe", "must be true or false"),
        ("import-rule a b --overwrit", "did you mean '--overwrite'?"),
        ("list --jsn", "unknown option '--jsn'; see `rlgen list --help`"),
    ],
)
def test_wrong_input_ends_with_one_clear_line(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = rlgen(capsys, *args.split())
    assert (code, out) == (2, "")
    assert err.startswith("rlgen: ")
    assert err.count("\n") == 1
    assert message in err
    assert list(tmp_path.iterdir()) == []  # rejected before any file was made


@pytest.mark.thorough
def test_a_run_records_what_was_asked(run):
    record = json.loads((run / "config.json").read_text())
    assert record["spec"]["recipe"] == "robust-plr"
    assert record["spec"]["env"] == "maze"
    assert record["spec"]["score"] == "max-mc"  # the recipe's default, by name
    assert record["env"]["height"] == 5
    assert record["fields"]["sampler.capacity"] == 16
    assert record["fields"]["sampler.train_on_new"] is False
    last = metrics.read(run / "metrics.jsonl")[-1]
    assert last["update"] == 10
    assert sum(last["env_steps"].values()) == 10 * 8 * 16
    assert last["env_steps"]["scout"] >= 8 * 16  # robust PLR only evaluates new levels
    assert 0 < last["gradient_updates"] <= 18


@pytest.mark.thorough
def test_an_existing_run_is_not_overwritten(run, capsys):
    before = (run / "metrics.jsonl").read_bytes()
    code, _, err = rlgen(capsys, "train", "robust-plr", *TINY, "--out", str(run))
    assert code == 2
    assert f"rlgen train --resume {run}" in err
    code, _, err = rlgen(capsys, "train", "--resume", str(run))
    assert code == 2
    assert "has ended: all 10 updates are done" in err
    assert (run / "metrics.jsonl").read_bytes() == before


@pytest.mark.thorough
def test_the_buffer_is_kept_as_levels_and_drawn_best_first(run, capsys, tmp_path):
    with np.load(run / "levels.npz", allow_pickle=False) as file:
        assert file["score"].shape == file["seed"].shape == file["feature.num_walls"].shape
        assert set(file["seed"].tolist()) == {0, 1}
        assert np.isfinite(file["score"]).all()
    out = tmp_path / "levels.png"
    code, text, _ = rlgen(capsys, "levels", "--run", str(run), "-n", "5", "--out", str(out))
    assert (code, text) == (0, f"5 levels in {out}\n")
    picture = np.asarray(Image.open(out).convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 4


@pytest.mark.thorough
def test_eval_prints_only_json_on_request(run, capsys, tmp_path):
    args = ["eval", str(run), "--attempts", "2", "--json", "--untrained", "--out"]
    code, out, _ = rlgen(capsys, *args, str(tmp_path / "report"))
    assert code == 0
    found = json.loads(out)
    assert [one["run"] for one in found["runs"]] == ["tiny (untrained)", "tiny"]
    assert (tmp_path / "report" / "report.html").is_file()
    code, out, err = rlgen(capsys, *args, str(tmp_path / "report"))
    assert (code, out) == (2, "")
    assert "--overwrite" in err


@pytest.mark.thorough
def test_the_script_does_the_same_in_fewer_lines():
    text = (ROOT / "scripts" / "train.py").read_text()
    assert len(text.splitlines()) < 60
    text = text.replace("SEEDS, UPDATES, CHUNK = 2, 200, 10", "SEEDS, UPDATES, CHUNK = 2, 2, 1")
    text = text.replace("Maze(num_walls=25)", "Maze(5, 5, num_walls=4, max_steps=20)")
    text = text.replace("num_slots=128", "num_slots=4").replace("num_steps=128", "num_steps=8")
    text = text.replace("capacity=1000", "capacity=8").replace("num_epochs=2", "num_epochs=1")
    names: dict = {}
    exec(compile(text, "train.py", "exec"), names)
    assert names["states"].student.learner.num_updates.shape == (2, 1)
