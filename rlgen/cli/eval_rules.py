"""`rlgen eval` for update rules: train new agents with the rules on held-out levels."""

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

SUITE = "gridworld/unseen"
ATTEMPTS = 4
BASELINE = "a2c"


class MixedError(ValueError):
    """Rules and policies were given together."""


def all_are_rules(names: list[str], allow_imports: bool) -> bool:
    """Return True if all names are rules or runs that learned a rule, False if no name is.

    Raises:
        MixedError: Some names belong to rules and some to runs that trained a policy.
        ValueError: A name is neither a run nor a rule.
    """
    from rlgen.evaluation.meta.trainees import is_rule, learns_rule

    kinds = {name: is_rule(name) or learns_rule(name, allow_imports) for name in names}
    rules = [name for name, is_one in kinds.items() if is_one]
    if rules and len(rules) < len(kinds):
        others = ", ".join(name for name, is_one in kinds.items() if not is_one)
        raise MixedError(
            f"{', '.join(rules)} learned a rule and {others} a policy; rules and policies are "
            "tested in different ways, so evaluate them separately"
        )
    return bool(rules)


def evaluate_rules(given: Any) -> int:
    """Train new agents with each rule, save and print the results, and return the exit code."""
    from rich.console import Console

    from rlgen.evaluation.meta import meta_test, trainees
    from rlgen.evaluation.report import results
    from rlgen.evaluation.report.relative_section import print_relative
    from rlgen.evaluation.report.report import write_report
    from rlgen.evaluation.report.terminal import print_table
    from rlgen.evaluation.stats.findings import analyse
    from rlgen.runs.progress import counter

    if given.horizons:
        return _evaluate_horizons(given)
    if given.controls:
        raise ValueError("--controls requires --horizons, such as --horizons 10,50,250")
    name = given.suite or SUITE
    out = Path(given.out) if given.out else default_folder(given.runs[0], name)
    results.check_free(out, given.overwrite)
    protocol = meta_test.Protocol(
        lifetime=given.lifetime,
        attempts=ATTEMPTS if given.attempts < 0 else given.attempts,
        num_workers=given.workers,
        seed=given.seed,
    )
    found = trainees_of(given)
    suites = trainees.suites_of(name, given.levels)
    # Incompatible rules and suites raise an error here, before hours of training.
    for one in found:
        for suite in suites:
            one.build(suite.env)
    evaluations = [
        meta_test.evaluate(one, suites, protocol, name, counter(one.label, "agents"))
        for one in found
    ]
    results.save(out, evaluations, given.overwrite)
    curves, curricula = _training(given)
    page = write_report(
        out, evaluations, images=_images(suites), curves=curves, curricula=curricula
    )
    if given.json:
        print(json.dumps(results.to_json(evaluations), allow_nan=False))
        return 0
    console = Console()
    findings = analyse(evaluations)
    print_table(findings, console)
    print_relative(evaluations, findings.relatives, console)
    print(f"The report is {page}")
    return 0


def _evaluate_horizons(given: Any) -> int:
    """Train new agents at each of several lifetimes; otherwise like `evaluate_rules`."""
    from rich.console import Console
    from rich.markdown import Markdown

    from rlgen.config import convert
    from rlgen.evaluation.meta import horizons, meta_test, trainees
    from rlgen.evaluation.report import results
    from rlgen.runs.progress import counter

    name = given.suite or SUITE
    lives = convert(tuple[int, ...], given.horizons, "--horizons")
    horizons.check(lives, given.lifetime)
    out = Path(given.out) if given.out else default_folder(given.runs[0], f"{name}-horizons")
    results.check_free(out, given.overwrite)
    for horizon in lives:
        # Each lifetime has its own folder. All folders must be free before training starts.
        results.check_free(out / f"updates-{horizon:05d}", given.overwrite)
    suites = trainees.suites_of(name, given.levels)
    if len(suites) > 1:
        raise ValueError(
            f"--horizons needs one suite, but {name!r} has {len(suites)} suites; choose one of "
            + ", ".join(suite.name for suite in suites)
        )
    found = trainees_of(given)
    if given.controls:
        # The order is: rules, controls, baseline. `trainees_of` returns the baseline last.
        *rules, baseline = found
        more = [horizons.controls(one, suites[0], lives) for one in rules]
        if not any(more):
            raise ValueError("--controls requires a rule with a clock, but no rule has a clock")
        found = [*rules, *(one for some in more for one in some), baseline]
    protocol = meta_test.Protocol(
        attempts=ATTEMPTS if given.attempts < 0 else given.attempts,
        num_workers=given.workers,
        seed=given.seed,
    )
    # Each label has its own progress counter, because calls with different labels alternate.
    counters = cache(partial(counter, what="agents"))
    tested = horizons.evaluate_all(
        found, suites[0], protocol, lives, lambda label, *count: counters(label)(*count)
    )
    page = horizons.write(out, tested, given.overwrite)
    if given.json:
        told = {str(n): results.to_json(some) for n, some in tested.items()}
        print(json.dumps(told, allow_nan=False))
        return 0
    Console().print(Markdown(horizons.markdown(tested)))
    print(f"The report is {page}")
    return 0


def trainees_of(given: Any) -> list:
    """Return the rules to test: untrained rules if requested, the given rules, and the baseline."""
    from rlgen.evaluation.meta import trainees

    at = None if given.checkpoint < 0 else given.checkpoint
    found = []
    if given.untrained:
        if trainees.is_rule(given.runs[0]):
            raise ValueError(
                f"--untrained needs the folder of a run, which determines the untrained rule, but "
                f"{given.runs[0]} is only a rule"
            )
        found.append(trainees.from_run(given.runs[0], None, True, given.allow_imports))
    for name in given.runs:
        by_itself = trainees.is_rule(name)
        found.append(
            trainees.from_file(name)
            if by_itself
            else trainees.from_run(name, at, False, given.allow_imports)
        )
    labels = [one.label for one in found]
    # Labels identify the rules in results and tables. `a2c` is reserved for the baseline.
    repeated = sorted(
        {label for label in labels if labels.count(label) > 1} | {BASELINE} & {*labels}
    )
    if repeated:
        raise ValueError(
            f"rules must have different names, and {BASELINE!r} is the name of the baseline; got "
            f"{', '.join(repeated)} twice"
        )
    # The baseline gets as many seeds as the rule with the largest number of seeds.
    return [*found, trainees.from_learner(BASELINE, max(one.num_seeds for one in found))]


def _training(given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the metrics and the curricula of the tested runs, by label.

    A rule that is given without a run has no metrics and no curriculum.
    """
    from rlgen.evaluation.from_runs.curricula import curricula_of
    from rlgen.evaluation.from_runs.metrics import metrics_of

    runs = {Path(name).name: Path(name) for name in given.runs if Path(name).is_dir()}
    return metrics_of(runs), curricula_of(runs, given.allow_imports)


def default_folder(run: str, suite: str) -> Path:
    """Default output folder: RUN/eval/SUITE for a run, eval/RULE/SUITE for a rule."""
    from rlgen.evaluation.meta.trainees import is_rule

    inside = Path("eval") / Path(run).stem if is_rule(run) else Path(run) / "eval"
    return inside / suite.replace("/", "-")


def _images(suites: list) -> dict:
    """Pictures of the levels, by the names that the levels have in the results."""
    from rlgen.evaluation.from_runs.showcase import level_images
    from rlgen.evaluation.meta.meta_test import level_names

    names = iter(level_names(suites))
    found = {}
    for suite in suites:
        drawn = level_images(suite)
        here = {one: next(names) for one in suite.levels.names}
        found |= {here[one]: picture for one, picture in drawn.items()}
    return found
