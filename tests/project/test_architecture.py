"""Which module may know which, and what no module may do. The rules are DESIGN.md's, section 1."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A part imports from its own layer and those above it here. A new one is added where it belongs.
LAYERS = (
    {"__init__", "types"},
    {"protocols"},
    {
        "bonuses",
        "branching",
        "buffer",
        "codec",
        "distributions",
        "gru",
        "initializers",
        "levels",
        "linear_recurrence",
        "lstm",
        "normalization",
        "registry",
        "returns",
        "optimizers",
        "packing",
        "simplex",
        "tasks",
    },
    {"approximators", "cells", "config", "networks", "rollout"},
    {"policy_return"},
    {"curriculum", "evaluation", "gymnax", "runs", "sharding", "students", "testing"},
    {"envs", "algos"},
    {"__main__", "cli"},
)
PIECES = {  # private modules, by how their names begin, and the part that they belong to
    "_cli_": "cli",
    "_from_gymnax": "gymnax",
    "_gymnax_hook": "__init__",
    "_laws_": "testing",
    "_network_": "networks",
    "_probes": "testing",
}
STRANGERS = {"envs", "algos"}  # of one layer, but neither knows the other

STEPPERS = {"envs", "gymnax", "rollout", "tasks", "testing"}
UNJITTED = {
    "approximators",
    "optimizers",
    "packing",
    "policy_return",
    "rollout",
    "students",
    "curriculum",
    "returns",
    "buffer",
    "networks",
    "cells",
    "branching",
}
HOST_JITS = {"rlgen.algos.samplers.fixed"}  # samples its training set once, before the run


def library() -> dict[str, ast.Module]:
    """Syntax tree of every module of rlgen by its dotted name; packages end in `.__init__`."""
    trees = {}
    for top, package in (("rlgen", "rlgen"), ("envs", "rlgen.envs"), ("algos", "rlgen.algos")):
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT / top)
            if top == "rlgen" and inside.parts[0] in ("envs", "algos"):
                continue  # the links, where they are followed
            trees[".".join([package, *inside.with_suffix("").parts])] = ast.parse(path.read_text())
    return trees


def imports(name: str, nodes: Iterator[ast.AST], known: set[str]) -> set[str]:
    """The modules of rlgen that the given nodes of module `name` import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        found |= {resolved(target, known) for target in targets if target.split(".")[0] == "rlgen"}
    return found


def resolved(target: str, known: set[str]) -> str:
    """The module in which a dotted name lies: itself, a package, or where it is defined."""
    for module in (target, f"{target}.__init__", target.rpartition(".")[0]):
        if module in known:
            return module
    return f"{target.rpartition('.')[0]}.__init__"


def part(module: str) -> str:
    """What the layers speak of: a folder or a module of rlgen, whose pieces count as the whole."""
    name = module.split(".")[1]
    return next((whole for piece, whole in PIECES.items() if name.startswith(piece)), name)


def layer(module: str) -> int:
    ranks = [rank for rank, parts in enumerate(LAYERS) if part(module) in parts]
    assert ranks, f"{module} is in no layer; add {part(module)!r} to LAYERS"
    return ranks[0]


def outward_imports(trees: dict[str, ast.Module], known: set[str]) -> list[str]:
    """Imports, among the known modules, of one that its importer should not know of."""
    wrong = []
    for name, tree in trees.items():
        for target in imports(name, ast.walk(tree), known):
            strange = {part(name), part(target)} == STRANGERS
            if strange or layer(target) > layer(name):
                wrong.append(f"{name} imports {target}")
    return wrong


def circular_imports(trees: dict[str, ast.Module]) -> list[str]:
    """A ring of modules that import each other when loaded; imports inside functions are lazy."""
    known = set(trees)
    graph = {name: imports(name, iter(tree.body), known) - {name} for name, tree in trees.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def uses_of(trees: dict[str, ast.Module], names: set[str]) -> list[str]:
    """Where an attribute or an imported name of the given names is used."""
    found = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                used = {node.attr}
            elif isinstance(node, ast.ImportFrom):
                used = {alias.name for alias in node.names}
            else:
                continue
            found += [f"{module}:{node.lineno} uses {name}" for name in used & names]
    return found


def outside_steppers(trees: dict[str, ast.Module]) -> dict[str, ast.Module]:
    return {m: t for m, t in trees.items() if part(m) not in STEPPERS}


def never_jitted(trees: dict[str, ast.Module]) -> dict[str, ast.Module]:
    inside = UNJITTED | {"algos"}
    return {m: t for m, t in trees.items() if part(m) in inside and m not in HOST_JITS}


def test_imports_point_inwards():
    assert "\n".join(outward_imports(library(), set(library()))) == ""


def test_no_modules_import_each_other_in_a_ring():
    assert circular_imports(library()) == []


def test_only_the_rollout_steps_environments():
    assert "\n".join(uses_of(outside_steppers(library()), {"step_env"})) == ""


def test_training_code_never_jits():
    assert "\n".join(uses_of(never_jitted(library()), {"jit", "pmap", "filter_jit"})) == ""


def test_the_checks_see_the_whole_library():
    names = set(library())
    assert {"rlgen.types", "rlgen.envs.maze", "rlgen.algos.learners.ppo"} <= names
    shipped = {p for p in (ROOT / "rlgen").iterdir() if p.suffix == ".py"}
    assert len([n for n in names if n.count(".") == 1]) == len(shipped)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("rlgen.types", "from rlgen.protocols import Learner"),
        ("rlgen.types", "from rlgen import protocols"),
        ("rlgen.students", "def build():\n    import rlgen.envs.maze"),
        ("rlgen.registry", "from .algos import learners"),
        ("rlgen.envs.maze", "from rlgen.algos.learners import ppo"),
        ("rlgen.algos.learners.ppo", "from ...envs.maze import Maze"),
    ],
)
def test_an_outward_import_is_seen(module, source):
    assert outward_imports({module: ast.parse(source)}, set(library())) != []


def test_a_ring_of_imports_is_seen():
    ring = {"rlgen.types": "import rlgen.levels", "rlgen.levels": "from rlgen.types import Key"}
    assert circular_imports({name: ast.parse(source) for name, source in ring.items()}) != []


@pytest.mark.parametrize(
    "source",
    ["jax.jit(f)", "@partial(jax.jit, donate_argnums=0)\ndef f(): ...", "from jax import jit"],
)
def test_a_jit_in_training_code_is_seen(source):
    trees = {"rlgen.algos.learners.mine": ast.parse(source)}
    assert uses_of(never_jitted(trees), {"jit"}) != []


def test_a_step_outside_the_rollout_is_seen():
    trees = {"rlgen.algos.scores.mine": ast.parse("jax.vmap(env.step_env)(keys, state, action)")}
    assert uses_of(outside_steppers(trees), {"step_env"}) != []


# What rlgen imports from others comes first: their own effects are not ours to answer for.
IMPORT_ALL = """
import importlib, logging, os, random, sys, warnings
import jax, flax, optax, gymnax, numpy, rich.progress, scipy.stats, tyro
import matplotlib, matplotlib.pyplot, orbax.checkpoint, PIL.Image

def world():
    kind, numbers, position, *_ = numpy.random.get_state()
    return {
        "environment": dict(os.environ),
        "jax.config": dict(jax.config.values),
        "random": random.getstate(),
        "numpy.random": (kind, numbers.tobytes(), position),
        "warnings": list(warnings.filters),
        "logging": list(logging.getLogger().handlers),
        "matplotlib": dict(matplotlib.rcParams),
        "folder": os.getcwd(),
        "path": list(sys.path),
    }

before = world()
for name in sys.argv[1:]:
    importlib.import_module(name)
after = world()
print("changed:", *[name for name in before if before[name] != after[name]])
"""


def changes_on_import(*arguments: str, program: str = IMPORT_ALL) -> str:
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_changes_nothing_global():
    modules = [name.removesuffix(".__init__") for name in library() if part(name) != "__main__"]
    assert changes_on_import(*modules).strip() == "changed:"


def test_a_global_change_is_seen():
    program = IMPORT_ALL.replace("after =", "jax.config.update('jax_enable_x64', True)\nafter =")
    assert changes_on_import(program=program).strip() == "changed: jax.config"
