"""Tables for the documentation, generated from the code while the site is built.

A page includes a table with a comment such as `<!-- defaults: recipes/plr -->`,
`<!-- facts: envs/maze -->` or `<!-- list: scores -->`. The first word is the kind of table, a key
of `TABLES`.
"""

import ast
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax

from rlgen import registry
from rlgen.bonuses import Shaped, parse
from rlgen.config import Leaf, Value, leaves, override
from rlgen.protocols import OPTIONAL_METHODS
from rlgen.runs.spec import RunSpec, build, steps_of, with_names

PRESETS = ("fast", "strong", "parity")
ROOT = Path(__file__).parent.parent

ENVS = {
    **dict.fromkeys(("dred", "el-dred", "accel-d", "fixed", "fixed-plr"), "cave"),
    **dict.fromkeys(("lpg", "lpg-fixed", "groove", "lpg-agent", "ta-lpg", "lpg-es"), "gridworld"),
    **dict.fromkeys(("lpo", "ta-lpo"), "cart-pole"),
}
"""Environments for tables of defaults, by recipe or learner; all other tables use the maze."""

PAGES = {
    "recipes": "methods/{}.md",
    "learners": "learners/{}.md",
    "bonuses": "bonuses/{}.md",
    "envs": "environments/{}.md",
    "scores": "scores.md#{}",
    "samplers": "samplers.md#{}",
    "level-models": "level-models.md#{}",
}
"""Path of a component's page for each kind of component, relative to the root of the pages."""


def expand(kind: str, what: str) -> str:
    """Return the Markdown that replaces the comment `<!-- kind: what -->`.

    Raises:
        ValueError: If the kind of table or the component is unknown.
    """
    if kind not in TABLES:
        raise ValueError(f"unknown table {kind!r}; {registry.did_you_mean(kind, TABLES)}")
    return TABLES[kind](what)


def defaults(what: str) -> str:
    """Return a table of a component's fields with their defaults, or with the values per preset."""
    kind, name = _component(what)
    return {"recipes": _of_recipe, "envs": _of_env}.get(kind, lambda n: _of_part(kind, n))(name)


def facts(what: str) -> str:
    """Return a table of an environment's observations, actions, variants, suites, capabilities."""
    _, name = _component(what)
    module = registry.load("envs", name)
    env = module.build()
    rows = [("observation", _observation(name, env)), ("actions", str(env.num_actions))]
    rows = [row for row in rows if row[1]]
    variants = _codes(f"{name}/{variant}" for variant in registry.variants(module))
    suites = env.suites()
    able = [name for name, method in OPTIONAL_METHODS.items() if registry.has(env, method)]
    rows += [("variants", variants), ("suites", _codes(f"{name}/{suite}" for suite in suites))]
    rows += [("[capabilities](../environments.md#capabilities)", _codes(able))]
    return _table(("", ""), [row for row in rows if row[1]])


def listing(what: str) -> str:
    """Return a table of all components of a kind: links to pages, and first lines of docstrings."""
    if what == "capabilities":
        rows = [(f"`{name}`", text) for name, text in _capabilities().items()]
        return _table(("capability", "signature"), rows)
    names = [(f"[`{n}`]({page_of(what, n)})", _first_line(what, n)) for n in _names(what)]
    return _table(("name", ""), names)


def page_of(kind: str, name: str) -> str:
    """Return the page of a component; if it has none, the API reference page of its module."""
    page, _, anchor = PAGES[kind].format(name).partition("#")
    if not anchor or f"\n## {name}\n" in (ROOT / "docs" / page).read_text():
        return PAGES[kind].format(name)
    return f"reference/{registry.modules(kind)[name].removeprefix('rlgen.')}.md"


def source(kind: str, name: str) -> Path:
    """Return the file of a component.

    If the component is a package, this is the file of the package that defines `build`.
    """
    place = ROOT / registry.modules(kind)[name].removeprefix("rlgen.").replace(".", "/")
    if not place.is_dir():
        return place.with_suffix(".py")
    return next(p for p in sorted(place.glob("*.py")) if "\ndef build(" in p.read_text())


def dotted(path: Path) -> str:
    """Return the dotted name of a library file; for an `__init__.py`, the name of the package."""
    name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
    name = name.removesuffix(".__init__")
    return name if name.startswith("rlgen.") else f"rlgen.{name}"


def unwritten() -> dict[str, str]:
    """Return generated pages, by path, for components that have no page in docs/."""
    found = {}
    for kind, pattern in PAGES.items():
        for name in _names(kind) if "#" not in pattern else []:
            page = pattern.format(name)
            if not (ROOT / "docs" / page).exists():
                found[page] = _from_docstring(kind, name)
    return found


def _from_docstring(kind: str, name: str) -> str:
    """Return a page with a component's docstring and its defaults."""
    text = ast.get_docstring(ast.parse(source(kind, name).read_text())) or name
    return f"# {name}\n\n{text}\n\n## Defaults\n\n<!-- defaults: {kind}/{name} -->\n"


TABLES: dict[str, Callable[[str], str]] = {"defaults": defaults, "facts": facts, "list": listing}
"""Function for each kind of table; the kind is the word before the colon in a comment."""


def _of_recipe(name: str) -> str:
    where = ENVS.get(name, "maze")
    module = registry.load("recipes", name)
    known = [preset for preset in PRESETS if preset in getattr(module, "PRESETS", {})]
    specs = {p: with_names(RunSpec(name, where, preset=p)) for p in known}
    columns = {preset: _shown(build(spec)[1]) for preset, spec in specs.items()}
    steps = {preset: _text(steps_of(spec)) for preset, spec in specs.items()}
    spec = specs[known[0]]
    parts = [f"learner `{spec.learner}`"] * bool(spec.learner)
    parts += [f"score `{spec.score}`"] * bool(spec.score)
    lead = (
        f"On `{where}`{''.join(f', {part}' for part in parts)}. `--preset` chooses the column; the "
        f"default is `{known[0]}`. Every field is an option, such as `--num-slots 64`.\n\n"
    )
    rows = _rows(columns)
    rows = {"--steps": ["default number of env steps per seed", *steps.values()], **rows}
    inner = {path: row for path, row in rows.items() if _is_inner(path)}
    outer = {path: row for path, row in rows.items() if path not in inner}
    return lead + _fields(outer, known) + _folded(inner, known)


def _of_env(name: str) -> str:
    env = registry.load("envs", name).build()
    presets = env.presets()
    known = [preset for preset in PRESETS if preset in presets]
    columns = {p: _shown(override(env, presets[p]), "env.") for p in known}
    columns = columns or {"default": _shown(env, "env.")}
    rows = _rows(columns)
    return _fields(rows, list(columns)) if rows else "It has no fields.\n"


def _of_part(kind: str, name: str) -> str:
    env = registry.load("envs", ENVS.get(name, "maze")).build()
    module = registry.load(kind, name)
    if kind == "bonuses":
        built, prefix = Shaped(parse(name, env)), "student.bonus."
    elif kind == "scores":
        learner = registry.load("learners", "ppo-lstm").build(env)
        built, prefix = module.build(env, learner), "score."
    elif kind == "level-models":
        env = registry.load("envs", {"graph-vae": "cave"}.get(name, "cart-pole")).build()
        built, prefix = module.build(env), "sampler.source.model."
    elif kind == "samplers" and "score" in inspect.signature(module.build).parameters:
        built, prefix = (
            module.build(env, registry.load("scores", "none").build(env, ())),
            "sampler.",
        )
    else:
        built, prefix = module.build(env), {"learners": "student.learner."}.get(kind, "sampler.")
    rows = _rows({"default": _shown(built, prefix)})
    inner = {path: row for path, row in rows.items() if ".network." in path or ".net." in path}
    outer = {path: row for path, row in rows.items() if path not in inner}
    parts = [_fields(outer, ["default"])] * bool(outer) + [_folded(inner, ["default"])]
    return "".join(parts) or "It has no fields.\n"


def _shown(component: object, prefix: str = "") -> dict[str, Leaf]:
    """Return fields by option, without lengths of schedules, which are computed from `--steps`."""
    schedules = (".learner.num_updates", ".teacher.num_updates", ".mixture.num_updates")
    found = (leaf._replace(path=prefix + leaf.path) for leaf in leaves(component))
    return {_option(x.path): x for x in found if not f".{x.path}".endswith(schedules)}


def _option(path: str) -> str:
    return "--" + path.replace("_", "-")


def _rows(columns: Mapping[str, Mapping[str, Leaf]]) -> dict[str, list[str]]:
    """Return the help text of each field and its value in each column; a missing value is ""."""
    every: dict[str, Leaf] = {}
    for column in columns.values():
        every |= {path: leaf for path, leaf in column.items() if path not in every}
    return {
        path: [leaf.help, *(_text(c[path].value) if path in c else "" for c in columns.values())]
        for path, leaf in every.items()
    }


def _is_inner(path: str) -> bool:
    """Return whether a field belongs to a nested component with its own page, or to a network."""
    inner = (".learner.", ".network.", ".teacher.", ".antagonist.", ".agent.", ".model.", ".net.")
    return any(part in path for part in inner)


def _fields(rows: Mapping[str, list[str]], columns: list[str]) -> str:
    cells = [(f"`{path}`", *row[1:], row[0]) for path, row in rows.items()]
    return _table(("field", *columns, "meaning"), cells)


def _folded(rows: Mapping[str, list[str]], columns: list[str]) -> str:
    if not rows:
        return ""
    title = f"{len(rows)} more fields of nested components"
    body = _fields(rows, columns)
    return f'\n<details markdown="1"><summary>{title}</summary>\n\n{body}\n</details>\n'


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *([_cell(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _text(value: Value) -> str:
    """Format a value as on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    if isinstance(value, bool) or value == "":
        return str(value).lower() or '""'
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}".replace("e-0", "e-") if f"{value:g}" in str(value) else str(value)
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e") if isinstance(value, int) else ""
    return short if "e" in short and float(short) == value else str(value)


def _codes(names: Iterable[str]) -> str:
    return " ".join(f"`{name}`" for name in names)


def _observation(name: str, env: Any) -> str:
    """Return the shapes of the unpacked observation; "" if the environment's package is missing."""
    if registry.missing_extra(name):
        return ""

    def seen(key: jax.Array) -> Any:
        key_level, key_reset = jax.random.split(key)
        obs = env.reset_env(key_reset, env.sample_level(key_level))[0]
        return env.unpack(obs)

    shape = jax.eval_shape(seen, jax.random.key(0))
    arrays = jax.tree_util.tree_flatten_with_path(shape)[0]
    return ", ".join(f"{_name(path)}`{x.dtype}{list(x.shape)}`".strip() for path, x in arrays)


def _name(path: tuple) -> str:
    last = path[-1] if path else ""
    text = str(getattr(last, "name", getattr(last, "key", "")))
    return f"{text} " if text else ""


def _component(what: str) -> tuple[str, str]:
    kind, _, name = what.partition("/")
    registry.load(kind, name)
    return kind, name


def _names(kind: str) -> list[str]:
    return registry.names(kind)


def _capabilities() -> dict[str, str]:
    return {name: registry.described(method) for name, method in OPTIONAL_METHODS.items()}


def _first_line(kind: str, name: str) -> str:
    text = source(kind, name).read_text()
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
