"""MkDocs hooks of the documentation site, registered in `mkdocs.yml`.

While the site is built, comments in pages are replaced by tables (`docs_tables.py`), `$…$` and
`$$…$$` by MathML, which browsers render without a script. Every public module gets a page in the
API reference, and CHANGELOG.md and CONTRIBUTING.md are added as pages. Links that leave docs/ point
to these pages, or become plain file names. Without the hooks a page is still plain Markdown.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import docs_tables
from latex2mathml import converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from rlgen import registry

ROOT = Path(__file__).parent.parent
COPIED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository that are added as pages."""
HOME = {"README.md": "index.md"}
LIBRARY = {
    "Core": "rlgen",
    "Networks": "rlgen/nn",
    "Seeds and devices": "rlgen/parallel",
    "Runs": "rlgen/runs",
    "Evaluation": "rlgen/evaluation",
    "Statistics": "rlgen/evaluation/stats",
    "Generalisation": "rlgen/evaluation/generalisation",
    "Protocol ladder": "rlgen/evaluation/ladder",
    "Difficulty": "rlgen/evaluation/difficulty",
    "Meta-tests": "rlgen/evaluation/meta",
    "Reports": "rlgen/evaluation/report",
    "Inputs of reports": "rlgen/evaluation/from_runs",
    "gymnax": "rlgen/gymnax",
    "Learned rules": "algos/rules",
    "Meta-learning": "algos/meta",
}
"""Sections of the API reference, with the folders of their modules."""
FRONTS = {
    "rlgen/cli/main.py": "Core",
    "rlgen/testing/__init__.py": "Core",
    "rlgen/gymnax/__init__.py": "gymnax",
}
"""Public modules of packages that are used through one module, with their sections."""
PARTS = {
    "Environments": "envs",
    "Recipes": "recipes",
    "Learners": "learners",
    "Samplers": "samplers",
    "Scores": "scores",
    "Bonuses": "bonuses",
    "Level models": "level-models",
}
"""Sections of the API reference with components, and the kinds of these."""

_FENCED = re.compile(r"(^`{3}[^\n]*\n.*?^`{3}[ ]*$)", re.M | re.S)
_CODE = re.compile(r"(^`{3}[^\n]*\n.*?^`{3}[ ]*$|``[^\n]+?``|`[^`\n]+`)", re.M | re.S)
_TABLE = re.compile(r"<!-- (\w+): ([\w/-]+) -->")
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$([^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])", re.S)
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def modules() -> dict[str, dict[str, Path]]:
    """Return the public modules by section of the API reference: files by dotted name."""
    found: dict[str, dict[str, Path]] = {}
    for title, folder in LIBRARY.items():
        paths = [p for p in (ROOT / folder).glob("*.py") if not p.stem.startswith("_")]
        paths += [ROOT / front for front, section in FRONTS.items() if section == title]
        found[title] = dict(sorted((docs_tables.dotted(path), path) for path in paths))
    for title, kind in PARTS.items():
        names = registry.modules(kind)
        found[title] = {names[name]: docs_tables.source(kind, name) for name in sorted(names)}
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference, and pages generated for new components, to the navigation."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    sections = [
        {title: [{_short(name): _reference(name)} for name in names]}
        for title, names in modules().items()
    ]
    new = [{Path(page).stem: page} for page in docs_tables.unwritten()]
    for entry in config.nav or []:
        if "API reference" in entry:
            entry["API reference"] = [{"Overview": "reference/index.md"}, *sections]
        if "Methods" in entry and new:
            entry["Methods"].append({"New": new})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, which have no file in docs/."""
    generated = {page: (ROOT / name).read_text() for name, page in COPIED.items()}
    generated |= docs_tables.unwritten()
    generated["reference/index.md"] = _contents()
    for names in modules().values():
        generated |= {
            _reference(name): f"# {name}\n\n::: {docs_tables.dotted(path)}\n"
            for name, path in names.items()
        }
    for page, content in generated.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace table comments, links and equations outside of code."""
    at = page.file.src_uri

    def linked(text: str) -> str:
        text = _LINK.sub(lambda found: _link(found, at), text)
        return _TABLE.sub(lambda found: _table(found, at), text)

    markdown = _outside(_FENCED, linked, markdown)
    return _outside(_CODE, lambda text: _MATH.sub(_as_token, text), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace the placeholders of equations by MathML."""
    html = re.sub(r"<p>(@@display:[0-9a-f]+@@)</p>", r'<div class="equation">\1</div>', html)
    return re.sub(r"@@(display|inline):([0-9a-f]+)@@", _as_mathml, html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raise an error if a page would load anything from another site."""
    for tag in fetched(output):
        raise PluginError(f"{page.file.src_uri}: {tag} loads something from the network")
    return output


def fetched(html: str) -> list[str]:
    """Return the tags of a page that load something from another site; links do not count."""
    loading = r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=|<link\b[^>]*\bhref="
    return re.findall(rf"(?:{loading})[\"']?(?:https?:)?//[^\"'\s>]*", html)


def _outside(code: re.Pattern[str], change: Callable[[str], str], markdown: str) -> str:
    """Apply a change to the parts of a page that are not code."""
    parts = code.split(markdown)  # prose, code, prose, ...
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def _short(name: str) -> str:
    """Return a module's name in the navigation; for `main`, the name of its package."""
    return name.removesuffix(".main").rpartition(".")[2]


def _reference(name: str) -> str:
    return f"reference/{name.removeprefix('rlgen.')}.md"


def _contents() -> str:
    """Return the overview page of the API reference."""
    lines = ["# API reference", "", "Every public module, from its docstrings.", ""]
    for title, names in modules().items():
        lines += [f"## {title}", "", "| module | |", "| --- | --- |"]
        lines += [
            f"| [`{name}`]({_reference(name).removeprefix('reference/')}) | {_first_line(path)} |"
            for name, path in names.items()
        ]
        lines.append("")
    return "\n".join(lines)


def _first_line(path: Path) -> str:
    text = path.read_text()
    return text.removeprefix('"""').partition("\n")[0].strip('"').replace("|", "\\|")


def _table(found: re.Match[str], at: str) -> str:
    try:
        table = docs_tables.expand(found[1], found[2])
    except ValueError as error:
        raise PluginError(f"{at}: {found[0]}: {error}") from error
    return _LINK.sub(lambda x: f"[{x[1]}]({_from(at, x[2])}{x[3] or ''})", table)


def _from(at: str, target: str) -> str:
    """Return the link from the page `at` to a page named relative to the documentation's root."""
    return posixpath.relpath(target.removeprefix("../"), posixpath.dirname(at) or ".")


def _link(found: re.Match[str], at: str) -> str:
    """Keep a link between pages; point one to another file to its page, or make it plain text."""
    text, target, anchor = found[1], found[2], found[3] or ""
    if at.startswith("reference/"):
        return found[0]
    base = ROOT if at in COPIED.values() else (ROOT / "docs" / at).parent
    path = Path(os.path.normpath(base / target))
    if not path.exists():
        if _is_generated(path):
            return found[0]
        raise PluginError(f"{at}: the link target {target} does not exist")
    page = page_of(path)
    if page:
        return f"[{text}]({_from(at, page)}{anchor})"
    return text if text.startswith("`") else f"`{text}`"


def _is_generated(path: Path) -> bool:
    """Return whether a page is generated by `on_files`."""
    folder = ROOT / "docs" / "reference"
    return path.is_relative_to(folder) or path.parent == folder


def page_of(path: Path) -> str:
    """Return the page of a repository file on the site; "" if it has none."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    public = {p: _reference(dotted) for names in modules().values() for dotted, p in names.items()}
    return {**COPIED, **HOME}.get(name) or public.get(path, "")


def equations(markdown: str) -> Iterator[str]:
    """Yield the LaTeX of all equations of a page, outside of code."""
    for part in _CODE.split(markdown)[::2]:
        yield from (found[1] or found[2] for found in _MATH.finditer(part))


def to_mathml(latex: str, display: bool) -> str:
    """Convert an equation to MathML."""
    return converter.convert(latex.strip(), display="block" if display else "inline")


def _as_token(found: re.Match[str]) -> str:
    """Encode an equation as hexadecimal digits, which Markdown leaves unchanged."""
    kind = "display" if found[1] else "inline"
    return f"@@{kind}:{(found[1] or found[2]).encode().hex()}@@"


def _as_mathml(found: re.Match[str]) -> str:
    return to_mathml(bytes.fromhex(found[2]).decode(), found[1] == "display")
