"""Zero-shot evaluation of trained runs in plain Python.

    python scripts/evaluate.py runs/plr-maze-0 [more runs] --suite maze/heldout --out report

Every seed of every run plays every level of a held-out suite without further training. The script
prints a table, and writes figures and `report.html` with scores and confidence intervals. The
script does the same as `rlgen eval`. Copy this file and adapt the copy.
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
    """Play the suite, print the table, and write results and report."""
    parser = argparse.ArgumentParser(description="Evaluate runs zero-shot.")
    parser.add_argument("runs", nargs="+", help="run folders")
    parser.add_argument("--suite", default="maze/heldout", help="suite (default: %(default)s)")
    parser.add_argument(
        "--attempts", type=int, default=10, help="episodes per level and seed (default: 10)"
    )
    parser.add_argument(
        "--out", default="report", help="folder for results and report (default: %(default)s)"
    )
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
