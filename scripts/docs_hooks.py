"""MkDocs hooks of the documentation site, registered in `mkdocs.yml`.

While the site is built, the hooks replace certain comments in pages by tables (`docs_tables.py`).
They replace `$…$` and `$$…$$` by MathML, which browsers render without a script. Every public
module gets a page in the API reference, and CHANGELOG.md and CONTRIBUTING.md become pages too. A
link from docs/ to another file of the repository is changed to a link to the page of that file. If
the file has no page, the link becomes plain text. Without the hooks, pages are ordinary Markdown.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docs_tables
from latex2mathml import converter
from markdown.extensions.toc import slugify
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
"""Sections of public modules that are the only public module of their package."""
PARTS = {
    "Environments": "envs",
    "Recipes": "recipes",
    "Learners": "learners",
    "Samplers": "samplers",
    "Scores": "scores",
    "Bonuses": "bonuses",
    "Level models": "level-models",
}
"""Sections of the API reference that contain components, and the kind of component in each."""

NO_TERMS = ("changelog.md", "glossary.md", "index.md")
"""Pages on which no term is linked to the glossary."""
NOUNS = ("run", "score", "update")
"""Terms that are also verbs; they are linked only after an article, `each` or `every`."""
UNLINKED = ("agent", "level", "member", "seed", "task", "weight-of-a-slot")
"""Terms that are not linked, because they are very frequent or used in several senses."""

_BLOCK = r"^[ ]*`{3}[^\n]*\n.*?^[ ]*`{3}[ ]*$"
_SPAN = r"``(?:(?!``|\n[ ]*\n).)+``|`(?:[^`\n]|\n(?![ ]*\n))+`"  # ends within its paragraph
_FENCED = re.compile(f"({_BLOCK})", re.M | re.S)
_CODE = re.compile(f"({_BLOCK}|{_SPAN})", re.M | re.S)
_KEPT = (
    _BLOCK,
    _SPAN,
    r"<!--.*?-->",
    r"^</?[a-zA-Z][^>]*>[^\n]*",
    r"^(?:\||#|<|[ ]{4})[^\n]*",  # tables, headings, HTML, indented code
    r"\$\$.+?\$\$|\$[^$\n]+\$",
    r"^\[[^\]\n]+\]:[^\n]*|\[\^[^\]]*\]",  # targets of links, footnotes
    r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\](?:\([^)]*\)|\[[^\]]*\])(?:\{[^}]*\})?",
    r'"(?:[^"\n]|\n(?![ ]*\n))*"',  # titles of papers
    r"</?[a-zA-Z][^>]*>",
)
_NOT_PROSE = re.compile(f"({'|'.join(_KEPT)})", re.M | re.S)
_TABLE = re.compile(r"<!-- (\w+): ([\w/-]+) -->")
_MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\w$\\])\$([^\s$](?:[^$\n]*[^\s$])?)\$(?![\w$])", re.S)
_INTERVAL = re.compile(r"\[([-+\u2212\d.]+),\s+([-+\u2212\d.]+)\](?!\()")
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]*)?\)")


def modules() -> dict[str, dict[str, Path]]:
    """Return for each section of the API reference the files of its modules, by dotted name."""
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
    """Add the generated pages, which have no files in docs/."""
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
    """Replace comments by tables, adapt links, and encode equations outside of code."""
    at = page.file.src_uri
    page.meta.setdefault("search", {})["boost"] = _search_boost(at)

    def linked(text: str) -> str:
        text = _LINK.sub(lambda found: _link(found, at), text)
        return _TABLE.sub(lambda found: _table(found, at), text)

    markdown = _outside(_FENCED, linked, markdown)
    if at not in NO_TERMS and not at.startswith("reference/"):
        markdown = link_terms(markdown, at, glossary())
    markdown = _outside(_CODE, lambda text: _MATH.sub(_as_token, text), markdown)
    return _outside(_CODE, lambda text: _INTERVAL.sub("[\\1,\u00a0\\2]", text), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace encoded equations by MathML."""
    html = re.sub(r"<p>(@@display:[0-9a-f]+@@)</p>", r'<div class="equation">\1</div>', html)
    return re.sub(r"@@(display|inline):([0-9a-f]+)@@", _as_mathml, html)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Raise an error if a page would load anything from another site."""
    for tag in fetched(output):
        raise PluginError(f"{page.file.src_uri}: {tag} loads something from the network")
    return output


def fetched(html: str) -> list[str]:
    """Return the tags of a page that load something from another site; links load nothing."""
    loading = r"<(?:script|img|iframe|source|video)\b[^>]*\bsrc=|<link\b[^>]*\bhref="
    return re.findall(rf"(?:{loading})[\"']?(?:https?:)?//[^\"'\s>]*", html)


def _outside(code: re.Pattern[str], change: Callable[[str], str], markdown: str) -> str:
    """Apply `change` to the parts of a page that do not match the pattern `code`."""
    parts = code.split(markdown)  # prose, code, prose, ...
    return "".join(part if i % 2 else change(part) for i, part in enumerate(parts))


def glossary() -> dict[str, str]:
    """Return the terms in docs/glossary.md and the page to which each entry links, or ""."""
    entries = (ROOT / "docs" / "glossary.md").read_text().split("\n## ")[1:]
    return {
        entry.partition("\n")[0]: next(iter(re.findall(r"\(([\w/.-]+\.md)", entry)), "")
        for entry in entries
    }


def link_terms(markdown: str, at: str, terms: Mapping[str, str]) -> str:
    """Link the first occurrence of each term to the glossary.

    Code, equations, headings, tables, tags, existing links, indented lines and text in quotation
    marks are not changed. A term is not linked on the page that explains it.

    Args:
        markdown: Text of a page.
        at: Path of the page relative to docs/.
        terms: For each term, the page that explains it.
    """
    for term in sorted(terms, key=len, reverse=True):
        anchor = slugify(term, "-")
        if terms[term] == at or anchor in UNLINKED:
            continue
        article = r"(?<=\ba )|(?<=\bthe )|(?<=\beach )|(?<=\bevery )"
        before = f"(?:{article})" if term in NOUNS else r"(?<![\w-])"
        words = r"\s+".join(map(re.escape, term.split()))
        # In "an update rule" and "Student's t", the words "update" and "student" are no terms.
        pattern = re.compile(rf"{before}{words}(?:s|es)?(?![\w-]|\srules?\b|'s\st\b)", re.I)
        target = _from(at, "glossary.md")
        markdown = _link_first(markdown, pattern, f"({target}#{anchor}){{: .term }}")
    return markdown


def _link_first(markdown: str, pattern: re.Pattern[str], target: str) -> str:
    parts = _NOT_PROSE.split(markdown)  # prose, other, prose, ...
    for i in range(0, len(parts), 2):
        found = pattern.search(parts[i])
        if found:
            parts[i] = f"{parts[i][: found.start()]}[{found[0]}]{target}{parts[i][found.end() :]}"
            break
    return "".join(parts)


def _search_boost(at: str) -> float:
    """Return the weight of a page's matches in the site's search; API pages have a low weight."""
    if at.startswith("reference/"):
        return 0.2
    return {"changelog.md": 0.2, "contributing.md": 0.5, "getting-started.md": 3}.get(at, 1)


def _short(name: str) -> str:
    """Return the name of a module in the navigation; for `main`, return the name of its package."""
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
    """Return a relative link between two pages, both given as paths relative to the root."""
    return posixpath.relpath(target.removeprefix("../"), posixpath.dirname(at) or ".")


def _link(found: re.Match[str], at: str) -> str:
    """Return a link to the page of the target, or plain text if the target has no page."""
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
    """Return the page of a repository file on the site, or "" if the file has no page."""
    name = path.relative_to(ROOT).as_posix()
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    public = {p: _reference(dotted) for names in modules().values() for dotted, p in names.items()}
    return {**COPIED, **HOME}.get(name) or public.get(path, "")


def equations(markdown: str) -> Iterator[str]:
    """Yield the LaTeX of all equations of a page that are not in code."""
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
