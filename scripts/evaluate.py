"""Evaluate trained runs zero-shot in plain Python: copy this file and change what you like.

    python scripts/evaluate.py runs/plr-maze-0 [more runs] --suite maze/heldout --out report

Does what `rlgen eval` does: every seed of every run plays every held-out level, nothing is learned,
and the table, the figures and `report.html` state how sure one can be.
"""

import argparse

from rich.console import Console

from rlgen.evaluation.from_runs.showcase import level_images, replays
from rlgen.evaluation.report import results
from rlgen.evaluation.report.report import write_report
from rlgen.evaluation.report.terminal import print_table
from rlgen.evaluation.stats.findings import analyse
from rlgen.evaluation.suites import load_suite
from rlgen.evaluation.zero_shot import evaluate, load_policies


def main() -> None:
    """Parse, play, print, write."""
    parser = argparse.ArgumentParser(description="Evaluate runs zero-shot.")
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--suite", default="maze/heldout")
    parser.add_argument("--attempts", type=int, default=10, help="episodes on each level")
    parser.add_argument("--out", default="report", help="folder for results and report")
    options = parser.parse_args()
    results.check_free(options.out)

    policies = [load_policies(run) for run in options.runs]
    suite = load_suite(policies[0].env, options.suite)
    evaluations = [evaluate(who, suite, options.attempts) for who in policies]

    print_table(analyse(evaluations), Console())
    results.save(options.out, evaluations)
    gifs = replays(policies[0], suite, evaluations[0])
    print(write_report(options.out, evaluations, level_images(suite), gifs))


if __name__ == "__main__":
    main()
