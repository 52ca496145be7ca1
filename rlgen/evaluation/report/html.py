"""The parts of an HTML page: escaped text, tables, sections, embedded pictures, the frame.

Nothing else makes HTML. `text` is the only way in for names and values of a run; the page's own
policy forbids it to load or to run anything, should one be forgotten.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape

from rlgen.evaluation.episodes import printable

NUM_COLOURS = 6
MAX_TABS = 4
LONG = 5  # sections with a title from which on the page begins with a list of them


def text(words: str) -> str:
    """Words as HTML shows them: escaped, without control characters."""
    return escape(printable(words), quote=True)


def embed(kind: str, data: bytes) -> str:
    """An image (`png`, `gif`) as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture(drawn: Mapping[str, bytes], alt: str) -> str:
    """A figure, PNG by theme, that follows the reader's light or dark setting."""
    light, dark = (embed("png", drawn[theme]) for theme in ("light", "dark"))
    return (
        f'<picture><source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="figure" src="{light}" alt="{text(alt)}"></picture>'
    )


def label(r: int, run: str) -> str:
    """A run's name behind its colour."""
    return f'<i class="run run{r % NUM_COLOURS}"></i>{text(run)}'


def section(title: str, body: str, note: str = "") -> str:
    """A part of the page; `body` is HTML. Titles of one page differ, as its anchors do."""
    anchor = f' id="{slug(title)}"' if title else ""
    head = f"<h2>{text(title)}</h2>" if title else ""
    remark = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section{anchor}>{head}{remark}{body}</section>"


def slug(title: str) -> str:
    """A title as an anchor: small letters, digits and hyphens alone."""
    return "to-" + "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def folded(title: str, body: str) -> str:
    """HTML that opens at a click on its title."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


def numbers(facts: Sequence[tuple[str, str, str]]) -> str:
    """Key numbers side by side: what, the number, and what belongs to it; label is HTML."""
    cells = (
        f"<div><dt>{head}</dt><dd><b>{text(value)}</b><span>{text(rest)}</span></dd></div>"
        for head, value, rest in facts
    )
    return f'<dl class="numbers">{"".join(cells)}</dl>'


def tabs(name: str, panels: Mapping[str, str]) -> str:
    """HTML by title, of which one is shown at a time; all of it on paper.

    Args:
        name: of the choice, another for each on a page.
        panels: at most `MAX_TABS`; the first is shown. One alone is shown without a choice.
    """
    if len(panels) < 2:
        return "".join(panels.values())
    assert len(panels) <= MAX_TABS, "the style sheet shows no more"
    group = slug(name)
    buttons = "".join(
        f'<input type="radio" name="{group}" id="{group}-{i}"{" checked" * (i == 0)}>'
        f'<label for="{group}-{i}">{text(title)}</label>'
        for i, title in enumerate(panels)
    )
    shown = "".join(f'<div class="panel">{body}</div>' for body in panels.values())
    return f'<div class="tabs">{buttons}{shown}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways by itself; heads and cells are HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    parts = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="scroll"><table>{parts}</table></div>'


def frame(title: str, above: str, lead: tuple[str, str], sections: Sequence[str]) -> str:
    """The whole page; `lead` is the headline and what is to be said right below it."""
    body = "\n".join(one for one in sections if one)
    named = {"title": title, "above": above, "headline": lead[0], "caveat": lead[1]}
    parts = {"style": _STYLE, "body": body, "contents": _contents(body)}
    return _FRAME.format(**parts, **{k: text(v) for k, v in named.items()})


def _contents(body: str) -> str:
    """Links to the sections, where there are many."""
    found = dict(re.findall(r'<section id="([^"]+)"><h2>(.*?)</h2>', body))
    links = "".join(f'<li><a href="#{at}">{title}</a></li>' for at, title in found.items())
    many = len(found) >= LONG
    return f'<nav aria-label="Parts of this page"><ul>{links}</ul></nav>' if many else ""


_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="note">{above}</p>
<h1>{headline}</h1>
<p class="note">{caveat}</p>
{contents}
</header>
{body}
</main>
</body>
</html>
"""

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#22262b;--soft:#5c646e;--line:#d9dce1;
--shade:#f4f5f7;--run0:#0072b2;--run1:#d55e00;--run2:#009e73;--run3:#cc79a7;--run4:#b58900;
--run5:#56b4e9}
@media screen and (prefers-color-scheme:dark){:root{--paper:#171a1f;--ink:#d5d9de;--soft:#9aa3ad;
--line:#363c45;--shade:#1f242b;--run0:#56b4e9;--run1:#e69f00;--run2:#2cc99b;--run3:#e29cc4;
--run4:#f0e442;--run5:#8f9bff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:54rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;line-height:1.35;margin:.2rem 0 .8rem;font-weight:600;text-wrap:pretty;
overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 .6rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem;overflow-wrap:anywhere}
section{margin-top:2.4rem}
.note{color:var(--soft);margin:0 0 .8rem;overflow-wrap:anywhere}
a{color:inherit;text-decoration-color:var(--line);text-underline-offset:.2em}
nav ul{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;font-size:.9rem}
.numbers{display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:.6rem}
.numbers div{background:var(--shade);border-radius:.4rem;padding:.6rem .8rem;min-width:0}
.numbers dt{font-weight:500;font-size:.9rem;max-width:none}
.numbers dd{margin:0}
.numbers b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.numbers span{color:var(--soft);font-size:.85rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:.3rem .9rem .3rem 0;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}
th{font-weight:600}
thead th{color:var(--soft);font-weight:500}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);max-width:14rem;
min-width:8.2rem;white-space:normal;overflow-wrap:break-word}
.run{display:inline-block;width:.7em;height:.7em;border-radius:50%;margin-right:.45em}
.run0{background:var(--run0)}.run1{background:var(--run1)}.run2{background:var(--run2)}
.run3{background:var(--run3)}.run4{background:var(--run4)}.run5{background:var(--run5)}
figure{margin:0}
img{display:block;max-width:100%}
.figure{width:100%;max-width:38rem;height:auto}
.tabs>input{position:absolute;opacity:0}
.tabs>label{display:inline-block;padding:.15rem .1rem;margin:0 1rem .7rem 0;color:var(--soft);
cursor:pointer;border-bottom:2px solid transparent}
.tabs>input:checked+label{color:var(--ink);border-color:var(--run0)}
.tabs>input:focus-visible+label{outline:2px solid var(--run0);outline-offset:2px}
.panel{display:none}
.tabs>input:nth-of-type(1):checked~.panel:nth-of-type(1),
.tabs>input:nth-of-type(2):checked~.panel:nth-of-type(2),
.tabs>input:nth-of-type(3):checked~.panel:nth-of-type(3),
.tabs>input:nth-of-type(4):checked~.panel:nth-of-type(4){display:block}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1.2rem 1rem}
.gallery img,.episodes img{width:100%;image-rendering:pixelated;border:1px solid var(--line)}
.episodes{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1rem}
figcaption{font-size:.9rem;margin-top:.4rem;overflow-wrap:anywhere}
ul{list-style:none;margin:.15rem 0 0;padding:0;color:var(--soft)}
ul.plain{color:inherit}
ul.plain li{display:list-item;margin:.3rem 0;overflow-wrap:anywhere}
li{display:flex;align-items:center}
li span{margin-left:auto;padding-left:.5em;color:var(--ink);font-variant-numeric:tabular-nums;
white-space:nowrap}
li .run{flex:none}
details{margin-top:1rem}
summary{cursor:pointer;color:var(--soft);overflow-wrap:anywhere}
dl{margin:0;display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.5rem 1.2rem}
dt{font-weight:600;overflow-wrap:anywhere;max-width:12rem}
dd{margin:0;overflow-wrap:anywhere}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.7rem}
.numbers dd{margin:0}h1{font-size:1.25rem}th:first-child{max-width:10rem}
.gallery{grid-template-columns:repeat(2,minmax(0,1fr))}}
@media print{main{max-width:none;padding:0}nav,.tabs>input,.tabs>label{display:none}
.tabs>.panel.panel{display:block}.scroll{overflow:visible}
th,td{white-space:normal}details::details-content{content-visibility:visible;height:auto}
figure,tr,.figure{break-inside:avoid}h2,h3{break-after:avoid}}
"""
