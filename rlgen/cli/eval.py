"""`rlgen eval`: evaluate runs on a suite of held-out levels, with a table and a report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgen.cli.options import Field, flag, option, parse, positional_runs

ABOUT = (
    "Evaluate runs on every level of a held-out suite, and compare the first run with the other "
    "runs. If the runs learned update rules, new agents are trained on every level with each rule, "
    "and with A2C as the baseline. Instead of a run's folder, RUN may then be the .npz file of a "
    "rule, or the name of a rule shipped with rlgen."
)


SUITE = "heldout"
ATTEMPTS = 10
OF_RULES = {"lifetime": 0, "horizons": "", "controls": False, "workers": 64, "levels": 0}


class Prepared(NamedTuple):
    """Validated inputs of an evaluation."""

    runs: list[Path]
    out: Path
    loaded: list[Any]  # zero_shot.Loaded, one per run
    policies: list[Any]  # zero_shot.Policies, one per run
    baseline: list[Any]  # untrained policies of the first run; empty without --untrained
    suite: Any
    attempts: int
    reference: Any  # suite to use instead of each run's training set, or None

    @property
    def players(self) -> list[tuple[Any, Path | None]]:
        """Policies to evaluate, baseline first.

        Each policy comes with the run folder in which its evaluation is recorded, or with None for
        the baseline.
        """
        return [
            *((one, None) for one in self.baseline),
            *zip(self.policies, self.runs, strict=True),
        ]


def evaluate(args: Sequence[str]) -> int:
    """Run `rlgen eval`: evaluate, save, print, and return the exit code.

    Rules are evaluated by `evaluate_rules`.
    """
    given = parse(_fields(), "rlgen eval", ABOUT, args)
    if not given.runs:
        raise ValueError("name the folder of a run: rlgen eval RUN [RUN ...]")
    # -1 stands for the default, which depends on whether the runs learned rules or policies.
    if given.attempts != -1 and given.attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {given.attempts}")
    from rlgen.cli.eval_rules import evaluate_rules

    # Some options exist only for rules and some only for policies.
    if _are_rules(given):
        if given.worst:
            raise ValueError(
                f"--worst replays a policy on its worst levels, but {given.runs[0]} learned a rule"
            )
        return evaluate_rules(given)
    _refuse_options_of_rules(given)
    return _evaluate_policies(given)


def _are_rules(given: Any) -> bool:
    """Return whether the runs learned rules instead of policies.

    Raises:
        ValueError: A run is invalid, or some runs learned rules and others policies. The message
            names the run.
    """
    from rlgen.cli.eval_rules import MixedError, all_are_rules
    from rlgen.evaluation.load_runs import naming, rebuild
    from rlgen.runs import folder

    try:
        return all_are_rules(given.runs, given.allow_imports)
    # The message of this error is complete. Any other error may come from a damaged run, whose name
    # is added below.
    except MixedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        for run in (Path(name) for name in given.runs if Path(name).is_dir()):
            with naming(run):  # adds the run's name to the error
                rebuild(run, folder.read(run), given.allow_imports)
        raise


def _evaluate_policies(given: Any) -> int:
    from rlgen.evaluation.load_runs import play
    from rlgen.evaluation.report import results
    from rlgen.runs.progress import counter

    prepared = _prepare(given)
    evaluations = [
        play(
            one,
            prepared.suite,
            prepared.attempts,
            given.seed,
            counter(one.label, "episodes"),
            run,
        )
        for one, run in prepared.players
    ]
    evaluations = _with_overlaps(prepared, evaluations, given.allow_imports)
    # `players` lists the untrained baseline first. Gaps and worst levels are computed for the runs
    # only.
    tested = evaluations[len(prepared.baseline) :]
    gaps = {}
    if given.gaps != "none":
        gaps = _gaps_of(prepared.loaded, tested, given.seed, prepared.reference)
    worst = _worst_of(prepared, tested) if given.worst else {}
    more: dict[str, Any] = {"gaps": list(gaps.values()), "worst": list(worst.values())}
    # The results are saved before the report: if drawing fails, nothing needs to be played again.
    results.save(prepared.out, evaluations, given.overwrite, **more)
    if not given.json:  # printed before the report, because drawing the report takes a while
        _print(evaluations, **more)
    told = {label: {"gaps": x} for label, x in gaps.items()}
    for label, found in worst.items():
        told.setdefault(label, {})["worst"] = found
    page = _write_report(prepared, evaluations, told, given.allow_imports)
    if given.json:
        print(json.dumps(results.to_json(evaluations, **more), allow_nan=False))
        return 0
    print(f"The report is {page}")
    return 0


def _print(evaluations: list[Any], gaps: list[Any], worst: list[Any]) -> None:
    """Print the results; a warning about levels that a run has trained on comes first."""
    from rich.console import Console

    from rlgen.evaluation.report.gap_section import print_gaps
    from rlgen.evaluation.report.sections import access_counts
    from rlgen.evaluation.report.terminal import print_table, print_worst
    from rlgen.evaluation.report.training_overlap import overlap_sentences, overlap_warnings
    from rlgen.evaluation.stats.findings import analyse

    for line in overlap_warnings(evaluations):
        print(line)
    print_table(analyse(evaluations), Console())
    print_worst(worst, Console())
    print_gaps(gaps, Console())
    for line in (*access_counts(evaluations), *overlap_sentences(evaluations)):
        print(line)


def _prepare(given: Any) -> Prepared:
    """Read and validate all inputs, before anything is played."""
    from rlgen.evaluation import load_runs as checks
    from rlgen.evaluation import zero_shot
    from rlgen.evaluation.report import results
    from rlgen.evaluation.stats.cvar import check_attempts
    from rlgen.evaluation.suites import load_suite

    attempts = ATTEMPTS if given.attempts == -1 else given.attempts
    if given.worst:
        check_attempts(attempts)
    runs, name = [Path(run) for run in given.runs], given.suite or SUITE
    out = Path(given.out) if given.out else runs[0] / "eval" / name.replace("/", "-")
    # The folder is checked before anything is played. Otherwise an occupied folder would be noticed
    # only when the results are written.
    results.check_free(out, given.overwrite)
    at = None if given.checkpoint < 0 else given.checkpoint
    opened = [checks.open_run(run, at, given.allow_imports) for run in runs]
    checks.check_labels([(run.name, str(run)) for run in runs])
    envs = {str(one.path): one.env for one in opened}
    checks.check_environments(envs)
    suite = load_suite(opened[0].env, name)
    checks.check_playable(envs, suite)
    checks.check_countable(runs, suite)
    # The levels are loaded here, so that a wrong --gaps is reported before anything is played.
    reference = _reference(opened[0].env, given.gaps)
    if reference is not None:
        checks.check_playable(envs, reference)
    loaded = []
    for run in runs:
        with checks.naming(run):
            loaded.append(zero_shot.load_states(run, at, False, given.allow_imports))
    untrained = [runs[0]] if given.untrained else []
    baseline = [zero_shot.load_policies(x, None, True, given.allow_imports) for x in untrained]
    policies = [zero_shot.policies_of(x) for x in loaded]
    return Prepared(runs, out, loaded, policies, baseline, suite, attempts, reference)


def _with_overlaps(prepared: Prepared, played: list[Any], allow_imports: bool) -> list[Any]:
    """Add to each run's evaluation the number of the suite's levels among the run's own levels."""
    from rlgen.evaluation.from_runs.training_overlap import with_overlap

    num = len(prepared.baseline)
    runs = zip(played[num:], prepared.runs, prepared.loaded, strict=True)
    suite = prepared.suite
    told = [with_overlap(e, run, one, suite, allow_imports) for e, run, one in runs]
    return [*played[:num], *told]


def _write_report(
    prepared: Prepared,
    evaluations: list[Any],
    told: dict[str, dict[str, Any]],
    allow_imports: bool,
) -> Path:
    """Write the report; `told` has each run's gaps and scores on its worst levels, by label."""
    from rlgen.evaluation.from_runs.curricula import curricula_of
    from rlgen.evaluation.from_runs.metrics import metrics_of
    from rlgen.evaluation.from_runs.showcase import level_images, replays
    from rlgen.evaluation.report.curriculum_section import CurriculumSummary
    from rlgen.evaluation.report.report import write_report

    runs = {x.label: run for x, run in zip(prepared.loaded, prepared.runs, strict=True)}
    curricula = curricula_of(runs, allow_imports)
    for label, found in told.items():
        curricula[label] = curricula.get(label, CurriculumSummary())._replace(**found)
    # If there is an untrained baseline, it precedes the first run.
    first = evaluations[len(prepared.baseline)]
    gifs = replays(prepared.policies[0], prepared.suite, first)
    images, curves = level_images(prepared.suite), metrics_of(runs)
    return write_report(prepared.out, evaluations, images, gifs, curves, curricula=curricula)


def _reference(env: Any, gaps: str) -> Any:
    """Suite to treat as the training set of every run; None to use each run's own training set."""
    from rlgen.evaluation.suites import levels_from_file, load_suite

    if gaps in ("auto", "none"):
        return None
    is_file = Path(gaps).suffix == ".npz"
    return levels_from_file(env, gaps) if is_file else load_suite(env, gaps)


def _gaps_of(loaded: list[Any], tested: list[Any], seed: int, reference: Any) -> dict[str, Any]:
    """Return the generalisation gaps of each run that has a finite training set, by label."""
    from rlgen.evaluation.generalisation.gap import measure
    from rlgen.runs.progress import counter

    found = {}
    for run, on_suite in zip(loaded, tested, strict=True):
        progress = counter(f"{run.label}, training set", "episodes")
        found[run.label] = measure(run, on_suite, seed, progress, reference)
    return {label: gaps for label, gaps in found.items() if gaps is not None}


def _worst_of(prepared: Prepared, tested: list[Any]) -> dict[str, Any]:
    """Play each run's worst levels again, and return the scores by label."""
    from rlgen.evaluation.stats.cvar import worst_levels
    from rlgen.runs.progress import counter

    found = {}
    for one, first in zip(prepared.policies, tested, strict=True):
        progress = counter(f"{one.label}, second evaluation", "episodes")
        found[one.label] = worst_levels(one, prepared.suite, first, progress=progress)
    return found


def _refuse_options_of_rules(given: Any) -> None:
    """Reject options that have no effect on policies."""
    for name, default in OF_RULES.items():
        # The parsed options do not show which ones were given, so compare values with defaults.
        if getattr(given, name) != default:
            raise ValueError(
                f"--{name} is for runs that learned a rule, but {given.runs[0]} learned a policy"
            )


def _fields() -> list[Field]:
    return [
        positional_runs("folders of one or more runs, or rules"),
        option(
            str,
            "",
            "suite",
            "suite, such as maze/heldout; see rlgen list suites. The default is heldout, or "
            "gridworld/unseen for rules. For rules, the name of a family, such as minatar, selects "
            "all suites of the family",
        ),
        option(
            int, -1, "attempts", "episodes per level and seed, or agents for rules; -1: 10, rules 4"
        ),
        option(int, 0, "lifetime", "rules: updates per agent; 0 for the environment's default"),
        option(
            str,
            "",
            "horizons",
            "rules: evaluate at several lifetimes of agents, such as 10,50,250, in one report",
        ),
        flag(
            "controls",
            "with --horizons: if a rule has a clock (it receives the elapsed fraction of the "
            "lifetime), also test the rule with an uninformative clock",
        ),
        option(int, 64, "workers", "rules: number of parallel environments per agent"),
        option(int, 0, "levels", "rules: use the first N levels of the suite; 0 for all levels"),
        option(int, 0, "seed", "random seed of the evaluation"),
        option(
            str,
            "auto",
            "gaps",
            "auto: if a run has a finite training set, also evaluate the run on this set and "
            "report the generalisation gap and the level information; none: do not; the name of a "
            "suite or a .npz file: treat its levels as the training set of every run",
        ),
        flag(
            "worst",
            "play the suite again, with different random numbers, to report the score on each "
            "seed's worst levels (CVaR); needs at least 2 attempts",
        ),
        flag("untrained", "also evaluate the untrained agents of the first run, as the baseline"),
        option(str, "", "out", "folder for results and report; by default RUN/eval/SUITE"),
        flag("overwrite", "replace existing results in the folder"),
        flag("json", "print only the results, as JSON, to standard output"),
        option(int, -1, "checkpoint", "update of the checkpoint to load; -1 for the newest"),
        flag("allow-imports", "import modules outside rlgen that the run's record names"),
    ]
