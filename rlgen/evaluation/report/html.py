"""HTML pages: data types for their content, and rendering with the templates of this package.

All HTML of rlgen is generated here. Control characters in values are replaced, and templates escape
every value (`autoescape`), so names of runs cannot inject markup. The content security policy of
each page forbids loading resources and running scripts.
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
    show_p,
    show_span,
)

Pictures = Mapping[str, bytes]
"""One figure as PNG for each theme, `light` and `dark`."""


class RunLabel(NamedTuple):
    """Name of a run, shown after a mark in the run's colour."""

    run: str
    place: int  # index of the run among all runs of the page; it determines the colour


class Table(NamedTuple):
    """Headings and cells of a table; the first cell of each row is the row's heading."""

    heads: Sequence[str | RunLabel]
    rows: Sequence[Sequence[str | RunLabel]]
    note: str = ""  # shown above the table


class Figure(NamedTuple):
    """Figure with a version for each theme; the reader's browser chooses the theme."""

    drawn: Pictures
    alt: str
    note: str = ""  # shown above the figure


class Section(NamedTuple):
    """Section of a page: a template, and the numbers, texts and pictures that it shows."""

    title: str  # unique within a page, because the anchor is made from the title; "" for none
    template: str  # file in the folder `templates`, such as `gallery.html`
    data: Any  # available to the template as `data`


class Page(NamedTuple):
    """Complete page."""

    title: str
    above: str  # line above the headline
    headline: str
    caveat: str  # line below the headline
    sections: Sequence[Section]


def render(page: Page) -> str:
    """Render the page as HTML that loads no resources and runs no scripts."""
    return _environment().get_template("page.html").render(page=page)


def write_page(
    folder: Path | str, page: Page, files: Mapping[str, bytes], patterns: Sequence[str] = ()
) -> Path:
    """Write `report.html` and its accompanying files, each atomically.

    Args:
        folder: Output folder, created if missing.
        page: Page to render.
        files: Contents of the other files, by name.
        patterns: File name patterns of this kind of page. Files in the folder that match a pattern
            and are not in `files` come from an earlier page and are deleted.

    Returns:
        Path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write(folder / name, data)
    # Otherwise figures of an earlier page would seem to belong to this page.
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        if path.name not in files:
            path.unlink()
    # The page is written last, when all its other files are complete.
    path = folder / "report.html"
    write(path, render(page).encode())
    return path


@cache
def _environment() -> Environment:
    """Jinja environment with the templates of this package; undefined values raise errors."""
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
        "p_value": show_p,
        "plain": _plain,
        "score": show,
        "span": show_span,
        "thousands": "{:,}".format,
    }
    made.tests["run_label"] = lambda x: isinstance(x, RunLabel)
    return made


def _without_control_characters(value: Any) -> Any:
    """Replace control characters in a value; markup that the templates made is unchanged."""
    # Markup is produced by the templates themselves and contains line breaks.
    if isinstance(value, str) and not isinstance(value, Markup) and not value.isprintable():
        return printable(value)
    return value


def _anchor(title: str) -> str:
    """Convert a title to an anchor of lower-case letters, digits and hyphens."""
    return "to-" + "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def _embed(data: bytes, kind: str) -> str:
    """Encode an image (`png` or `gif`) as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _plain(value: object) -> str:
    """Format a value of `Evaluation.meta`: text is unchanged, other values become JSON."""
    return value if isinstance(value, str) else json.dumps(value)
