"""Templates of pages: escaping, the list of sections, and that every template is used."""

import re

import pytest
from jinja2 import UndefinedError

from rlgen.evaluation.report import html
from tests.paths import ROOT

TEMPLATES = ROOT / "rlgen/evaluation/report/templates"
NASTY = '<b onload="x">\'&\x1b[31m\n{{ 7 * 6 }}'
SHOWN = "&lt;b onload=&#34;x&#34;&gt;&#39;&amp;?[31m?{{ 7 * 6 }}"


def page(*sections):
    return html.render(html.Page(NASTY, NASTY, NASTY, NASTY, sections))


def test_heads_cells_labels_notes_and_descriptions_are_escaped():
    label = html.RunLabel(NASTY, 7)
    table = html.Table([NASTY, label], [[label, NASTY]], NASTY)
    figure = html.Figure({"light": b"a", "dark": b"b"}, NASTY, NASTY)
    text = page(
        html.Section(NASTY, "table.html", table),
        html.Section(NASTY, "figure.html", figure),
        html.Section("", "bullets.html", [NASTY]),
    )
    # title and three lines, two headings, table (note, cells), figure (note, alt), bullet
    assert text.count(SHOWN) == 4 + 2 + 5 + 2 + 1
    assert "<b " not in text and "\x1b" not in text
    assert text.count(f'<i class="run run1"></i>{SHOWN}') == 2


@pytest.mark.parametrize("num", [4, 5])
def test_many_titled_parts_are_listed_and_untitled_ones_are_not(num):
    titled = [html.Section(f"Part {i}", "bullets.html", []) for i in range(num)]
    text = page(html.Section("", "bullets.html", []), *titled)
    links = re.findall(r'<li><a href="#([^"]*)">', text)
    assert links == ([f"to-part-{i}" for i in range(num)] if num == 5 else [])


def test_a_value_that_a_template_lacks_is_an_error():
    with pytest.raises(UndefinedError):
        page(html.Section("x", "table.html", {"note": ""}))


def test_no_template_turns_escaping_off():
    unsafe = re.compile(r"\|\s*safe\b|autoescape|xmlattr|tojson")
    assert [p.name for p in TEMPLATES.iterdir() if unsafe.search(p.read_text())] == []


def test_every_template_is_used():
    sources = [p for top in ("rlgen/evaluation", "rlgen/cli") for p in (ROOT / top).rglob("*.py")]
    text = "".join(path.read_text() for path in (*sources, *TEMPLATES.iterdir()))
    assert [p.name for p in sorted(TEMPLATES.iterdir()) if f'"{p.name}"' not in text] == []
