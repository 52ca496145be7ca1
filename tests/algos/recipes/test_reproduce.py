"""The scripts that compare methods, called as a user would, at tiny size."""

import importlib.util
import shutil
import sys

import pytest

from tests.paths import ROOT

FOLDER = ROOT / "scripts" / "reproduce"
SMALL = (
    "--learner ppo --num-slots 4 --student.num-steps 16 --student.learner.num-minibatches 1 "
    "--student.learner.bptt-steps 0 --student.learner.network.hidden-size 8 --log-levels 2"
)
SMALL_RULE = (
    "--num-slots 2 --student.num-workers 2 --student.rollout-steps 3 --student.rule.hidden-size 8 "
    "--student.num-inner-updates 1 --log-levels 0"
)


def script(name, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.delitem(sys.modules, "_comparison", raising=False)
    spec = importlib.util.spec_from_file_location(f"reproduce_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def ued():
    with pytest.MonkeyPatch.context() as patch:
        yield script("ued", patch)


def compare(ued, out, *more):
    command = ["--env", "cart-pole", "--out", str(out), "--suite", "nominal", "--dense", "far"]
    command += ["--attempts", "2", "--dense-attempts", "2", "--seeds", "2", *more]
    return ued.main([*command, "--", *SMALL.split()])


@pytest.fixture(scope="module")
def compared(ued, tmp_path_factory):
    out = tmp_path_factory.mktemp("ued") / "runs"
    assert compare(ued, out, "--methods", "dr", "--steps", "128") == 0
    return out


@pytest.mark.thorough
def test_it_trains_evaluates_and_compares(compared):
    written = (compared / "comparison.md").read_text()
    assert "| env steps: train | 128 |" in written
    assert "**mean**" in written and "worst 1 %" in written and "gradient steps" in written
    assert (compared / "cvar.png").stat().st_size > 1000
    assert (compared / "heldout" / "report.html").is_file()


@pytest.mark.thorough
def test_a_second_call_trains_only_what_is_missing(ued, compared, capsys):
    before = (compared / "dr" / "metrics.jsonl").read_bytes()
    assert compare(ued, compared, "--methods", "dr", "robust-plr", "--steps", "128") == 0
    said = capsys.readouterr().out
    assert "dr is already trained" in said
    assert (compared / "dr" / "metrics.jsonl").read_bytes() == before
    heads = next(line for line in said.splitlines() if line.startswith("| | "))
    assert heads == "| | dr | robust-plr |"
    assert "| env steps: scout | 0 | 128 |" in said
    assert (compared / "comparison.md").read_text() in said


def test_a_run_of_another_size_is_refused_and_left_alone(ued, compared):
    with pytest.raises(SystemExit, match="with steps=128, but this comparison requires 256"):
        compare(ued, compared, "--methods", "dr", "--steps", "256")


def test_methods_over_a_finite_set_learn_from_the_same_number_of_steps(
    tmp_path, monkeypatch, capsys
):
    dred, out = script("dred", monkeypatch), tmp_path / "dred"
    command = ["--env", "cart-pole", "--out", str(out), "--methods", "fixed", "el-dred"]
    command += ["--suites", "nominal", "far", "--attempts", "1", "--steps", "128", "--seeds", "2"]
    assert dred.main([*command, "--", *SMALL.split(), "--gap-every", "-1"]) == 0
    said, written = capsys.readouterr().out, (out / "comparison.md").read_text()
    assert "128 env steps, preset" in written and written in said
    assert "| nominal |" in written and "| far |" in written
    # After the warm-up, every other update of el-dred only evaluates edits, without training.
    assert "--steps 256 " in said
    assert (out / "suites.png").stat().st_size > 1000
    assert "Shift gap:" in (out / "nominal" / "report.html").read_text()
    assert "Shift gap:" not in (out / "far" / "report.html").read_text()
    with pytest.raises(SystemExit):
        dred.main(["--methods", "vae"])
    assert "unknown method 'vae'; known: fixed, fixed-plr" in capsys.readouterr().err


def test_rules_are_trained_tested_and_compared(tmp_path, monkeypatch):
    out, sizes = tmp_path / "rules", ["--env", "gridworld/debug", "--steps", "24", "--seeds", "2"]
    rules = script("rules", monkeypatch)
    train = sys.modules["_comparison"].train
    assert train("lpg", out / "lpg", f"{' '.join(sizes)} {SMALL_RULE}") == 0
    shutil.copytree(out / "lpg", out / "again")  # stands in for another method
    command = [*sizes, "--out", str(out), "--methods", "lpg", "again", "--workers", "2"]
    command += ["--suites", "gridworld/unseen", "--levels", "2", "--lifetime", "2"]
    assert rules.main(command) == 0
    written = (out / "comparison.md").read_text().splitlines()
    assert any(line.startswith("| | lpg (untrained) | lpg | again | a2c |") for line in written)
    differences = [line for line in written if " − " in line]  # noqa: RUF001
    assert [line.split(" |")[0] for line in differences] == [
        "| lpg − lpg (untrained)",  # noqa: RUF001
        "| again − lpg (untrained)",  # noqa: RUF001
        "| again − lpg",  # noqa: RUF001
    ]
    assert differences[-1].startswith("| again − lpg | +0.0 [")  # noqa: RUF001
    assert "| env steps: train | 24 | 24 |" in written  # one update
    report = out / "gridworld-unseen"
    assert (report / "report.html").is_file() and (report / "learning.png").is_file()
