"""`rlgen ladder`: gaps by hand, looks are counted, invalid input is rejected unplayed."""

import csv
import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rlgen.cli import main
from rlgen.envs.chain import Chain
from rlgen.evaluation import zero_shot
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.ladder import report
from rlgen.evaluation.ladder.few_shot import Adaptation
from rlgen.evaluation.ladder.ladder import Ladder, Rung
from rlgen.evaluation.ladder.score import score_all, to_csv, to_dict
from rlgen.evaluation.ladder.streams import Stream
from rlgen.evaluation.ladder.table import print_ladder, print_scores
from rlgen.evaluation.stats.formatting import show_interval
from rlgen.evaluation.stats.intervals import Interval, family_gap_p
from rlgen.levels import LevelSet, Suite
from rlgen.runs import folder
from rlgen.runs.test_set_access import accesses
from tests.standins.command_line import rlgen

NASTY = "<script>=1+1[red]\x1b[31m$x$"
TINY = ["--learner", "ppo", "--num-slots", "4", "--student.num-steps", "8", "--steps", "32"]
TINY += ["--env", "cart-pole", "--env.max-steps", "9", "--student.learner.network.core", "none"]
TINY += ["--student.learner.num-minibatches", "1", "--student.learner.num-epochs", "1"]
TINY += ["--student.learner.bptt-steps", "0", "--student.learner.network.hidden-size", "8"]
CLIMB = ["--levels", "4", "--attempts", "1", "--rungs", "V0,V1", "--json"]


def rung(name, stream, num=4):
    """Return a rung whose levels are never played."""
    split = "train" if name == "V0" else stream
    hashes = jnp.arange(2 * num, dtype=jnp.uint32).reshape(num, 2)
    names = tuple(f"{stream}-{i}" for i in range(num))
    levels = LevelSet((), hashes, jnp.full(num, 3), jnp.full(num, 1.0), names, split, "1")
    rejected = {"repeated": 1, "of an earlier stream": 2, "unsolvable": 3}
    return Rung(name, stream, "of some kind", Stream(Suite("chain/x", Chain(), levels), rejected))


def evaluation(run, rate, num=4, seeds=3, attempts=5, look=0):
    """Return an evaluation that solves the same share of attempts in every seed and level."""
    success = np.zeros((seeds, num, attempts), bool)
    success[..., : round(rate * attempts)] = True
    return Evaluation(
        run=run,
        suite="chain/x",
        suite_version="1",
        level_names=tuple(f"level-{i}" for i in range(num)),
        level_hashes=np.arange(2 * num, dtype=np.uint32).reshape(num, 2),
        optimal_steps=np.full(num, 3),
        optimal_return=np.full(num, 2.0),
        episode_return=1.0 * success,
        length=np.full(success.shape, 3),
        success=success,
        meta={"look": look} if look else {},
    )


RUNGS = (rung("V1", "test"), rung("V2", "large", 3), rung("V3", "named"))
LADDER = Ladder("chain", {"a": rung("V0", "trained-on"), NASTY: rung("V0", "train")}, RUNGS, ())
RATES = {"a": (1.0, 0.8, 0.2, 0.4), NASTY: (0.4, 0.4, 0.0, 0.6)}


@pytest.fixture(scope="module")
def found():
    played = {
        run: [evaluation(run, r, 3 if i == 2 else 4, look=i) for i, r in enumerate(rates)]
        for run, rates in RATES.items()
    }
    points = (evaluation("a", 0.2), evaluation("a", 0.4), evaluation("a", 0.8))
    adapted = {"a": [(RUNGS[0], Adaptation("a", "test", (0, 1, 5), 32, 2, points, 3))]}
    return score_all(LADDER, played, adapted)


def test_gaps_are_from_v0_to_v1_and_from_v1_to_the_others(found):
    gaps = [[float(one.gap.value) for one in found.of(run)[1:]] for run in RATES]
    np.testing.assert_allclose(gaps, [[0.2, 0.6, 0.4], [0.0, 0.4, -0.2]], atol=1e-12)
    assert all(one.gap == () for run in RATES for one in found.of(run)[:1])
    means = [float(one.mean.value) for one in found.of("a")]
    np.testing.assert_allclose(means, RATES["a"])
    normalised = [float(one.normalised.value) for one in found.of("a")]
    np.testing.assert_allclose(normalised, [0.5, 0.4, 0.1, 0.2])
    assert [found.worst(run).name for run in RATES] == ["large", "large"]
    # All seeds and levels have one score, so only the episodes bound it.
    assert {one.mean.kind for one in found.scores} == {"binomial"}
    (curve,) = found.curves
    np.testing.assert_allclose(curve.gain.value, 0.6)


def varied(run, rates, seed=0):
    """Return an evaluation in which seeds and levels have their own rates."""
    rng = np.random.default_rng(seed)
    success = rng.random((4, 30, 8)) < np.asarray(rates)[:, None, None]
    base = evaluation(run, 0.5, 30)
    changes = {"success": success, "episode_return": 1.0 * success}
    return replace(base, length=np.full(success.shape, 3), **changes)


def test_a_gap_uses_the_same_seeds_and_its_test_is_corrected_for_all_gaps():
    """Seeds differ widely, but each loses about .3 from V0 to V1, and nothing on V3."""
    seeds = np.array([0.4, 0.6, 0.8, 0.95])
    played = {"a": [varied("a", x, i) for i, x in enumerate((seeds, seeds - 0.3, seeds - 0.3))]}
    ladder = replace_rungs((RUNGS[0], RUNGS[2]))
    first, second, third = score_all(ladder, played, {}).scores
    assert np.isnan(first.gap_p_value)
    assert second.gap_p_value < 0.01
    assert third.gap_p_value > 0.05
    assert isinstance(second.gap, Interval)
    assert 0.2 < float(second.gap.low) < float(second.gap.high) < 0.4
    raw = [family_gap_p(*(e.score[1].mean(-1) for e in pair)) for pair in pairwise(played["a"])]
    expected = [2 * min(raw), max(raw)]
    np.testing.assert_allclose(sorted((second.gap_p_value, third.gap_p_value)), expected)


def test_a_gain_that_every_agent_shares_is_known_exactly():
    """The same agents play the same levels before and after."""
    rates = np.array([0.25, 0.5, 0.75, 0.875])
    before = np.repeat((np.arange(8) < 8 * rates[:, None])[:, None], 30, axis=1)
    base = varied("a", rates)
    points = tuple(
        replace(base, success=(), episode_return=before + gain, optimal_return=np.full(30, np.nan))
        for gain in (0.0, 0.1)
    )
    adapted = {"a": [(RUNGS[0], Adaptation("a", "test", (0, 5), 32, 2, points, 3))]}
    unknown = replace(points[0], run="a")
    found = score_all(replace_rungs(RUNGS[:1]), {"a": [unknown, unknown]}, adapted)
    (curve,) = found.curves
    assert isinstance(curve.gain, Interval)
    np.testing.assert_allclose(curve.gain.value, 0.1)
    assert not curve.gain.is_known  # no agent differs from another in its gain
    assert curve.mean[0].high - curve.mean[0].low > 0.3


def test_without_a_v1_there_is_no_gap():
    ladder = replace_rungs(RUNGS[1:])
    played = {"a": [evaluation("a", 1.0), evaluation("a", 0.4, 3), evaluation("a", 0.2)]}
    assert [one.gap for one in score_all(ladder, played, {}).scores] == [(), (), ()]


def replace_rungs(rungs):
    return LADDER._replace(own={"a": LADDER.own["a"]}, rungs=rungs)


def test_scores_that_differ_in_kind_are_returns():
    known, other = evaluation("a", 0.4), evaluation("a", 0.2)
    unknown = replace(other, success=(), optimal_return=np.full(4, np.nan))
    played = {"a": [replace(known, success=()), unknown]}
    found = score_all(replace_rungs(RUNGS[:1]), played, {})
    assert found.score == "return"
    first, second = found.scores
    assert first.normalised and second.normalised == ()
    assert isinstance(second.gap, Interval)
    np.testing.assert_allclose(float(second.gap.value), 0.2)


def test_what_is_written_says_what_was_found(found):
    told = json.loads(json.dumps(to_dict(found), allow_nan=False))
    means = [one["mean"]["value"] for one in told["runs"]["a"]["rungs"]]
    np.testing.assert_allclose(means, RATES["a"])
    assert told["rungs"][0]["rejected"]["unsolvable"] == 3 and told["rungs"][0]["sealed"]
    assert not told["own"]["a"]["sealed"]
    (curve,) = told["few_shot"]
    assert curve["env_steps"] == [0, 32, 160] and curve["num_adapt"] == 2
    np.testing.assert_allclose(curve["gain"]["value"], 0.6)
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(rows) == 8 and rows[1]["gap"] == "0.2" and rows[0]["gap"] == ""
    assert all(row["run"][0] != "=" for row in rows)


def test_the_terminal_and_the_page_show_it_at_80_columns_and_escaped(found, tmp_path):
    console = Console(width=80, record=True, file=io.StringIO())
    print_scores(found, console)
    print_ladder(LADDER, console)
    text = console.export_text()
    assert (
        show_interval(found.of("a")[1].mean, found.score, 0, unit=False) in text
        and "a: evaluation 1 and 3 on V1 test, 2 on V2 large" in text
        and "\x1b" not in text
    )
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    html = report.write_page(tmp_path, found).read_text()
    assert "<script" not in html and "http" not in html.replace("http-equiv", "")
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html", "ladder.png", "few-shot.png",
    }  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "a"
    assert main.main(["train", "dr", *TINY, "--out", str(run)]) == 0
    return run


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report, "png_bytes", lambda figure: b"figure")
    return Path("a")


@pytest.mark.thorough
def test_every_look_at_a_sealed_stream_is_counted(run, capsys):
    told = []
    for i, more in enumerate(([], ["--overwrite", "--few-shot", "0,1"], ["--validation"])):
        code, out, err = rlgen(capsys, "ladder", run, *CLIMB, *more)
        assert code == 0, err
        told.append(json.loads(out))
        # Adapting counts as a look, and so does scoring the streams afterwards.
        assert [one["suite"] for one in accesses(run)] == ["cart-pole/test"] * (1, 3, 3)[i]
    found = [[one["look"] for one in each["runs"]["a"]["rungs"]] for each in told]
    assert found == [[0, 1], [0, 2], [0, 0]]
    streams = [each["rungs"][0]["stream"] for each in told]
    assert streams == ["test", "test", "validation"]
    assert told[0]["own"]["a"]["stream"] == "trained-on"
    (curve,) = told[1]["few_shot"]
    assert (curve["num_adapt"], curve["num_levels"], curve["env_steps"]) == (2, 2, [0, 32])
    assert curve["look"] == 3
    assert (run / "eval/ladder/ladder.csv").is_file()
    code, _, err = rlgen(capsys, "ladder", run, *CLIMB)
    assert code == 2 and "already has ladder.json; add --overwrite" in err


@pytest.mark.thorough
def test_what_cannot_be_climbed_is_refused_unplayed(run, capsys, monkeypatch):
    monkeypatch.setattr(zero_shot, "evaluate", lambda *args: pytest.fail("played"))
    other = Path("other")
    shutil.copytree(run, other)
    record = folder.read(other)
    record["env"] = {name: 8 if name == "max_steps" else x for name, x in record["env"].items()}
    (other / "config.json").write_text(json.dumps(record))
    (meta,) = other.glob("checkpoints/*/meta.json")
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"run": folder.fingerprint(record)}))
    said = {
        ("other",): "a and other sample their levels differently (max_steps 9 and 8)",
        ("--few-shot", "1,2"): "few-shot must be increasing numbers of updates that start at 0",
        ("--few-shot", "x"): "few-shot must be numbers of updates, such as",
        ("--rungs", "V9"): "unknown rung 'V9'; known: V0, V1, V2, V3",
        ("--levels", "0"): "levels must be at least 1, got 0",
        ("--adapt-levels", "0"): "adapt-levels must be at least 1",
        ("--attempts", "0"): "attempts must be at least 1, got 0",
        ("--env", "maze"): "give either runs or --env, not both",
        ("nowhere",): "nowhere",
    }
    for args, message in said.items():
        code, _, err = rlgen(capsys, "ladder", run, *args)
        assert code == 2 and message in err, err
    assert accesses(run) == []


def test_the_ladder_of_an_environment_needs_no_run(capsys):
    code, out, err = rlgen(capsys, "ladder", "--env", "chain", "--levels", "5")
    assert code == 0, err
    for text in ("validation", "other-pay", "V2: chain defines no such levels"):
        assert text in out
    code, _, err = rlgen(capsys, "ladder", "--env", "chain", "--levels", "100")
    assert code == 2 and "chain gave 52 levels" in err
    code, _, err = rlgen(capsys, "ladder")
    assert code == 2 and "give the folder of a run" in err
