"""`rlgen eval`: runs on a suite of held-out levels, as a table, files and a report."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from rlgen._cli_parse import Field, flag, make_options, option, parse

ABOUT = (
    "Play every level of a suite with runs that never saw it, and compare them: the first run is "
    "what the others are compared with. Where a run learned a rule, fresh agents are trained by it "
    "on every level, and by A2C; RUN may then also be a rule's .npz, or the name of one that ships."
)


SUITE = "heldout"
ATTEMPTS = 10
OF_RULES = {"lifetime": 0, "horizons": "", "controls": False, "workers": 64, "levels": 0}


def evaluate(args: Sequence[str]) -> int:
    """Play, save, print; runs that learned a rule go their own way."""
    given: Any = parse(make_options("Options", _fields()), "rlgen eval", ABOUT, args)
    if not given.runs:
        raise ValueError("name the folder of a run: rlgen eval RUN [RUN ...]")
    from rlgen._cli_meta import all_are_rules, evaluate_rules

    if all_are_rules(given.runs, given.allow_imports):
        return evaluate_rules(given)
    _refuse_options_of_rules(given)
    return _evaluate_policies(given)


def _evaluate_policies(given: Any) -> int:
    from rich.console import Console

    from rlgen.evaluation import results, zero_shot
    from rlgen.evaluation.curriculum_report import Story
    from rlgen.evaluation.curves import read_metrics
    from rlgen.evaluation.generalisation_report import print_gaps
    from rlgen.evaluation.report import write_report
    from rlgen.evaluation.showcase import episode_gif, level_images
    from rlgen.evaluation.suites import load_suite
    from rlgen.evaluation.table import print_table
    from rlgen.runs.progress import counter

    runs = [Path(run) for run in given.runs]
    name = given.suite or SUITE
    attempts = ATTEMPTS if given.attempts < 0 else given.attempts
    out = Path(given.out) if given.out else runs[0] / "eval" / name.replace("/", "-")
    results.check_free(out, given.overwrite)
    at = None if given.checkpoint < 0 else given.checkpoint
    loaded = [zero_shot.load_states(run, at, False, given.allow_imports) for run in runs]
    trained = [zero_shot.policies_of(one) for one in loaded]
    baseline = (
        [zero_shot.load_policies(runs[0], None, True, given.allow_imports)]
        if given.untrained
        else []
    )
    suite = load_suite(trained[0].env, name)
    reference = _reference(trained[0].env, given.gaps)
    labels = [one.label for one in trained]
    curricula = curricula_of(dict(zip(labels, runs, strict=True)), given.allow_imports)
    evaluations = [
        zero_shot.evaluate(one, suite, attempts, given.seed, counter(one.label, "episodes"))
        for one in (*baseline, *trained)
    ]
    tested = evaluations[len(baseline) :]
    gaps = {} if given.gaps == "none" else _gaps_of(loaded, tested, given.seed, reference)
    for label, found in gaps.items():
        curricula[label] = curricula.get(label, Story())._replace(gaps=found)
    results.save(out, evaluations, given.overwrite, gaps=list(gaps.values()))
    logs = {label: run / "metrics.jsonl" for label, run in zip(labels, runs, strict=True)}
    curves = {label: read_metrics(log) for label, log in logs.items() if log.is_file()}
    gifs = episode_gif(trained[0], suite, evaluations[len(baseline)])
    page = write_report(out, evaluations, level_images(suite), gifs, curves, curricula=curricula)
    if given.json:
        print(json.dumps(results.to_json(evaluations, gaps=list(gaps.values())), allow_nan=False))
        return 0
    print_table(evaluations, Console())
    print_gaps(list(gaps.values()), Console())
    print(f"The report is {page}")
    return 0


def _reference(env: Any, gaps: str) -> Any:
    """The levels that stand for the training set of every run; None for each run's own."""
    from rlgen.evaluation.suites import levels_from_file, load_suite

    if gaps in ("auto", "none"):
        return None
    is_file = Path(gaps).suffix == ".npz"
    return (levels_from_file(env, gaps) if is_file else load_suite(env, gaps)).levels


def _gaps_of(loaded: list[Any], tested: list[Any], seed: int, reference: Any) -> dict[str, Any]:
    """What runs owe to their training sets, by label; of those without a finite set nothing."""
    from rlgen.evaluation.generalisation import measure
    from rlgen.runs.progress import counter

    found = {}
    for run, on_suite in zip(loaded, tested, strict=True):
        progress = counter(f"{run.label}, training set", "episodes")
        found[run.label] = measure(run, on_suite, seed, progress, reference)
    return {label: gaps for label, gaps in found.items() if gaps is not None}


def _refuse_options_of_rules(given: Any) -> None:
    """Refuse what would be without effect."""
    for name, default in OF_RULES.items():
        if getattr(given, name) != default:
            raise ValueError(
                f"--{name} is for runs that learned a rule; {given.runs[0]} learned a policy"
            )


def curricula_of(runs: dict[str, Path], allow_imports: bool) -> dict[str, Any]:
    """What the report tells of each run's training, where the run kept a log."""
    from rlgen.evaluation.curriculum_report import tell

    stories = {label: tell(run, allow_imports) for label, run in runs.items()}
    return {label: story for label, story in stories.items() if story is not None}


def _fields() -> list[Field]:
    runs = tyro.conf.arg(metavar="RUN", help="folders of one run or more, or rules")
    return [
        (
            "runs",
            Annotated[tyro.conf.Positional[list[str]], runs],
            dataclasses.field(default_factory=list),
        ),
        option(
            str,
            "",
            "suite",
            "the suite, such as maze/heldout; see rlgen list suites. By default heldout; for rules "
            "gridworld/unseen, and a family's name alone, such as minatar, is all its suites",
        ),
        option(
            int, -1, "attempts", "episodes (10) or agents (4) on each level by each seed; -1: these"
        ),
        option(int, 0, "lifetime", "rules: updates of each agent; 0 for the environment's own"),
        option(
            str,
            "",
            "horizons",
            "rules: test at each of these lifetimes, such as 10,50,250, and compare them",
        ),
        flag("controls", "with --horizons: rules with a clock also with clocks that tell nothing"),
        option(int, 64, "workers", "rules: environments that each agent learns from at a time"),
        option(int, 0, "levels", "rules: only so many first levels of the suite; 0 for all"),
        option(int, 0, "seed", "of the evaluation's random numbers"),
        option(
            str,
            "auto",
            "gaps",
            "auto: runs over a finite training set play it too, for the generalisation gap and the "
            "level information; none: they do not; the name of a suite or a .npz: all runs play "
            "these levels as if they had been trained on them",
        ),
        flag("untrained", "also the first run's agents before training, as the baseline"),
        option(str, "", "out", "folder of results and report; by default RUN/eval/SUITE"),
        flag("overwrite", "replace results that are in the folder"),
        flag("json", "print only the results, as JSON, on standard output"),
        option(int, -1, "checkpoint", "update of an older checkpoint; -1 for the newest"),
        flag("allow-imports", "import code from outside rlgen that the run names"),
    ]
