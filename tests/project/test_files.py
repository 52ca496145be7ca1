"""docs/files.md lists every key that rlgen writes, and no other."""

import ast
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation.gap import Gap, Gaps, LevelInformation
from rlgen.evaluation.report import results
from rlgen.evaluation.report.digest import digests
from rlgen.evaluation.stats.cvar import CVaR
from rlgen.evaluation.stats.intervals import Interval
from rlgen.evaluation.stats.selection_bias import SelectionBias
from rlgen.evaluation.stats.settings import Intervals
from rlgen.runs import metrics, test_set_access
from rlgen.runs.metrics import COUNTED, GRADIENT_STEPS, Counters
from rlgen.runs.spec import RunSpec, build
from rlgen.types import Keys
from tests.paths import ROOT
from tests.project.test_style import python_files
from tests.standins.documented import listed_keys

INTERVAL = {"value", "low", "high", "kind"}


def written(spec: RunSpec) -> set[str]:
    """Keys of `metrics.jsonl` for one update of a run, which is traced and not executed."""
    _, curriculum = build(spec)

    def update(key):
        return curriculum.train(curriculum.init(key), Keys(key, key), jnp.int32(0), 1)[1]

    names = jax.eval_shape(update, jax.random.key(0))
    counted = {f"env_steps.{n.removeprefix(COUNTED)}" for n in names if n.startswith(COUNTED)}
    rest = {n for n in names if not n.startswith(COUNTED) and n != GRADIENT_STEPS}
    return counted | rest


@pytest.fixture
def envs(monkeypatch):
    """The environment that the site shows each recipe on, where it is not the maze."""
    monkeypatch.syspath_prepend(ROOT / "scripts")
    return importlib.import_module("docs_tables").ENVS


def costs(folder: Path) -> set[str]:
    """Keys that every line of `metrics.jsonl` starts with."""
    metrics.append(folder / "metrics.jsonl", [Counters()], {}, 1.0)
    return set(metrics.read(folder / "metrics.jsonl")[0])


def keys(x, path: str = "") -> set[str]:
    """Paths of all values; an interval and the free contents of `meta` are one value."""
    if isinstance(x, dict) and set(x) != INTERVAL and path != "runs[].meta":
        inner = (keys(y, f"{path}.{name}".strip(".")) for name, y in x.items())
        return set().union(*inner)
    if isinstance(x, list) and x and isinstance(x[0], dict):
        return set().union(*(keys(y, f"{path}[]") for y in x))
    return {path}


def evaluation(run: str, share: float, **meta) -> Evaluation:
    """Three seeds on twelve levels of three difficulties."""
    solved = np.random.default_rng(0).random((3, 12, 4)) < share
    return Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="1",
        level_names=tuple(f"level-{i}" for i in range(12)),
        level_hashes=np.arange(24, dtype=np.uint32).reshape(12, 2),
        optimal_steps=np.repeat([5, 10, 20], 4),
        optimal_return=np.full(12, 0.9),
        episode_return=solved * 0.8,
        length=np.where(solved, 20, 50),
        success=solved,
        meta=meta,
    )


def everything() -> dict:
    """The contents of a `results.json` with every optional block."""
    zero, numbers = np.zeros(()), np.zeros(3)
    one = Interval(zero, zero, zero, "student")
    gap = Gap(one, one, one, numbers)
    information = LevelInformation(numbers, numbers, numbers, numbers, 1.0)
    gaps = Gaps("b", 4, 4, 12, 12, gap, gap, information, numbers)
    means = Interval(np.zeros(1), np.zeros(1), np.zeros(1), "student")
    counts = (np.array([0.1]), np.array([1]), np.zeros((3, 1)))
    bias = SelectionBias(np.zeros(1), 0.02, np.array([10]))
    worst = CVaR("b", "maze/heldout", "solve rate", 12, *counts, means, 10, bias)
    runs = [evaluation("a2c", 0.3, baseline=True), evaluation("b", 0.6)]
    content = results.to_json(runs, Intervals(reps=50), 0, [gaps], [worst])
    return content | {"digest": digests(content, {})}  # added by `results.save`


def test_every_key_is_listed_once():
    for heading in ("metrics.jsonl", "generalisation.jsonl", "looks.jsonl", "results.json"):
        found = listed_keys(heading)
        assert found, heading
        assert len(found) == len(set(found)), heading


@pytest.mark.parametrize(
    "asked", [RunSpec("plr", bonus="counts"), RunSpec("paired")], ids=lambda x: x.recipe
)
def test_common_metrics_are_listed(asked, tmp_path):
    assert written(asked) | costs(tmp_path) <= set(listed_keys("metrics.jsonl"))


@pytest.mark.thorough
def test_the_metrics_of_all_recipes_learners_and_bonuses_are_listed_and_no_other(envs, tmp_path):
    two_streams = {"student.learner.two_streams": True}
    asked = [RunSpec(name, envs.get(name, "maze")) for name in registry.names("recipes")]
    asked += [RunSpec("dr", learner=name) for name in registry.names("learners")]
    asked += [RunSpec("dr", bonus=name) for name in registry.names("bonuses")]
    asked += [RunSpec("dr", bonus="counts", overrides=two_streams)]
    found = costs(tmp_path).union(*map(written, asked))
    assert found == set(listed_keys("metrics.jsonl"))


def test_the_keys_of_results_are_listed_and_no_other():
    assert keys(everything()) == set(listed_keys("results.json"))


def test_a_new_key_of_results_is_noticed():
    content = everything()
    content["runs"][0]["aggregate"]["mode"] = {name: 0.0 for name in INTERVAL}
    assert keys(content) - set(listed_keys("results.json")) == {"runs[].aggregate.mode"}


def recorded() -> set[str]:
    """Keys of the facts that callers of `count_access` record."""
    trees = [ast.parse(text) for text in python_files("rlgen/").values() if "count_access(" in text]
    facts = [x.value for tree in trees for x in ast.walk(tree) if isinstance(x, ast.Assign)]
    named = [x for x in facts if isinstance(x, ast.Dict) and "seed" in map(key_of, x.keys)]
    return {key_of(key) for x in named for key in x.keys}


def key_of(key: ast.expr | None) -> str:
    return str(key.value) if isinstance(key, ast.Constant) else ""


def test_the_keys_of_an_access_are_listed_and_no_other(tmp_path):
    facts = dict.fromkeys(recorded(), 1)
    assert {"update", "attempts", "few_shot", "seed"} <= set(facts)
    test_set_access.count_access(tmp_path, "maze/heldout", "1", "test", **facts)
    assert set(test_set_access.accesses(tmp_path)[0]) == set(listed_keys("looks.jsonl"))
