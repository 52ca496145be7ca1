"""Find saved results of a run that match a requested evaluation.

If there are such results, the evaluation is not repeated. Results are used only if they agree with
their digests, so that a damaged or edited file does not decide a comparison.
"""

import dataclasses
from pathlib import Path

import numpy as np

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.load_runs import Opened
from rlgen.evaluation.report import results
from rlgen.levels import Suite


def saved_folder(run: Opened, suite: Suite, attempts: int, seed: int) -> Path:
    """Folder to which `rlgen compare` saves an evaluation; `rlgen eval` uses a different folder."""
    name = suite.name.replace("/", "-")
    return run.path / "eval" / f"{name}-{attempts}-attempts-seed-{seed}-update-{run.update}"


def find_saved(
    run: Opened, suite: Suite, attempts: int, seed: int
) -> tuple[Evaluation | None, list[str]]:
    """Find a run's saved results of exactly the requested evaluation.

    Returns:
        The evaluation, or None if no saved results match. The second value lists, for each folder
        whose results were not used, the reason.
    """
    by_eval = run.path / "eval" / suite.name.replace("/", "-")
    # The folder of `rlgen compare` comes first, because its name identifies the evaluation.
    places = (saved_folder(run, suite, attempts, seed), by_eval)
    passed = []
    for place in places:
        if not (place / "results.json").is_file():
            continue
        try:
            found = results.read(place)
        except ValueError as error:
            # If results cannot be read, the run is evaluated again and the reason is reported.
            passed.append(str(error))
            continue
        # A folder of `rlgen eval` may hold results of several runs.
        own = [e for e in found.evaluations if e.run == run.path.name]
        wrong = _other_than(own[0], run, suite, attempts, seed) if own else "of other runs"
        if not wrong and not found.is_verified:
            wrong = (
                "without a digest, because an older version of rlgen saved it, so changes of its "
                "files would not be noticed"
            )
        if not wrong:
            return dataclasses.replace(own[0], meta=own[0].meta | {"saved_in": str(place)}), passed
        passed.append(f"{place} is {wrong}")
    return None, passed


def _other_than(e: Evaluation, run: Opened, suite: Suite, attempts: int, seed: int) -> str:
    """First difference between a saved evaluation and the requested one; "" if they match."""
    bits = np.asarray(suite.levels.hash)
    same_levels = e.level_names == suite.levels.names and np.array_equal(e.level_hashes, bits)
    facts = {
        "suite": (e.suite, suite.name),
        "suite version": (e.suite_version, suite.levels.version),
        "levels": (same_levels, True),
        # `meta["seeds"]` is the first and the last seed; `run.seeds` is a range.
        "seeds": (e.meta.get("seeds"), [run.seeds.start, run.seeds.stop - 1]),
        "number of seeds": (e.shape[0], run.spec.seeds),
        "update": (e.meta.get("update"), run.update),
        "env steps": (e.meta.get("env_steps"), run.env_steps),
        "attempts": (e.shape[2], attempts),
        "evaluation seed": (e.meta.get("evaluation_seed"), seed),
    }
    for name, (found, asked) in facts.items():
        if found != asked:
            return "of other levels" if name == "levels" else f"of {name} {found}, not {asked}"
    return ""
