"""HTML pages: the data that a page holds, and its rendering by the templates of this package.

Nothing else makes HTML. Templates escape every value that they show (`autoescape`), and a value's
control characters are replaced first, so that names of a run cannot leave the text. The page's own
policy forbids it to load or to run anything.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rlgen.evaluation.episodes import hex_hash, printable
from rlgen.evaluation.report.results import write
from rlgen.evaluation.stats.formatting import (
    interval_name,
    level_details,
    show,
    show_count,
    show_interval,
    show_span,
)

Pictures = Mapping[str, bytes]
"""One figure as PNG, by theme: `light` and `dark`."""


class RunLabel(NamedTuple):
    """A run's name, shown behind its colour."""

    run: str
    place: int  # among all runs of the page, from 0; colours repeat


class Table(NamedTuple):
    """Heads and cells of a table; the first cell of a row is its head."""

    heads: Sequence[str | RunLabel]
    rows: Sequence[Sequence[str | RunLabel]]
    note: str = ""  # above the table


class Figure(NamedTuple):
    """A figure that follows the reader's light or dark setting."""

    drawn: Pictures
    alt: str
    note: str = ""  # above the figure


class Section(NamedTuple):
    """A part of a page: a template, and the numbers, texts and pictures that it shows."""

    title: str  # titles of one page differ, as its anchors do; "" for a part without a heading
    template: str  # such as `gallery.html`, of the folder `templates`
    data: Any  # what the template calls `data`


class Page(NamedTuple):
    """A whole page."""

    title: str
    above: str  # a line above the headline
    headline: str
    caveat: str  # a line below it
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The page as HTML that loads nothing and runs nothing."""
    return _environment().get_template("page.html").render(page=page)


def write_page(
    folder: Path | str, page: Page, files: Mapping[str, bytes], patterns: Sequence[str] = ()
) -> Path:
    """Write `report.html` and the files beside it, each of which appears whole or not at all.

    Args:
        folder: made if need be.
        page: what to render.
        files: by their names.
        patterns: names of files as pages of this kind have them; earlier ones of these names that
            are not replaced are deleted.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write(folder / name, data)
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        if path.name not in files:
            path.unlink()
    path = folder / "report.html"
    write(path, render(page).encode())
    return path


@cache
def _environment() -> Environment:
    """The templates of this package; a value that is missing is an error."""
    made = Environment(
        loader=PackageLoader("rlgen.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_control_characters,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "anchor": _anchor,
        "count": show_count,
        "details": level_details,
        "embed": _embed,
        "hash": hex_hash,
        "interval": show_interval,
        "interval_name": interval_name,
        "plain": _plain,
        "score": show,
        "span": show_span,
        "thousands": "{:,}".format,
    }
    made.tests["run_label"] = lambda x: isinstance(x, RunLabel)
    return made


def _without_control_characters(value: Any) -> Any:
    """A value to be shown; pieces that templates made are left as they are."""
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return printable(value)
    return value


def _anchor(title: str) -> str:
    """A title as an anchor: small letters, digits and hyphens alone."""
    return "to-" + "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _embed(data: bytes, kind: str) -> str:
    """An image (`png`, `gif`) as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _plain(value: object) -> str:
    """A value of an evaluation's `meta`: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
