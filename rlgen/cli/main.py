"""The command `rlgen`: list, train, eval and more. `python -m rlgen` is the same.

Nothing heavy is imported before a command needs it, so that help and lists are quick. Wrong input
ends with one line on standard error and exit code 2; a run that stopped on its own with 1, by
Ctrl-C with 130, by SIGTERM with 143. With `RLGEN_TRACEBACK=1` errors keep their traceback.
"""

import ast
import importlib.util
import json
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from rlgen import __version__, registry

HELP = """usage: rlgen COMMAND ...

Train agents on procedurally generated levels, and see how they do on levels they never saw.

commands:
  list     what is in the box: recipes, environments, learners, samplers, scores, suites, rules
  train    train a method on an environment, or resume a run
  eval     how runs do on a suite of held-out levels, with confidence intervals and a report
  compare  runs of several methods in one report: ranks, differences, costs
  ladder   how runs do on ever stranger levels: the same, new ones, beyond the training range
  card     how hard an environment's levels are, without training anybody
  levels   a picture of levels: sampled ones, a suite, a file, or a run's replay buffer
  import-rule  an update rule that was trained elsewhere, as a rule file
  fit-generator  a generative model of a set of levels, for DRED, with a report on what it makes

  rlgen train robust-plr --env maze --steps 5e6 --seeds 4 --out runs/plr
  rlgen eval runs/plr --suite maze/heldout --attempts 100 --out report

`rlgen COMMAND --help` lists the options of a command, and `rlgen train RECIPE --help` every
hyperparameter of a method with its default."""

LIST_HELP = """usage: rlgen list [KIND] [--json]
       rlgen list envs --shared-structure

Names of what ships with rlgen. KIND is one of {kinds}.
Components of your own go by their dotted path: --env my_package.my_env"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if args[0] == "--version":
        print(f"rlgen {__version__}")
        return 0
    try:
        if args[0] not in COMMANDS:
            known = registry.did_you_mean(args[0], COMMANDS)
            raise ValueError(f"unknown command {args[0]!r}; {known}")
        return COMMANDS[args[0]](args[1:])
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


def list_names(args: Sequence[str]) -> int:
    """`rlgen list`: names, each with its first line of documentation."""
    kinds = [*registry.KINDS, "suites", "rules"]
    if "-h" in args or "--help" in args:
        print(LIST_HELP.format(kinds=", ".join(kinds)))
        return 0
    if "--shared-structure" in args:
        return _shared_structure([arg for arg in args if arg != "--shared-structure"])
    wanted = [arg for arg in args if arg != "--json"]
    for arg in wanted:
        if arg not in kinds:
            raise ValueError(f"unknown kind {arg!r}; {registry.did_you_mean(arg, kinds)}")
    # Suites are made by their environments, whose import takes seconds: only on request.
    found = {kind: _described(kind) for kind in wanted or registry.KINDS}
    if "--json" in args:
        print(json.dumps(found | _cards(wanted)))
        return 0
    for kind, entries in found.items():
        width = max(map(len, entries), default=0)
        print(f"{kind}:")
        for name, about in entries.items():
            below = _variants(name) if wanted and kind == "envs" else []
            print(f"\n    {'':<{width}}".join([f"  {name:<{width}}  {about}".rstrip(), *below]))
    if not wanted:
        print("suites, rules: see `rlgen list suites`, `rlgen list rules`")
    return 0


def _shared_structure(args: Sequence[str]) -> int:
    from rlgen.cli.list_structure import show_structures

    if args and not args[0].startswith("-"):
        if args[0] != "envs":
            raise ValueError(f"--shared-structure is of envs, not {args[0]}: rlgen list envs")
        args = args[1:]
    return show_structures(args)


def _described(kind: str) -> dict[str, str]:
    if kind == "suites":
        from rlgen.evaluation.suites import suite_names

        return dict.fromkeys(suite_names(), "")
    if kind == "rules":
        from rlgen.evaluation.meta.trainees import described

        return described()
    return {name: _first_line(module) for name, module in sorted(registry.modules(kind).items())}


def _cards(wanted: Sequence[str]) -> dict[str, dict]:
    """Of rules, all that their files say: command, budget, measured meta-tests."""
    if "rules" not in wanted:
        return {}
    from rlgen.evaluation.meta.trainees import cards

    return {"rules": cards()}


def _variants(name: str) -> list[str]:
    """The variants of an environment, in lines; imports it, which takes a moment."""
    known = [f"{name}/{variant}" for variant in registry.variants(registry.load("envs", name))]
    return textwrap.wrap(", ".join(known), width=76, break_on_hyphens=False)


def _first_line(module: str) -> str:
    """The first line of a module's docstring, without importing the module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return text.partition("\n")[0]


def train(args: Sequence[str]) -> int:
    """`rlgen train`."""
    from rlgen.cli.train import train

    return train(args)


def evaluate(args: Sequence[str]) -> int:
    """`rlgen eval`."""
    from rlgen.cli.eval import evaluate

    return evaluate(args)


def compare(args: Sequence[str]) -> int:
    """`rlgen compare`."""
    from rlgen.cli.compare import compare

    return compare(args)


def ladder(args: Sequence[str]) -> int:
    """`rlgen ladder`."""
    from rlgen.cli.ladder import ladder

    return ladder(args)


def card(args: Sequence[str]) -> int:
    """`rlgen card`."""
    from rlgen.cli.card import card

    return card(args)


def levels(args: Sequence[str]) -> int:
    """`rlgen levels`."""
    from rlgen.cli.levels import levels

    return levels(args)


def import_rule(args: Sequence[str]) -> int:
    """`rlgen import-rule`."""
    from rlgen.cli.import_rule import import_rule

    return import_rule(args)


def fit_generator(args: Sequence[str]) -> int:
    """`rlgen fit-generator`."""
    from rlgen.cli.fit_generator import fit_generator

    return fit_generator(args)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "list": list_names,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "ladder": ladder,
    "card": card,
    "levels": levels,
    "import-rule": import_rule,
    "fit-generator": fit_generator,
}
