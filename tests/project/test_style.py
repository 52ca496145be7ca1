"""Limits and conventions for every file, so that each can be read on one screen or two."""

import ast
import re
import statistics
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.paths import ROOT

LIBRARY = ("rlgen/", "envs/", "algos/")

FILE_LINES, MEDIAN_LINES, FUNCTION_LINES, PARAMETERS, NESTING = 700, 150, 50, 7, 2

Function = ast.FunctionDef | ast.AsyncFunctionDef
BRANCHES = (ast.For, ast.While, ast.If, ast.Match)  # `with` and `try` do not branch
Check = Callable[[ast.Module], list[str]]

# One letter of each pattern is in brackets, so that this file passes its own test.
PRIVATE = {
    "a path of one machine": r"(?<![\w.~}])/(?:wor[k]|roo[t]|home/\w+|Users/\w+)/",
    "a package registry": r"pyp[i]\.org|pythonhoste[d]|registry\.npmj[s]|conda\.anacond[a]",
    "an index option": r"--(?:extra-)?index-ur[l]|--find-link[s]|--trusted-hos[t]",
}


def tracked() -> list[Path]:
    """Return every file that is tracked by git or would be on `git add`; links are left out."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    paths = [ROOT / name for name in out.split("\0") if name]
    return [path for path in paths if path.is_file() and not path.is_symlink()]


@cache
def python_files(*folders: str) -> dict[str, str]:
    """Return the text of Python files in the given folders (default: all), by relative path."""
    names = [p.relative_to(ROOT).as_posix() for p in tracked() if p.suffix == ".py"]
    return {n: (ROOT / n).read_text() for n in names if not folders or n.startswith(folders)}


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def depth(node: ast.AST) -> int:
    """Return the nesting depth of control flow in a node; `elif` and inner functions add none."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef):
            continue
        chained = isinstance(node, ast.If) and child in node.orelse and isinstance(child, ast.If)
        opens = isinstance(child, BRANCHES) and not chained
        deepest = max(deepest, opens + depth(child))
    return deepest


def long_functions(tree: ast.Module) -> list[str]:
    lines = {f: (f.end_lineno or 0) - f.lineno + 1 for f in functions(tree)}
    return [f"{f.name}: {n} lines" for f, n in lines.items() if n > FUNCTION_LINES]


def deep_functions(tree: ast.Module) -> list[str]:
    return [f"{f.name}: nested {depth(f)} deep" for f in functions(tree) if depth(f) > NESTING]


def wide_functions(tree: ast.Module) -> list[str]:
    found = []
    for function in functions(tree):
        arguments = function.args.posonlyargs + function.args.args + function.args.kwonlyargs
        names = [a.arg for a in arguments if a.arg not in ("self", "cls")]
        found += [f"{function.name}: {len(names)} parameters"] * (len(names) > PARAMETERS)
    return found


def shadowing_fields(tree: ast.Module) -> list[str]:
    """List fields of named tuples that hide the tuple's methods `index` and `count`."""
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    tuples = [c for c in classes if any("NamedTuple" in ast.unparse(b) for b in c.bases)]
    fields = [(c.name, f.target) for c in tuples for f in c.body if isinstance(f, ast.AnnAssign)]
    names = [(c, f.id) for c, f in fields if isinstance(f, ast.Name)]
    return [f"{c}.{field}" for c, field in names if field in ("index", "count")]


def loose_imports(tree: ast.Module) -> list[str]:
    """List star imports and postponed annotations, which would disable run-time checks."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    bad = [i for i in found if i.module == "__future__" or any(a.name == "*" for a in i.names)]
    return [f"line {i.lineno}: {ast.unparse(i)}" for i in bad]


def private_text(text: str) -> list[str]:
    """List text that belongs to one machine and not to the project."""
    lines = enumerate(text.splitlines(), 1)
    return [f"line {i}: {what}" for i, s in lines for what, p in PRIVATE.items() if re.search(p, s)]


def breaches(check: Check, *folders: str) -> str:
    """Return the breaches of a rule in the given folders (default: all), one per line."""
    trees = {name: parsed(text) for name, text in python_files(*folders).items()}
    return "\n".join(f"{name}: {said}" for name, tree in trees.items() for said in check(tree))


@pytest.mark.parametrize("check", [long_functions, wide_functions, shadowing_fields, loose_imports])
def test_every_file_keeps(check):
    assert breaches(check) == ""


def test_the_library_nests_little():
    assert breaches(deep_functions, *LIBRARY) == ""


def test_no_file_is_long():
    lengths = {name: len(text.splitlines()) for name, text in python_files().items()}
    del lengths["rlgen/protocols.py"]  # all interfaces are in one file on purpose
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}


def test_half_of_the_library_is_short():
    lengths = [len(text.splitlines()) for text in python_files(*LIBRARY).values()]
    assert statistics.median(lengths) < MEDIAN_LINES


def test_an_open_task_carries_its_issue():
    todo = re.compile(r"\bTOD[O]\b(?!\s*\(?#\d+)")
    assert [name for name, text in python_files().items() if todo.search(text)] == []


def test_no_file_names_a_machine_or_a_registry():
    said = []
    for path in tracked():
        text = path.read_bytes().decode(errors="replace")
        said += [f"{path.relative_to(ROOT)}: {what}" for what in private_text(text)]
    assert "\n".join(said) == ""


LONG = "def f():\n" + "    pass\n" * FUNCTION_LINES
DEEP = "def f():\n  for x in y:\n    if x:\n      while x:\n        pass"
CHAIN = "def f():\n  if a:\n    pass\n  elif b:\n    with x:\n      for x in y:\n        pass"
WIDE = "def f(self, a, b, c, d, e, /, f, *, g, h): ..."
FIELD = "class A(NamedTuple):\n  count: int"


@pytest.mark.parametrize(
    ("check", "bad", "good"),
    [
        (long_functions, LONG, LONG.removesuffix("    pass\n")),
        (deep_functions, DEEP, CHAIN),
        (wide_functions, WIDE, WIDE.replace(", h", "")),
        (shadowing_fields, FIELD, FIELD.replace("NamedTuple", "Counts")),
        (loose_imports, "from jax import *", "import jax"),
        (loose_imports, "from __future__ import annotations", "from jax import Array"),
    ],
)
def test_a_breach_is_seen(check, bad, good):
    assert check(ast.parse(bad)) != []
    assert check(ast.parse(good)) == []


@pytest.mark.parametrize(
    "parts",
    [("/ro", "ot/x"), ("see /wo", "rk/x"), ("/home", "/me/x"), ("https://py", "pi.org/simple")],
)
def test_private_text_is_seen(parts):
    assert private_text("fine\n" + "".join(parts)) != []


@pytest.mark.parametrize("text", ["framework/x", "run/work.txt", "~/work/x", "./root/x", "$HOME/x"])
def test_public_text_is_left_alone(text):
    assert private_text(text) == []
