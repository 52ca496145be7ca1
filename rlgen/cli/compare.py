"""`rlgen compare`: compare several methods on one suite, in one report."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgen.cli.options import Field, flag, option, parse, positional_runs

ABOUT = (
    "Compare methods on held-out levels: ranking with its uncertainty, pairwise differences and "
    "costs. A method is given as the folder of a run, RUN, or as several runs of different seeds, "
    "such as plr=RUN,RUN. If a run has saved results of exactly this evaluation, they are reused. "
    "All other runs are evaluated now. If the suite is a test set, each evaluation is recorded in "
    "the run's folder."
)
SUITE = "heldout"


class Prepared(NamedTuple):
    """Validated inputs of a comparison."""

    names: list[str]
    runs: list[list[Any]]  # load_runs.Opened, for each method
    suite: Any
    out: Path


def compare(args: Sequence[str]) -> int:
    """Run `rlgen compare`: evaluate runs without saved results, compare, write a report, print."""
    given = parse(_fields(), "rlgen compare", ABOUT, args)
    # The number is checked before the slow imports, so that a wrong number is reported at once.
    if given.attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {given.attempts}")
    from rich.console import Console

    from rlgen.evaluation.from_runs.metrics import metrics_of
    from rlgen.evaluation.from_runs.showcase import level_images
    from rlgen.evaluation.report import comparison as report
    from rlgen.evaluation.report import results
    from rlgen.evaluation.report.sections import access_counts
    from rlgen.evaluation.report.training_overlap import overlap_sentences, overlap_warnings
    from rlgen.evaluation.stats import pooling as methods
    from rlgen.evaluation.stats.cost import pool_metrics

    # All inputs are checked before the first episode: if the last run is invalid, no time has been
    # spent on evaluating the others.
    prepared = _prepare(given)
    played = [[_evaluation(run, prepared.suite, given) for run in some] for some in prepared.runs]
    pairs = list(zip(prepared.names, prepared.runs, strict=True))
    evaluations = [
        methods.pool(name, found) for name, found in zip(prepared.names, played, strict=True)
    ]
    logs = {name: metrics_of({str(run.path): run.path for run in some}) for name, some in pairs}
    costs = [_cost(name, some, logs[name]) for name, some in pairs]
    found = report.compared(evaluations, costs, methods.unlike(pairs))
    # The results are saved first: if drawing the report fails, nothing needs to be played again.
    results.save(prepared.out, evaluations, given.overwrite)
    told = report.to_dict(found)
    text = json.dumps(told, indent=1, allow_nan=False)
    results.write(prepared.out / "comparison.json", text.encode())
    # Learning curves are drawn only for methods whose runs all have a metrics log.
    whole = {
        name: list(logs[name].values()) for name, some in pairs if len(logs[name]) == len(some)
    }
    curves = {name: pool_metrics(lines) for name, lines in whole.items()}
    page = report.write_comparison(prepared.out, found, level_images(prepared.suite), curves)
    if given.json:
        print(json.dumps(told, allow_nan=False))
        return 0
    from rlgen.evaluation.report.comparison_terminal import print_comparison

    print_comparison(found, Console())
    told = overlap_warnings(evaluations), access_counts(evaluations), overlap_sentences(evaluations)
    for line in (line for lines in told for line in lines):
        print(line)
    print(f"The report is {page}")
    return 0


def _prepare(given: Any) -> Prepared:
    """Open and validate all inputs, before anything is played."""
    from rlgen.evaluation import load_runs as checks
    from rlgen.evaluation.report import results
    from rlgen.evaluation.stats import pooling
    from rlgen.evaluation.suites import load_suite

    # Names and folders are checked before the runs. The suite is loaded last, because it depends on
    # the environment of the runs.
    methods = pooling.parse(given.runs)
    methods = _baseline_first(methods, given.baseline)
    name = given.suite or SUITE
    out = Path(given.out or Path("comparison") / name.replace("/", "-"))
    results.check_free(out, given.overwrite)
    at = None if given.checkpoint < 0 else given.checkpoint
    runs = [[checks.open_run(run, at, given.allow_imports) for run in m.runs] for m in methods]
    every = [run for some in runs for run in some]
    # A rule has no policy that could play the suite.
    rules = [str(run.path) for run in every if run.is_rule]
    if rules:
        raise ValueError(
            f"{', '.join(rules)} learned a rule, and rules are tested by training agents; compare "
            "rules with rlgen eval RUN RUN"
        )
    for method, some in zip(methods, runs, strict=True):
        pooling.check_method(method.name, some)
    envs = {str(run.path): run.env for run in every}
    # All runs play one suite, so they must have the observations and actions of the suite.
    checks.check_environments(envs)
    suite = load_suite(every[0].env, name)
    checks.check_playable(envs, suite)
    checks.check_countable([run.path for run in every], suite)
    return Prepared([method.name for method in methods], runs, suite, out)


def _baseline_first(methods: list[Any], baseline: str) -> list[Any]:
    """Reorder the methods so that the baseline comes first."""
    if not baseline:
        return methods
    chosen = [m for m in methods if baseline == m.name or Path(baseline) in m.runs]
    if not chosen:
        names = ", ".join(method.name for method in methods)
        raise ValueError(f"--baseline {baseline} is not one of the methods; they are {names}")
    return [*chosen, *(method for method in methods if method not in chosen)]


def _evaluation(run: Any, suite: Any, given: Any) -> Any:
    """Return the results of a run on the suite.

    If results of an equal evaluation were saved earlier, these results are returned. Otherwise the
    run is evaluated and its results are saved.
    """
    from rlgen.evaluation import load_runs, zero_shot
    from rlgen.evaluation.from_runs import saved_results
    from rlgen.evaluation.from_runs.training_overlap import with_overlap
    from rlgen.evaluation.report import results
    from rlgen.runs.progress import counter

    # Saved results are preferred, because each evaluation on a sealed suite is counted. They are
    # equal to new results if checkpoint, suite, attempts and seed are equal.
    saved, passed = saved_results.find_saved(run, suite, given.attempts, given.seed)
    for reason in passed if saved is None else ():
        print(f"saved results not used: {reason}", file=sys.stderr)
    if saved is not None:
        return saved
    # Policies are loaded only here, because runs with saved results need no policies.
    loaded = zero_shot.load_states(run.path, run.update, False, given.allow_imports)
    policies, progress = zero_shot.policies_of(loaded), counter(str(run.path), "episodes")
    found = load_runs.play(policies, suite, given.attempts, given.seed, progress, run.path)
    found = with_overlap(found, run.path, loaded, suite, given.allow_imports)
    place = saved_results.saved_folder(run, suite, given.attempts, given.seed)
    results.save(place, [found], overwrite=True)
    return found


def _cost(name: str, runs: list[Any], logs: dict[str, list[dict]]) -> Any:
    """Training cost of a method, from the logs of its runs; unknown costs are NaN."""
    from rlgen.evaluation.stats.cost import cost_of, pool_costs

    costs = [
        cost_of(
            name,
            logs.get(str(run.path), []),
            run.update,
            run.spec.seeds,
            str(run.record.get("device", "")),
        )
        for run in runs
    ]
    return pool_costs(name, costs)


def _fields() -> list[Field]:
    return [
        positional_runs("two or more methods, each as RUN or as NAME=RUN,RUN"),
        option(str, "", "suite", "suite, such as maze/heldout; by default heldout"),
        option(int, 10, "attempts", "episodes per level and seed"),
        option(int, 0, "seed", "random seed of the evaluation"),
        option(
            str, "", "baseline", "method or run to compare the others with; by default the first"
        ),
        option(str, "", "out", "folder for results and report; by default comparison/SUITE"),
        flag("overwrite", "replace existing results in the folder"),
        flag("json", "print only the results, as JSON, to standard output"),
        option(int, -1, "checkpoint", "update of the checkpoint to load; -1 for the newest"),
        flag("allow-imports", "import modules outside rlgen that the runs' records name"),
    ]
