"""Allowed imports between modules, and forbidden operations; see DESIGN.md, section 1."""

import ast
import copy
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from rlgen import registry
from tests.paths import ROOT

# A part may import from its own layer and those above it in this list. New parts are added here.
LAYERS = (
    {"__init__", "gymnax_hook", "types"},
    {"protocols"},
    {"buffer", "codec", "config", "held_out", "levels", "nn", "parallel", "registry", "returns"},
    {"bonuses", "observations", "rollout"},
    {"curriculum", "students"},
    {"gymnax", "runs", "testing"},
    {"evaluation"},
    {"envs", "algos"},
    {"__main__", "cli"},
)
STRANGERS = {"envs", "algos"}  # in one layer, but neither may import the other
ALGOS = (
    {"level_models", "rules"},
    {"bonuses", "learners", "scores"},
    {"meta", "samplers"},
    {"recipes"},
)
"""Layers of the folders of `rlgen.algos`."""

MOST_FILES = 24
"""Maximum number of files in one folder."""
OPENED = {  # most rlgen files that a reader of a component opens, including its own
    "rlgen.algos.learners.ppo": 9,
    "rlgen.algos.recipes.ued.plr": 16,
    "rlgen.algos.recipes.finite.dred": 21,
    "rlgen.algos.recipes.meta.groove": 24,
    "rlgen.envs.maze": 14,
}

STEPPERS = {"envs", "gymnax", "observations", "rollout", "testing"}
UNJITTED = {"buffer", "curriculum", "nn", "parallel", "returns", "rollout", "students"}
HOST_JITS = {"rlgen.algos.samplers.fixed"}  # samples its training set once, before the run


@cache
def library() -> Mapping[str, ast.Module]:
    """Return the syntax tree of every rlgen module by dotted name; packages end in `.__init__`."""
    trees = {}
    for top, package in (("rlgen", "rlgen"), ("envs", "rlgen.envs"), ("algos", "rlgen.algos")):
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT / top)
            if top == "rlgen" and inside.parts[0] in ("envs", "algos"):
                continue  # links to folders that are read directly
            trees[".".join([package, *inside.with_suffix("").parts])] = ast.parse(path.read_text())
    return trees


def imports(name: str, nodes: Iterator[ast.AST], known: set[str]) -> set[str]:
    """Return the modules of rlgen that the given nodes of module `name` import."""
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
    """Return the module of a dotted name: itself, a package, or where it is defined."""
    for module in (target, f"{target}.__init__", target.rpartition(".")[0]):
        if module in known:
            return module
    return f"{target.rpartition('.')[0]}.__init__"


def part(module: str) -> str:
    """Return the folder or module of rlgen by which layers are defined."""
    return module.split(".")[1]


def layer(module: str, layers: tuple[set[str], ...] = LAYERS, depth: int = 1) -> int:
    name = module.split(".")[depth]
    ranks = [rank for rank, parts in enumerate(layers) if name in parts]
    assert ranks, f"{module} is in no layer; add {name!r} to the layers"
    return ranks[0]


def outward_imports(trees: Mapping[str, ast.Module], known: set[str]) -> list[str]:
    """List imports, among the known modules, that the layers forbid."""
    wrong = []
    for name, tree in trees.items():
        for target in imports(name, ast.walk(tree), known):
            strange = {part(name), part(target)} == STRANGERS
            if strange or layer(target) > layer(name):
                wrong.append(f"{name} imports {target}")
    return wrong


def wrong_algos(trees: Mapping[str, ast.Module], known: set[str]) -> list[str]:
    """List imports between folders of `rlgen.algos` that their layers forbid."""
    inside = {n: t for n, t in trees.items() if n.startswith("rlgen.algos.") and n.count(".") > 2}
    wrong = []
    for name, tree in inside.items():
        for target in imports(name, ast.walk(tree), known) & set(inside):
            if layer(target, ALGOS, 2) > layer(name, ALGOS, 2):
                wrong.append(f"{name} imports {target}")
    return wrong


def graph_of(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Return each module's imports, including those inside functions and for types."""
    known, tops = set(trees), {"rlgen.__init__", "rlgen.envs.__init__", "rlgen.algos.__init__"}
    return {n: imports(n, ast.walk(tree), known) - {n} - tops for n, tree in trees.items()}


def folders_of(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Return the imports between folders; files directly in a top folder are their own nodes."""

    def folder(name: str) -> str:
        parts = name.split(".")
        top = 2 if parts[1] in STRANGERS else 1
        return ".".join(parts[:-1]) if len(parts) > top + 1 else name

    found: dict[str, set[str]] = {}
    for name, targets in graph.items():
        found.setdefault(folder(name), set()).update(map(folder, targets))
    return {name: targets - {name} for name, targets in found.items()}


def circle_in(graph: dict[str, set[str]]) -> list[str]:
    """Return nodes that import each other in a cycle; [] if no cycle exists."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def opened(start: str, trees: Mapping[str, ast.Module], graph: dict[str, set[str]]) -> set[str]:
    """Return the files that a reader of a module opens: its direct and indirect imports.

    A package's `__init__` that only re-exports names is not counted, unless reading starts there.
    """
    seen: set[str] = set()
    through: set[str] = set()
    todo = [start if start in trees else f"{start}.__init__"]
    while todo:
        name = todo.pop()
        if name in seen | through:
            continue
        empty = not any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in trees[name].body)
        handed_on = name.endswith(".__init__") and empty and bool(seen)
        (through if handed_on else seen).add(name)
        todo += graph[name]
    return seen


def uses_of(trees: Mapping[str, ast.Module], names: set[str]) -> list[str]:
    """List the uses of attributes or imports with the given names."""
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


class WithoutWrappers(ast.NodeTransformer):
    """Transformer that removes `step_env`, in which wrappers step the wrapped environment."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST | None:
        return None if node.name == "step_env" else self.generic_visit(node)


def outside_steppers(trees: Mapping[str, ast.Module]) -> Mapping[str, ast.Module]:
    others = {m: t for m, t in trees.items() if part(m) not in STEPPERS}
    return {m: WithoutWrappers().visit(copy.deepcopy(t)) for m, t in others.items()}


def never_jitted(trees: Mapping[str, ast.Module]) -> Mapping[str, ast.Module]:
    inside = UNJITTED | {"algos"}
    return {m: t for m, t in trees.items() if part(m) in inside and m not in HOST_JITS}


def test_imports_point_inwards():
    assert "\n".join(outward_imports(library(), set(library()))) == ""


def test_no_files_import_each_other_in_a_ring():
    assert circle_in(graph_of(library())) == []


def test_no_folders_import_each_other_in_a_ring(graph):
    assert circle_in(folders_of(graph)) == []


def test_algorithms_import_one_way():
    assert "\n".join(wrong_algos(library(), set(library()))) == ""


@pytest.fixture(scope="module")
def graph():
    return graph_of(library())


@pytest.mark.parametrize(("start", "most"), OPENED.items())
def test_a_reader_opens_few_files(graph, start, most):
    files = opened(start, library(), graph)
    assert len(files) <= most, f"{start} takes {len(files)} files: {', '.join(sorted(files))}"


def test_how_many_files_a_reader_opens_is_printed(capsys, graph):
    trees = library()
    kinds = ("learners", "scores", "bonuses")
    components = [module for kind in kinds for module in registry.modules(kind).values()]
    counts = {module: len(opened(module, trees, graph)) for module in components}
    with capsys.disabled():
        print("\nfiles opened to read:", end=" ")
        print(", ".join(f"{name.rpartition('.')[2]} {n}" for name, n in counts.items()))
    assert max(counts.values()) <= 20  # the aim is ten, reached if interfaces are declared


def test_no_folder_is_crowded():
    folders = Counter(name.rpartition(".")[0] for name in library())
    assert {name: n for name, n in folders.items() if n > MOST_FILES} == {}


def test_only_the_rollout_steps_environments():
    assert "\n".join(uses_of(outside_steppers(library()), {"step_env"})) == ""


def test_training_code_never_jits():
    assert "\n".join(uses_of(never_jitted(library()), {"jit", "pmap", "filter_jit"})) == ""


def test_the_checks_see_the_whole_library():
    names = set(library())
    assert {"rlgen.types", "rlgen.envs.maze.env", "rlgen.algos.learners.ppo"} <= names
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


@pytest.mark.parametrize(
    "first", ["import rlgen.levels", "def f():\n    from rlgen.levels import Suite"]
)
def test_a_ring_of_imports_is_seen(first):
    sources = {"rlgen.types": first, "rlgen.levels": "from rlgen.types import Key"}
    ring = {name: ast.parse(source) for name, source in sources.items()}
    assert circle_in(graph_of(ring)) != []


def test_a_ring_of_folders_is_seen():
    sources = {
        "rlgen.runs.a": "import rlgen.evaluation.b",
        "rlgen.evaluation.b": "",
        "rlgen.evaluation.c": "import rlgen.runs.d",
        "rlgen.runs.d": "",
    }
    graph = graph_of({name: ast.parse(source) for name, source in sources.items()})
    assert circle_in(graph) == [] and circle_in(folders_of(graph)) != []


def test_a_wrong_import_among_algorithms_is_seen():
    trees = {
        **library(),
        "rlgen.algos.learners.mine": ast.parse("from rlgen.algos.meta import meta_gradient"),
    }
    assert wrong_algos(trees, set(trees)) != []


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


# Dependencies are imported first, so that their own side effects are not counted.
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


@pytest.mark.thorough
def test_importing_changes_nothing_global():
    modules = [name.removesuffix(".__init__") for name in library() if part(name) != "__main__"]
    assert changes_on_import(*modules).strip() == "changed:"


@pytest.mark.thorough
def test_a_global_change_is_seen():
    program = IMPORT_ALL.replace("after =", "jax.config.update('jax_enable_x64', True)\nafter =")
    assert changes_on_import(program=program).strip() == "changed: jax.config"
