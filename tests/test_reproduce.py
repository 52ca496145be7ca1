"""The comparison of curricula as a user types it, at tiny size."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parent.parent / "scripts" / "reproduce" / "ued.py"
SMALL = (
    "--learner ppo --num-slots 4 --student.num-steps 16 --student.learner.num-minibatches 1 "
    "--student.learner.bptt-steps 0 --student.learner.network.hidden-size 8 --log-levels 2"
)


def compare(out, *more):
    spec = importlib.util.spec_from_file_location("reproduce_ued", PATH)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    command = ["--env", "cart-pole", "--out", str(out), "--suite", "nominal", "--dense", "far"]
    command += ["--attempts", "2", "--dense-attempts", "1", "--seeds", "2", *more]
    return script.main([*command, "--", *SMALL.split()])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("ued") / "runs"
    assert compare(out, "--methods", "dr", "--steps", "128") == 0
    return out


def test_it_trains_evaluates_and_compares(compared):
    written = (compared / "comparison.md").read_text()
    assert "| env steps: train | 128 |" in written
    assert "**IQM**" in written and "worst 1 %" in written and "gradient steps" in written
    assert (compared / "cvar.png").stat().st_size > 1000
    assert (compared / "heldout" / "report.html").is_file()


def test_a_second_call_trains_only_what_is_missing(compared, capsys):
    before = (compared / "dr" / "metrics.jsonl").read_bytes()
    assert compare(compared, "--methods", "dr", "robust-plr", "--steps", "128") == 0
    said = capsys.readouterr().out
    assert "dr is trained already" in said
    assert (compared / "dr" / "metrics.jsonl").read_bytes() == before
    heads = next(line for line in said.splitlines() if line.startswith("| | "))
    assert heads == "| | dr | robust-plr |"
    assert "| env steps: scout | 0 | 128 |" in said
    assert (compared / "comparison.md").read_text() in said


def test_a_run_of_another_size_is_refused_and_left_alone(compared):
    with pytest.raises(SystemExit, match="with steps=128, and this comparison asks for 256"):
        compare(compared, "--methods", "dr", "--steps", "256")
