"""Add a learned rule to the rules that ship with rlgen, with a card of its origin and performance.

    python scripts/ship_rule.py runs/ta-lpg --seed 0 --name grid-ta-lpg --test runs/ta-lpg/eval/...

The card is stored in the file's header and printed by `rlgen list rules --json`. It contains the
command that trained the rule, the seed, the cost of training, and the returns of new agents
relative to the optimum and to A2C. The agents are trained by the rule of the given seed. The script
does not measure the returns, but reads them from the results of a meta-test,
`rlgen eval RUN --suite SUITE`. After a meta-test with `--horizons`, the results are in the folders
`updates-*`.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlgen.algos.rules import files
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.from_runs.metrics import read_metrics
from rlgen.evaluation.report import results
from rlgen.evaluation.stats import relative
from rlgen.runs import folder

RULES = Path(__file__).parent.parent / "algos" / "rules"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read a run and the results of its meta-tests, and write the rule."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run that learned the rule")
    parser.add_argument("--seed", type=int, default=0, help="index of the seed (default: 0)")
    parser.add_argument("--name", required=True, help="name under which the rule ships")
    parser.add_argument(
        "--test", type=Path, nargs="+", required=True, help="folders of results of meta-tests"
    )
    parser.add_argument(
        "--out", type=Path, default=RULES, help="folder for the rule (default: algos/rules)"
    )
    given = parser.parse_args(arguments)
    learned = files.load_rule(given.run / "rules" / f"seed-{given.seed:03d}.npz")
    tests = [test_of(path, given.run.name, given.seed) for path in given.test]
    meta = learned.meta | {"card": {**origin_of(given.run), "meta_tests": tests}}
    path = given.out / f"{given.name}.npz"
    files.save_rule(path, learned.rule, learned.params, meta)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def origin_of(run: Path) -> dict[str, Any]:
    """Return the training command of a run and its cost."""
    spec, last = folder.read(run)["spec"], read_metrics(run / "metrics.jsonl")[-1]
    command = (
        f"rlgen train {spec['recipe']} --env {spec['env']} --preset {spec['preset']} "
        f"--steps {spec['steps']} --seeds {spec['seeds']} --seed {spec['seed']}"
    )
    return {
        "command": command,
        "env_steps": {name: float(x) for name, x in last["env_steps"].items()},
        "seconds": round(last["wall_seconds"]),  # wall time; all seeds are trained in parallel
    }


def test_of(path: Path, run: str, seed: int) -> dict[str, Any]:
    """Return the results of one seed's rule in a meta-test.

    Raises:
        SystemExit: If the results do not contain that run or that seed.
    """
    evaluations = results.load(path)
    own = [e for e in evaluations if e.run == run]
    if not own or seed >= len(own[0].episode_return):
        sys.exit(
            f"{path} contains no results of seed {seed} of {run}; it contains these runs: "
            + ", ".join(f"{e.run} ({len(e.episode_return)} seeds)" for e in evaluations)
        )
    one = dataclasses.replace(
        own[0], episode_return=own[0].episode_return[[seed]], length=own[0].length[[seed]]
    )
    told: dict[str, Any] = {
        "suite": one.suite,
        "levels": one.shape[1],
        "agents": one.shape[2],
        "updates": one.meta["lifetime"],
        "workers": one.meta["num_workers"],
        "optimum": iqm(relative.relative_to_optimum(one)),
    }
    baseline = relative.baseline_of(evaluations)
    if isinstance(baseline, Evaluation):
        told[baseline.run] = iqm(relative.relative_to(one, baseline))
    return told


def iqm(found: relative.Relative) -> list[float]:
    """Return the IQM of the relative return and, if an interval exists, its two bounds."""
    return [round(float(x), 4) for x in found.iqm[:3] if np.isfinite(x)]


if __name__ == "__main__":
    sys.exit(main())
