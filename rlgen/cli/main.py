"""The command `rlgen` with its subcommands; `python -m rlgen` is equivalent.

Slow imports are deferred until a command needs them, so that help and lists are fast. `COMMANDS`
therefore contains the path of each command's function, not the function itself.

The subcommands of tyro and argparse are not used, because they need all options of a command before
the command is chosen. The options of `rlgen train RECIPE` are the fields of the components that the
arguments name, so they are not known before the arguments are read.

Invalid input prints one line to standard error and ends with exit code 2. A failed run ends with
exit code 1. The exit code is 130 after Ctrl-C and 143 after SIGTERM. With `RLGEN_TRACEBACK=1`,
invalid input shows a traceback.
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
        "list the recipes, environments, learners, samplers, scores, suites and rules",
        "rlgen.cli.list_names:list_names",
    ),
    "train": Command(
        "train a method on an environment, or resume a run",
        "rlgen.cli.train:train",
    ),
    "eval": Command(
        "evaluate runs on held-out levels, with confidence intervals and a report",
        "rlgen.cli.eval:evaluate",
    ),
    "compare": Command(
        "compare several methods in one report: ranks, differences, costs",
        "rlgen.cli.compare:compare",
    ),
    "ladder": Command(
        "evaluate runs on training levels, new levels, and levels beyond the training range",
        "rlgen.cli.ladder:ladder",
    ),
    "card": Command(
        "measure the difficulty of an environment's levels without training agents",
        "rlgen.cli.card:card",
    ),
    "levels": Command(
        "draw levels: sampled levels, a suite, a file, or a run's replay buffer",
        "rlgen.cli.levels:levels",
    ),
    "import-rule": Command(
        "convert an update rule that was trained elsewhere to a rule file",
        "rlgen.cli.import_rule:import_rule",
    ),
    "fit-generator": Command(
        "fit a generative model on a set of levels, for DRED, with a report",
        "rlgen.cli.fit_generator:fit_generator",
    ),
}

HELP = """usage: rlgen COMMAND ...

Train agents on procedurally generated levels and evaluate them on unseen levels.

commands:
{commands}

  rlgen train robust-plr --env maze --steps 5e6 --seeds 4 --out runs/plr
  rlgen eval runs/plr --suite maze/heldout --attempts 100 --out report

`rlgen COMMAND --help` lists the options of a command. `rlgen train RECIPE --help` lists every
hyperparameter of a method with its default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
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
        # This imports only the module of the chosen command.
        return pkgutil.resolve_name(COMMANDS[args[0]].function)(args[1:])
    except SystemExit as stop:  # raised after the help was printed
        return int(stop.code or 0)
    # Invalid input raises a ValueError everywhere in rlgen; any other exception is a bug and keeps
    # its traceback.
    except ValueError as error:
        if os.environ.get("RLGEN_TRACEBACK"):
            raise
        print(f"rlgen: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    # This error is raised for example in `rlgen list | head`. The flush at exit must not raise it
    # again.
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
