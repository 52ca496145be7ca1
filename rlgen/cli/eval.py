"""`rlgen eval`: evaluate runs on a suite of held-out levels, with a table and a report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgen.cli.options import Field, flag, option, parse, positional_runs

ABOUT = (
    "Evaluate runs on every level of a held-out suite. The other runs are compared with the first "
    "one. If a run learned an update rule, new agents are trained with it on every level, and with "
    "A2C as the baseline; RUN may then also be the .npz file of a rule, or the name of a rule in "
    "rlgen."
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
    baseline: list[Any]  # the first run's policies before training; empty without --untrained
    suite: Any
    attempts: int
    reference: Any  # levels to use instead of each run's training set, or None

    @property
    def players(self) -> list[tuple[Any, Path | None]]:
        """Policies to evaluate, baseline first, each with the folder that counts the access."""
        return [
            *((one, None) for one in self.baseline),
            *zip(self.policies, self.runs, strict=True),
        ]


def evaluate(args: Sequence[str]) -> int:
    """Run `rlgen eval`: evaluate, save, print; runs that learned a rule have a separate path."""
    given = parse(_fields(), "rlgen eval", ABOUT, args)
    if not given.runs:
        raise ValueError("name the folder of a run: rlgen eval RUN [RUN ...]")
    # -1 is the default: its value depends on whether the runs are rules, which is not known yet.
    if given.attempts != -1 and given.attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {given.attempts}")
    from rlgen.cli.eval_rules import evaluate_rules

    # Rules and policies have different options, which are rejected for the other kind.
    if _are_rules(given):
        if given.worst:
            raise ValueError(
                f"--worst replays a policy on its worst levels, but {given.runs[0]} learned a rule"
            )
        return evaluate_rules(given)
    _refuse_options_of_rules(given)
    return _evaluate_policies(given)


def _are_rules(given: Any) -> bool:
    """Return whether the runs are rules, not policies; an invalid run is reported by name."""
    from rlgen.cli.eval_rules import MixedError, all_are_rules
    from rlgen.evaluation.load_runs import naming, rebuild
    from rlgen.runs import folder

    try:
        return all_are_rules(given.runs, given.allow_imports)
    # Already a complete message; any other error may come from a damaged run, which is named below.
    except MixedError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError):
        for run in (Path(name) for name in given.runs if Path(name).is_dir()):
            with naming(run):  # adds the run's name to the error
                rebuild(run, folder.read(run), given.allow_imports)
        raise


def _evaluate_policies(given: Any) -> int:
    from rich.console import Console

    from rlgen.evaluation.load_runs import play
    from rlgen.evaluation.report import results
    from rlgen.evaluation.report.gap_section import print_gaps
    from rlgen.evaluation.report.sections import access_counts
    from rlgen.evaluation.report.terminal import print_table, print_worst
    from rlgen.evaluation.stats.findings import analyse
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
    # `players` lists the untrained baseline first; gaps and worst levels are those of the runs.
    tested = evaluations[len(prepared.baseline) :]
    gaps = {}
    if given.gaps != "none":
        gaps = _gaps_of(prepared.loaded, tested, given.seed, prepared.reference)
    worst = _worst_of(prepared, tested) if given.worst else {}
    more: dict[str, Any] = {"gaps": list(gaps.values()), "worst": list(worst.values())}
    # Before the report: if drawing fails, nothing needs to be played again.
    results.save(prepared.out, evaluations, given.overwrite, **more)
    if not given.json:  # before the report, since curricula and animations take a while to draw
        print_table(analyse(evaluations), Console())
        print_worst(more["worst"], Console())
        print_gaps(more["gaps"], Console())
        for line in access_counts(evaluations):
            print(line)
    told = {label: {"gaps": x} for label, x in gaps.items()}
    for label, found in worst.items():
        told.setdefault(label, {})["worst"] = found
    page = _write_report(prepared, evaluations, told, given.allow_imports)
    if given.json:
        print(json.dumps(results.to_json(evaluations, **more), allow_nan=False))
        return 0
    print(f"The report is {page}")
    return 0


def _prepare(given: Any) -> Prepared:
    """Read and validate all inputs, before anything is played."""
    from rlgen.evaluation import load_runs as checks
    from rlgen.evaluation import zero_shot
    from rlgen.evaluation.report import results
    from rlgen.evaluation.suites import load_suite

    runs, name = [Path(run) for run in given.runs], given.suite or SUITE
    out = Path(given.out) if given.out else runs[0] / "eval" / name.replace("/", "-")
    # Before loading or playing anything: a folder in use must not be discovered when the results
    # are written.
    results.check_free(out, given.overwrite)
    at = None if given.checkpoint < 0 else given.checkpoint
    opened = [checks.open_run(run, at, given.allow_imports) for run in runs]
    checks.check_labels([(run.name, str(run)) for run in runs])
    envs = {str(one.path): one.env for one in opened}
    checks.check_environments(envs)
    suite = load_suite(opened[0].env, name)
    checks.check_playable(envs, suite)
    checks.check_countable(runs, suite)
    # Loaded here, so that a wrong --gaps is reported before anything is played.
    reference = _reference(opened[0].env, given.gaps)
    loaded = []
    for run in runs:
        with checks.naming(run):
            loaded.append(zero_shot.load_states(run, at, False, given.allow_imports))
    untrained = [runs[0]] if given.untrained else []
    baseline = [zero_shot.load_policies(x, None, True, given.allow_imports) for x in untrained]
    attempts = ATTEMPTS if given.attempts == -1 else given.attempts
    policies = [zero_shot.policies_of(x) for x in loaded]
    return Prepared(runs, out, loaded, policies, baseline, suite, attempts, reference)


def _write_report(
    prepared: Prepared,
    evaluations: list[Any],
    told: dict[str, dict[str, Any]],
    allow_imports: bool,
) -> Path:
    """Write the report; `told` holds each run's gaps and worst levels, by label."""
    from rlgen.evaluation.from_runs.curricula import curricula_of
    from rlgen.evaluation.from_runs.metrics import metrics_of
    from rlgen.evaluation.from_runs.showcase import level_images, replays
    from rlgen.evaluation.report.curriculum_section import CurriculumSummary
    from rlgen.evaluation.report.report import write_report

    runs = {x.label: run for x, run in zip(prepared.loaded, prepared.runs, strict=True)}
    curricula = curricula_of(runs, allow_imports)
    for label, found in told.items():
        curricula[label] = curricula.get(label, CurriculumSummary())._replace(**found)
    # The first run, after the untrained baseline if there is one.
    first = evaluations[len(prepared.baseline)]
    gifs = replays(prepared.policies[0], prepared.suite, first)
    images, curves = level_images(prepared.suite), metrics_of(runs)
    return write_report(prepared.out, evaluations, images, gifs, curves, curricula=curricula)


def _reference(env: Any, gaps: str) -> Any:
    """Levels in place of every run's training set; None to use each run's own."""
    from rlgen.evaluation.suites import levels_from_file, load_suite

    if gaps in ("auto", "none"):
        return None
    is_file = Path(gaps).suffix == ".npz"
    return (levels_from_file(env, gaps) if is_file else load_suite(env, gaps)).levels


def _gaps_of(loaded: list[Any], tested: list[Any], seed: int, reference: Any) -> dict[str, Any]:
    """Generalisation gaps by label; runs without a finite training set are left out."""
    from rlgen.evaluation.generalisation.gap import measure
    from rlgen.runs.progress import counter

    found = {}
    for run, on_suite in zip(loaded, tested, strict=True):
        progress = counter(f"{run.label}, training set", "episodes")
        found[run.label] = measure(run, on_suite, seed, progress, reference)
    return {label: gaps for label, gaps in found.items() if gaps is not None}


def _worst_of(prepared: Prepared, tested: list[Any]) -> dict[str, Any]:
    """Scores on each run's worst levels, which are played again; by label."""
    from rlgen.evaluation.stats.cvar import worst_levels
    from rlgen.runs.progress import counter

    found = {}
    for one, first in zip(prepared.policies, tested, strict=True):
        progress = counter(f"{one.label}, once more", "episodes")
        found[one.label] = worst_levels(one, prepared.suite, first, progress=progress)
    return found


def _refuse_options_of_rules(given: Any) -> None:
    """Reject options that have no effect on policies."""
    for name, default in OF_RULES.items():
        # Compared with the default: the parsed options do not show which of them were given.
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
            "suite, such as maze/heldout; see rlgen list suites. By default heldout, or "
            "gridworld/unseen for rules. For rules, the name of a family, such as minatar, stands "
            "for all its suites",
        ),
        option(
            int, -1, "attempts", "episodes (or agents, for rules) per level and seed; -1: 10 (or 4)"
        ),
        option(int, 0, "lifetime", "rules: updates per agent; 0 for the environment's lifetime"),
        option(
            str,
            "",
            "horizons",
            "rules: evaluate at each of these lifetimes, such as 10,50,250, and compare them",
        ),
        flag("controls", "with --horizons: also test rules with uninformative clocks"),
        option(int, 64, "workers", "rules: number of parallel environments per agent"),
        option(int, 0, "levels", "rules: number of levels, from the start of the suite; 0 for all"),
        option(int, 0, "seed", "random seed of the evaluation"),
        option(
            str,
            "auto",
            "gaps",
            "auto: also evaluate runs with a finite training set on that set, for the "
            "generalisation gap and the level information; none: do not; name of a suite or a .npz "
            "file: treat its levels as the training set of every run",
        ),
        flag(
            "worst",
            "play the suite again, with other random numbers, for the score on each seed's worst "
            "levels (CVaR)",
        ),
        flag(
            "untrained", "add the first run's agents as they were before training, as the baseline"
        ),
        option(str, "", "out", "folder for results and report; by default RUN/eval/SUITE"),
        flag("overwrite", "replace existing results in the folder"),
        flag("json", "print only the results, as JSON, to standard output"),
        option(int, -1, "checkpoint", "update of the checkpoint to load; -1 for the newest"),
        flag("allow-imports", "import code outside rlgen that the run refers to"),
    ]
