"""`rlgen ladder`: evaluate runs on training levels, on new ones and under distribution shift."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rlgen.cli.options import Field, flag, option, parse, positional_runs

ABOUT = (
    "Evaluate runs on the rungs of the protocol ladder. V0: training levels; V1: new levels of the "
    "same distribution; V2: levels beyond the training range; V3: new combinations. The levels of "
    "each rung come from separate sets, the streams, which share no levels. Test streams are "
    "sealed: each evaluation is recorded in the run's folder. With --validation, evaluate on V0 "
    "and on validation levels, which are not sealed. With --env and no run, print the ladder of "
    "the environment."
)
FILES = ("ladder.json", "ladder.csv", "report.html")


class Prepared(NamedTuple):
    """Validated inputs of an evaluation on the ladder."""

    runs: dict[str, Path]  # by label
    loaded: dict[str, Any]  # zero_shot.Loaded
    ladder: Any
    out: Path
    updates: tuple[int, ...]  # numbers of updates in adaptation curves; () for none


def ladder(args: Sequence[str]) -> int:
    """Run `rlgen ladder`: evaluate every rung, save, print, and return the exit code."""
    given = parse(_fields(), "rlgen ladder", ABOUT, args)
    chosen = tuple(name for name in given.rungs.replace(" ", "").split(",") if name)
    updates = _numbers(given.few_shot)
    # Before a run is opened, options that are invalid for every run are rejected.
    _check(given, chosen, updates)
    if not given.runs:
        return _show_ladder(given, chosen)
    from rich.console import Console

    from rlgen.evaluation.ladder import report, score
    from rlgen.evaluation.ladder.table import print_scores
    from rlgen.evaluation.report.results import write

    prepared = _prepare(given, chosen, updates)
    played, adapted = _play(prepared, given)
    found = score.score_all(prepared.ladder, played, adapted)
    prepared.out.mkdir(parents=True, exist_ok=True)
    told = score.to_dict(found)
    write(prepared.out / "ladder.csv", score.to_csv(found).encode())
    text = json.dumps(told, indent=1, allow_nan=False)
    write(prepared.out / "ladder.json", text.encode())
    page = report.write_page(prepared.out, found)
    if given.json:
        print(json.dumps(told, allow_nan=False))
        return 0
    print_scores(found, Console())
    print(f"The report is {page}")
    return 0


def _check(given: Any, chosen: Sequence[str], updates: Sequence[int]) -> None:
    """Reject options that are invalid regardless of the runs."""
    from rlgen.evaluation.ladder import few_shot, ladder

    if given.runs and given.env:
        raise ValueError("give either runs or --env, not both; a run determines its environment")
    if not given.runs and not given.env:
        raise ValueError("give the folder of a run (rlgen ladder RUN) or an environment (--env)")
    ladder.check(given.levels, chosen)
    if given.attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {given.attempts}")
    if given.adapt_levels < 1:
        raise ValueError(f"adapt-levels must be at least 1, got {given.adapt_levels}")
    if updates:
        few_shot.check_updates(updates)


def _show_ladder(given: Any, chosen: Sequence[str]) -> int:
    """Print the ladder of an environment."""
    from rich.console import Console

    from rlgen import registry
    from rlgen.evaluation.ladder.ladder import climb
    from rlgen.evaluation.ladder.score import ladder_dict
    from rlgen.evaluation.ladder.table import print_ladder

    env = registry.make_env(given.env)
    found = climb(env, given.levels, chosen=chosen, validation=given.validation)
    if given.json:
        print(json.dumps(ladder_dict(found), allow_nan=False))
    else:
        print_ladder(found, Console())
    return 0


def _prepare(given: Any, chosen: Sequence[str], updates: tuple[int, ...]) -> Prepared:
    """Open and validate all inputs, before anything is played."""
    from rlgen.evaluation import load_runs as checks
    from rlgen.evaluation import zero_shot
    from rlgen.evaluation.ladder import few_shot
    from rlgen.evaluation.ladder.ladder import climb, trained_on
    from rlgen.evaluation.report import results

    at = None if given.checkpoint < 0 else given.checkpoint
    opened = [checks.open_run(Path(run), at, given.allow_imports) for run in given.runs]
    rules = [str(run.path) for run in opened if run.is_rule]
    if rules:
        raise ValueError(
            f"{', '.join(rules)} learned a rule, and rules are tested by training agents; use "
            "rlgen eval RUN --horizons 10,50,250"
        )
    checks.check_labels([(run.path.name, str(run.path)) for run in opened])
    envs = {str(run.path): run.env for run in opened}
    checks.check_environments(envs)
    _check_distribution(envs)
    out = Path(given.out) if given.out else opened[0].path / "eval" / _name(given.validation)
    results.check_free(out, given.overwrite, FILES)
    loaded, trained = {}, {}
    for run in opened:
        with checks.naming(run.path):
            one = zero_shot.load_states(run.path, at, False, given.allow_imports)
            loaded[one.label] = one
            trained[one.label] = trained_on(run.path, one, given.allow_imports)
            if updates:
                # Only a check: `student_of` raises an error if the run has no policy to adapt.
                few_shot.student_of(one.curriculum, one.env)
    curricula = [one.curriculum for one in loaded.values()]
    found = climb(opened[0].env, given.levels, trained, curricula, chosen, given.validation)
    runs = {label: run.path for label, run in zip(loaded, opened, strict=True)}
    for rung in found.rungs:
        # All rungs are checked for all runs before the first episode, because evaluations on sealed
        # streams are counted and cannot be undone.
        checks.check_playable(envs, rung.stream.suite)
        checks.check_countable(list(runs.values()), rung.stream.suite)
    if not any(found.of(run) for run in runs):
        raise ValueError(f"no levels to evaluate on: {'; '.join(found.missing)}")
    return Prepared(runs, loaded, found, out, updates)


def _check_distribution(envs: dict[str, Any]) -> None:
    """Reject runs with different training distributions, which have no rung V1 in common."""
    from rlgen import config

    (first, env), *others = envs.items()
    for run, other in others:
        one, two = config.flatten(env), config.flatten(other)
        unlike = [f"{k} {one.get(k)} and {two.get(k)}" for k in one if one.get(k) != two.get(k)]
        if unlike:
            raise ValueError(
                f"{first} and {run} sample their levels differently ({', '.join(unlike[:3])}), "
                "so they have no common V1; run rlgen ladder for each separately"
            )


def _play(prepared: Prepared, given: Any) -> tuple[dict[str, list], dict[str, list]]:
    """Return the evaluations and the adaptation curves of each run on every rung, by run label."""
    from rlgen.evaluation import zero_shot
    from rlgen.evaluation.load_runs import play
    from rlgen.runs.progress import counter

    played, adapted = {}, {}
    for label, run in prepared.runs.items():
        policies = zero_shot.policies_of(prepared.loaded[label])
        played[label] = [
            play(
                policies,
                rung.stream.suite,
                given.attempts,
                given.seed,
                counter(f"{label} on {rung.rung} {rung.name}", "episodes"),
                run,
            )
            for rung in prepared.ladder.of(label)
        ]
        adapted[label] = [
            (rung, _adapt(prepared, label, policies, rung, given))
            for rung in prepared.ladder.rungs
            if prepared.updates and len(rung.stream.suite.levels) > 1
        ]
    return played, adapted


def _adapt(prepared: Prepared, label: str, policies: Any, rung: Any, given: Any) -> Any:
    """Compute one adaptation curve: scores of agents after some updates on levels of the rung.

    At most half of the rung's levels are used for adaptation. The other levels are used for
    scoring.
    """
    from rlgen.evaluation.ladder import few_shot
    from rlgen.runs.progress import counter
    from rlgen.runs.test_set_access import count_access

    suite = rung.stream.suite
    # No agent is scored on a level that it adapted on.
    num = min(given.adapt_levels, len(suite.levels) // 2)
    levels, rest = few_shot.split(suite, num)
    found = few_shot.adapt(
        policies,
        prepared.loaded[label].curriculum,
        rest,
        levels,
        prepared.updates,
        few_shot.Play(given.attempts, given.seed),
        counter(f"{label} adapts on {rung.rung} {rung.name}", "points"),
    )
    facts = {"update": policies.meta.get("update"), "few_shot": num, "seed": given.seed}
    levels = suite.levels
    # Adaptation is recorded in addition to the evaluation of the unadapted agent.
    num = count_access(prepared.runs[label], suite.name, levels.version, levels.split, **facts)
    return found._replace(look=num)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(one) for one in text.split(",") if one.strip())
    except ValueError as error:
        raise ValueError(
            f"few-shot must be numbers of updates, such as 0,1,2,5,10,20; got {text!r}"
        ) from error


def _name(validation: bool) -> str:
    return "ladder-validation" if validation else "ladder"


def _fields() -> list[Field]:
    return [
        positional_runs("folders of runs in the same environment"),
        option(str, "", "env", "without a run: print the ladder of this environment"),
        option(int, 100, "levels", "number of levels per stream; suites may have fewer levels"),
        option(int, 10, "attempts", "episodes per level and seed"),
        option(str, "V0,V1,V2,V3", "rungs", "rungs to evaluate"),
        option(
            str,
            "",
            "few-shot",
            "numbers of updates, such as 0,1,2,5: train the agents on some levels of each rung, "
            "and score them on its other levels after each of these numbers of updates",
        ),
        option(
            int,
            16,
            "adapt-levels",
            "with --few-shot: levels per rung to train on, at most half of the rung",
        ),
        flag("validation", "use only V0 and the validation stream, which is not sealed"),
        option(int, 0, "seed", "random seed of the evaluation"),
        option(str, "", "out", "folder for results; by default RUN/eval/ladder"),
        flag("overwrite", "replace existing results in the folder"),
        flag("json", "print only the results, as JSON, to standard output"),
        option(int, -1, "checkpoint", "update of the checkpoint to load; -1 for the newest"),
        flag("allow-imports", "import modules outside rlgen that the runs' records name"),
    ]
