"""`rlgen list`: names of the components in rlgen, each with the first line of its documentation.

This command uses argparse, because importing tyro takes longer than listing the names. The other
commands use tyro.
"""

import argparse
import ast
import importlib.util
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from rlgen import registry

ABOUT = (
    "List the components that ship with rlgen, each with a short description. Components outside "
    "rlgen are given by their dotted path, such as --env my_package.my_env"
)
KINDS = (*registry.KINDS, "suites", "rules")


def list_names(args: Sequence[str]) -> int:
    """Run `rlgen list`: print the components of the given kinds, and return the exit code."""
    if "--shared-structure" in args:  # a separate command with different options
        from rlgen.cli.list_structure import show_structures

        return show_structures(args)
    given, unknown = _parser().parse_known_args(args)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; see `rlgen list --help`")
    for kind in given.kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; {registry.did_you_mean(kind, KINDS)}")
    # Suites are listed only on request: they are defined by environments, and importing all
    # environments takes seconds.
    found = {kind: _described(kind) for kind in given.kinds or registry.KINDS}
    if given.json:
        print(json.dumps(found | _cards(given.kinds)))
        return 0
    for kind, entries in found.items():
        width = max(map(len, entries), default=0)
        print(f"{kind}:")
        for name, about in entries.items():
            below = _variants(name) if given.kinds and kind == "envs" else []
            print(f"\n    {'':<{width}}".join([f"  {name:<{width}}  {about}".rstrip(), *below]))
    if not given.kinds:
        print("suites, rules: see `rlgen list suites`, `rlgen list rules`")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("rlgen list", description=ABOUT, allow_abbrev=False)
    some = f"one or more of {', '.join(KINDS)}; by default all except suites and rules"
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=some)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    structure = "measure how much structure levels share; see rlgen list --shared-structure --help"
    parser.add_argument("--shared-structure", action="store_true", help=structure)
    return parser


def _described(kind: str) -> dict[str, str]:
    if kind == "suites":
        from rlgen.evaluation.suites import suite_names

        return dict.fromkeys(suite_names(), "")
    if kind == "rules":
        from rlgen.evaluation.meta.trainees import described

        return described()
    return {name: _first_line(module) for name, module in sorted(registry.modules(kind).items())}


def _cards(wanted: Sequence[str]) -> dict[str, dict]:
    """Metadata of the shipped rules (command, budget, meta-test results); {} unless requested."""
    if "rules" not in wanted:
        return {}
    from rlgen.evaluation.meta.trainees import cards

    return {"rules": cards()}


def _variants(name: str) -> list[str]:
    """Names of the variants of an environment, as lines; the environment's module is imported."""
    known = [f"{name}/{variant}" for variant in registry.variants(registry.load("envs", name))]
    return textwrap.wrap(", ".join(known), width=76, break_on_hyphens=False)


def _first_line(module: str) -> str:
    """The first line of a module's docstring, without importing the module."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""
    return text.partition("\n")[0]
