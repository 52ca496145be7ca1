"""The documentation covers all components, names no others, and its commands are valid.

`make docs` builds the site with warnings as errors; these tests do not build it.
"""

import ast
import importlib.util
import itertools
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest

from rlgen import config, registry
from rlgen.cli import main
from rlgen.runs.spec import RunSpec, build, with_names
from tests.paths import ROOT

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}
TEXTS = {DOCS / name: text for name, text in PAGES.items()} | {
    ROOT / name: (ROOT / name).read_text()
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
}
NAV = re.findall(r"[\w/.-]+\.md\b", (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2])
GENERATED = {"contributing.md", "changelog.md", "reference/index.md"}
FOLDERS = {
    "recipes": "methods",
    "learners": "learners",
    "bonuses": "bonuses",
    "envs": "environments",
}
LISTS = {"scores": "scores.md", "samplers": "samplers.md", "level-models": "level-models.md"}
NAMES = ("recipe", "env", "preset", "learner", "score", "bonus")
PARTS = ("**Source.**", "## Differences from released code", "## Run it", "## Read it")

COMPONENTS = [(kind, name) for kind in FOLDERS for name in registry.names(kind)]
LISTED = [(kind, name) for kind in LISTS for name in registry.names(kind)]


def blocks(text: str) -> str:
    """Return all code blocks without a language, which hold commands."""
    return "\n".join(re.findall(r"^```\n(.*?)^```", text, re.M | re.S))


def commands(text: str) -> list[list[str]]:
    """Return every `rlgen` command of a page as a list of words, without comments."""
    lines = blocks(text).replace("\\\n", " ").splitlines()  # a line can end with a backslash
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("rlgen ")]


def slug(title: str) -> str:
    """Return a heading's anchor as the site and code hosts generate it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def headings(text: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return {slug(title) for title in re.findall(r"^#+ (.*)$", prose, re.M)}


@pytest.fixture(scope="module")
def quick():
    """Skip the help texts of fields, whose source would be read repeatedly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "attributes", lambda kind: {})
        yield


@pytest.fixture(scope="module")
def fields(quick):
    """Function that returns the options of `rlgen train` for given names, built once each."""
    known: dict[tuple, dict[str, config.Leaf]] = {}

    def of(names: dict[str, str]) -> dict[str, config.Leaf]:
        key = tuple(sorted(names.items()))
        if key not in known:
            env, curriculum = build(replace(RunSpec(recipe=names["recipe"]), **names))
            found = [(f"env.{leaf.path}", leaf) for leaf in config.leaves(env)]
            found += [(leaf.path, leaf) for leaf in config.leaves(curriculum)]
            found += [(leaf.path, leaf) for leaf in config.leaves(RunSpec(recipe="dr"))]
            known[key] = {"--" + path.replace("_", "-"): leaf for path, leaf in found}
        return known[key]

    return of


@pytest.fixture(scope="module")
def hooks() -> Iterator[ModuleType]:
    pytest.importorskip("mkdocs")
    pytest.importorskip("latex2mathml")
    sys.path.insert(0, str(ROOT / "scripts"))
    yield importlib.import_module("docs_hooks")
    sys.path.remove(str(ROOT / "scripts"))


def test_navigation_has_every_page_and_no_other():
    assert sorted(NAV) == sorted({*PAGES, *GENERATED})


@pytest.mark.parametrize("kind, name", COMPONENTS)
def test_every_component_has_a_page(kind, name):
    page = f"{FOLDERS[kind]}/{name}.md"
    if page not in PAGES:
        pytest.skip("it has no page yet: the site shows its docstring")
    assert f"<!-- defaults: {kind}/{name} -->" in PAGES[page]
    told = ("**Level.**", "**Episode.**", "**Source.**") if kind == "envs" else PARTS
    assert [part for part in told if part not in PAGES[page]] == []
    assert any(name in " ".join(line).replace("/", " ") for line in commands(PAGES[page])), (
        "no command on the page names it"
    )


@pytest.mark.parametrize("kind, name", LISTED)
def test_every_part_has_an_entry(kind, name):
    page = PAGES[LISTS[kind]]
    assert f"<!-- list: {kind} -->" in page
    _, found, entry = page.partition(f"\n## {name}\n")
    if not found:
        pytest.skip("it has no entry yet: the list links to its reference")
    assert f"<!-- defaults: {kind}/{name} -->" in entry.partition("\n## ")[0]


def test_a_new_component_has_a_page_before_anybody_writes_one(hooks, monkeypatch):
    """Otherwise adding a method would require more than one new file."""
    assert hooks.docs_tables.unwritten() == {}
    patterns = {"recipes": "nowhere/{}.md", "scores": "methods.md#{}"}
    monkeypatch.setattr(hooks.docs_tables, "PAGES", patterns)
    made = hooks.docs_tables.unwritten()
    assert {*made} == {f"nowhere/{name}.md" for name in registry.names("recipes")}
    text = made["nowhere/robust-plr.md"]
    assert text.startswith("# robust-plr\n\n") and "<!-- defaults: recipes/robust-plr -->" in text
    assert hooks.docs_tables.page_of("scores", "max-mc") == "reference/algos.scores.max_mc.md"


def test_every_notebook_is_told_of():
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {*re.findall(r"`(\d\d_\w+)`", PAGES["guides/notebooks.md"])}


def test_no_page_is_about_what_is_not_there():
    pages = {f"{FOLDERS[kind]}/{name}.md" for kind, name in COMPONENTS}
    assert {page for page in PAGES if page.partition("/")[0] in FOLDERS.values()} - pages == set()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    prose = re.sub(r"^```.*?^```", "", TEXTS[path], flags=re.M | re.S)
    links = re.findall(r"\]\((?!\w+:)([^)\s#]*)#?([^)\s]*)\)|src=\"()([^\"]+)\"", prose)
    for target, anchor, _, picture in links:
        there = (path.parent / (target or picture)).resolve() if target or picture else path
        assert there.exists(), f"{target or picture} does not exist"
        if anchor and there in TEXTS:
            assert anchor in headings(TEXTS[there]), f"{target} has no anchor #{anchor}"


@pytest.mark.thorough
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_training_commands_are_understood(path, fields):
    lines = [args for args in commands(TEXTS[path]) if args[0] == "train"]
    for args in (args[1:] for args in lines if "--resume" not in args):
        assert args[0] in registry.names("recipes"), args
        given = dict(zip(args[1::2], args[2::2], strict=True))
        assert all(option.startswith("--") for option in given), args
        names = {n: given[f"--{n}"] for n in NAMES if f"--{n}" in given} | {"recipe": args[0]}
        if "." in names.get("env", "") or registry.missing_extra(names.get("env", "maze")):
            continue  # an environment of an example, or one that is not installed
        known = fields(names)
        for option, value in given.items():
            assert option in known or option == "--out", f"{' '.join(args)}: {option}"
            if option in known:
                config.convert(known[option].kind, value, option)


@pytest.mark.thorough
@pytest.mark.parametrize("name", registry.names("recipes"))
def test_options_told_of_a_method_are_its_own(name, fields, hooks):
    where = hooks.docs_tables.ENVS.get(name, "maze")
    told = set(re.findall(r"`(--[a-z-]+\.[\w.-]+)", PAGES[f"methods/{name}.md"]))
    assert told - {*fields({"recipe": name, "env": where})} == set()


@pytest.mark.parametrize("command", sorted({*main.COMMANDS} - {"train", "list"}))
def test_other_commands_are_understood(command, capsys):
    try:
        main.main([command, "--help"])
    except SystemExit as stop:
        assert not stop.code
    known = {*re.findall(r"(?<![\w-])--?[a-z][\w.-]*", capsys.readouterr().out)}
    used = [args for text in TEXTS.values() for args in commands(text) if args[0] == command]
    for args in used:
        options = {arg.partition("=")[0] for arg in args if re.match(r"--?[a-z]", arg)}
        assert {option for option in options if option not in known} == set(), args


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_is_python_and_imports_what_there_is(path):
    for block in re.findall(r"^```python\n(.*?)^```", TEXTS[path], re.M | re.S):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rlgen"):
                module = importlib.import_module(str(node.module))
                for name in node.names:
                    found = hasattr(module, name.name)
                    assert found or importlib.util.find_spec(f"{node.module}.{name.name}")


def test_suites_and_environments_of_commands_exist():
    every = [args for text in TEXTS.values() for args in commands(text)]
    values = {
        (option, value)
        for args in every
        for option, value in itertools.pairwise(args)
        if option in ("--env", "--suite")
    }
    assert len(values) > 25
    for option, value in sorted(values):
        family, _, rest = value.partition("/")
        if "." in value:
            continue
        assert family in registry.names("envs"), value
        module = registry.load("envs", family)
        known = module.build().suites() if option == "--suite" else registry.variants(module)
        assert not rest or rest in known, value


def test_equations_become_mathml(hooks):
    found = [(page, latex) for page, text in PAGES.items() for latex in hooks.equations(text)]
    assert len(found) > 50
    for page, latex in found:
        drawn = hooks.to_mathml(latex, display=True)
        assert "<math" in drawn and "\\" not in drawn, f"{page}: {latex}"


def test_equations_are_not_looked_for_in_code(hooks):
    text = "`$HOME` costs $a_1$, and `cost $x$`\n\n```\necho $y$ $z$\n```\n\n5 $ or 6 $\n"
    assert list(hooks.equations(text)) == ["a_1"]


@pytest.mark.parametrize("name", ["plr", "groove"])
def test_default_tables_say_what_the_code_says(name, hooks, quick):
    """Parsing a table's entry for a field gives the field's default."""
    table = hooks.docs_tables.expand("defaults", f"recipes/{name}")
    rows = {
        row[0]: row[1:]
        for row in re.findall(r"^\| `--([\w.-]+)` \|(.*?)\|(.*?)\|(.*?)\|", table, re.M)
    }
    for i, preset in enumerate(("fast", "strong", "parity")):
        env = hooks.docs_tables.ENVS.get(name, "maze")
        spec = with_names(RunSpec(name, env, preset=preset))
        assert int(float(rows["steps"][i])) == spec.steps
        for leaf in config.leaves(build(spec)[1]):
            if not leaf.path.endswith("num_updates"):
                (shown,) = shlex.split(rows[leaf.path.replace("_", "-")][i]) or [""]
                assert config.convert(leaf.kind, shown, leaf.path) == leaf.value


def test_facts_of_an_environment(hooks):
    table = hooks.docs_tables.expand("facts", "envs/maze")
    assert "image `float32[5, 5, 3]`" in table and "`maze/heldout`" in table
    assert "| actions | 7 |" in table


@pytest.mark.parametrize("kind, what", [("defalts", "recipes/plr"), ("defaults", "recipes/prl")])
def test_unknown_tables_are_refused(hooks, kind, what):
    with pytest.raises(ValueError, match="did you mean"):
        hooks.docs_tables.expand(kind, what)


def test_the_reference_has_every_public_module(hooks):
    """It has all library modules, and the component modules without their helpers."""
    found = {name for names in hooks.modules().values() for name in names}
    components = {module for kind in registry.KINDS for module in registry.modules(kind).values()}
    used_through_one = {"rlgen.cli": "rlgen.cli.main", "rlgen.testing": "rlgen.testing"}
    tops = (ROOT / "rlgen", ROOT / "algos" / "rules", ROOT / "algos" / "meta")
    files = [p for top in tops for p in top.rglob("*.py") if not p.stem.startswith("_")]
    library = {hooks.docs_tables.dotted(path) for path in files}
    library = {used_through_one.get(name.rpartition(".")[0], name) for name in library}
    assert {"rlgen.curriculum", "rlgen.envs.maze", "rlgen.algos.samplers.plr"} <= found
    assert found == components | library | {"rlgen.gymnax"}


def test_links_out_of_the_documentation(hooks):
    page = hooks.page_of
    assert page(ROOT / "rlgen" / "curriculum.py") == "reference/curriculum.md"
    assert page(ROOT / "algos/rules/import_groove.py") == "reference/algos.rules.import_groove.md"
    assert page(ROOT / "CONTRIBUTING.md") == "contributing.md"
    assert page(DOCS / "methods" / "plr.md") == "methods/plr.md"
    assert page(ROOT / "tests" / "project" / "test_docs.py") == ""


GLOSSARY = {"slot", "queue", "level", "task", "student", "learner"}
GLOSSARY |= {"run", "recipe", "preset", "suite", "rung", "lifetime"}


def test_the_glossary_has_the_terms_that_pages_use(hooks):
    terms = hooks.glossary()
    assert {*terms} >= GLOSSARY
    assert [*terms] == sorted(terms, key=str.lower)
    assert all(page in PAGES for page in terms.values() if page)


def test_the_first_occurrence_of_a_term_is_linked(hooks):
    terms = {"slot": "concepts/slot.md", "level set": "", "run": ""}
    page = (
        "# The slot\n\nOne `slot`, [two slots](a.md), $slot$, three slots and a slot.\n\n| slot |\n"
    )
    linked = hooks.link_terms(page, "methods/plr.md", terms)
    assert linked == page.replace("three slots", "three [slots](../glossary.md#slot){: .term }")
    assert hooks.link_terms(page, "concepts/slot.md", terms) == page  # the page that explains it
    page = "Run it. Runs run. A level\nset of the run.\n"
    linked = hooks.link_terms(page, "index.md", terms)
    assert "A [level\nset](glossary.md#level-set){: .term } of the [run](glossary.md#run)" in linked
    assert linked.startswith("Run it. Runs run. ")  # verbs


@pytest.mark.parametrize(
    "text",
    [
        "`a slot ←\nslot`",
        "- one\n\n  ```\n  slot\n  ```\n",
        "text\n\n    slot = 1\n",
        "[a [big]\nslot](a.md)",
        "[a slot][1]\n\n[1]: slot.md",
        "text[^slot]",
        '<img alt="a\nslot" src="a.png">',
        "<!-- a\nslot -->",
        'A., 2020, "On\nSlots".',
        "per-slot, slot-wise, slot rules",
    ],
)
def test_no_term_is_linked_outside_of_prose(hooks, text):
    assert hooks.link_terms(text, "a.md", {"slot": ""}) == text
    assert hooks.link_terms(f"{text}\n\nslot", "a.md", {"slot": ""}) != f"{text}\n\nslot"


def test_the_anchor_of_a_term_is_that_of_its_heading(hooks):
    linked = hooks.link_terms("An A/B test of C++.", "a.md", {"A/B Test": "", "C++": ""})
    assert linked == (
        "An [A/B test](glossary.md#ab-test){: .term } of [C++](glossary.md#c){: .term }."
    )


def test_an_interval_does_not_break_between_its_bounds(hooks, monkeypatch):
    page = SimpleNamespace(file=SimpleNamespace(src_uri="results.md"), meta={})
    text = "Solved: 3 % [\u22121, +4.5], see [1, 2](x.md) and `[1, 2]`.\n"
    monkeypatch.setattr(hooks, "_link", lambda found, at: found[0])
    shown = hooks.on_page_markdown(text, page, None, None)
    assert "[\u22121,\u00a0+4.5]" in shown and "[1, 2](x.md)" in shown and "`[1, 2]`" in shown


def test_what_a_page_would_fetch(hooks):
    html = '<a href="https://x.org"><img src="a.png"><script src="../b.js"></script>'
    assert hooks.fetched(html + '<link rel="icon" href="c.ico">') == []
    for tag in ('<script async src="https://x.org/a.js"', "<img src=//x.org/a.png"):
        assert len(hooks.fetched(f"{html}{tag}>")) == 1
    assert len(hooks.fetched('<link href="https://x.org/a.css" rel="stylesheet">')) == 1
