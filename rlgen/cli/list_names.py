"""`rlgen list`: names of what ships with rlgen, each with its first line of documentation.

Its options are read by argparse: tyro, which reads those of the other commands, takes longer to
import than the names take to list.
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
    "Names of what ships with rlgen, each with a line on what it is. Components of your own go by "
    "their dotted path: --env my_package.my_env"
)
KINDS = (*registry.KINDS, "suites", "rules")


def list_names(args: Sequence[str]) -> int:
    """Print the names of some kinds, or of all."""
    if "--shared-structure" in args:  # has options of its own
        from rlgen.cli.list_structure import show_structures

        return show_structures(args)
    given, unknown = _parser().parse_known_args(args)
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}; see `rlgen list --help`")
    for kind in given.kinds:
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r}; {registry.did_you_mean(kind, KINDS)}")
    # Suites are made by their environments, whose import takes seconds: only on request.
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
    some = f"some of {', '.join(KINDS)}; by default all but the last two"
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=some)
    parser.add_argument("--json", action="store_true", help="print only JSON")
    structure = "of envs: measure what their levels have in common; has options of its own"
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
