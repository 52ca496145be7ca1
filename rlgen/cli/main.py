"""The command `rlgen`: list, train, eval and more. `python -m rlgen` is the same.

Nothing heavy is imported before a command needs it, so that help and lists are quick: a command is
named by where its function stands, and not by the function. Subcommands of tyro or argparse would
need every option of a command before it is chosen, and those of `rlgen train RECIPE` are the fields
of components that its arguments name.

Wrong input ends with one line on standard error and exit code 2; a run that stopped on its own with
1, by Ctrl-C with 130, by SIGTERM with 143. With `RLGEN_TRACEBACK=1` errors keep their traceback.
"""

import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rlgen import __version__, registry


class Command(NamedTuple):
    """One command of the command line."""

    about: str
    function: str  # `module:function(args) -> exit code`, imported when the command is run


COMMANDS = {
    "list": Command(
        "what there is: recipes, environments, learners, samplers, scores, suites, rules",
        "rlgen.cli.list_names:list_names",
    ),
    "train": Command(
        "train a method on an environment, or resume a run",
        "rlgen.cli.train:train",
    ),
    "eval": Command(
        "how runs do on a suite of held-out levels, with confidence intervals and a report",
        "rlgen.cli.eval:evaluate",
    ),
    "compare": Command(
        "runs of several methods in one report: ranks, differences, costs",
        "rlgen.cli.compare:compare",
    ),
    "ladder": Command(
        "how runs do on ever stranger levels: the same, new ones, beyond the training range",
        "rlgen.cli.ladder:ladder",
    ),
    "card": Command(
        "how hard an environment's levels are, without training anybody",
        "rlgen.cli.card:card",
    ),
    "levels": Command(
        "a picture of levels: sampled ones, a suite, a file, or a run's replay buffer",
        "rlgen.cli.levels:levels",
    ),
    "import-rule": Command(
        "an update rule that was trained elsewhere, as a rule file",
        "rlgen.cli.import_rule:import_rule",
    ),
    "fit-generator": Command(
        "a generative model of a set of levels, for DRED, with a report on what it makes",
        "rlgen.cli.fit_generator:fit_generator",
    ),
}

HELP = """usage: rlgen COMMAND ...

Train agents on procedurally generated levels, and see how they do on levels they never saw.

commands:
{commands}

  rlgen train robust-plr --env maze --steps 5e6 --seeds 4 --out runs/plr
  rlgen eval runs/plr --suite maze/heldout --attempts 100 --out report

`rlgen COMMAND --help` lists the options of a command, and `rlgen train RECIPE --help` every
hyperparameter of a method with its default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {name:<{width}}  {command.about}" for name, command in COMMANDS.items()]
        print(HELP.format(commands="\n".join(lines)))
        return 0
    if args[0] == "--version":
        print(f"rlgen {__version__}")
        return 0
    try:
        if args[0] not in COMMANDS:
            known = registry.did_you_mean(args[0], COMMANDS)
            raise ValueError(f"unknown command {args[0]!r}; {known}")
        return pkgutil.resolve_name(COMMANDS[args[0]].function)(args[1:])
    except SystemExit as stop:  # help was printed
        return int(stop.code or 0)
    except ValueError as error:
        if os.environ.get("RLGEN_TRACEBACK"):
            raise
        print(f"rlgen: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `rlgen list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
