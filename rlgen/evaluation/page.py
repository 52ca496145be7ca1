"""The parts of an HTML page: escaped text, tables, sections, embedded pictures, the frame.

Nothing else makes HTML. `text` is the only way in for names and values of a run; the page's own
policy forbids it to load or to run anything, should one be forgotten.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape

from rlgen.evaluation.episodes import printable

NUM_COLOURS = 6


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
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="figure" src="{light}" alt="{text(alt)}"></picture>'
    )


def label(r: int, run: str) -> str:
    """A run's name behind its colour."""
    return f'<i class="run run{r % NUM_COLOURS}"></i>{text(run)}'


def section(title: str, body: str, note: str = "") -> str:
    """A part of the page; `body` is HTML."""
    head = f"<h2>{text(title)}</h2>" if title else ""
    remark = f'<p class="note">{text(note)}</p>' if note else ""
    return f"<section>{head}{remark}{body}</section>"


def folded(title: str, body: str) -> str:
    """HTML that opens at a click on its title."""
    return f"<details><summary>{text(title)}</summary>{body}</details>"


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
    named = {"title": title, "above": above, "headline": lead[0], "aside": lead[1]}
    return _FRAME.format(style=_STYLE, body=body, **{k: text(v) for k, v in named.items()})


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
<p class="note">{aside}</p>
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
@media(prefers-color-scheme:dark){:root{--paper:#171a1f;--ink:#d5d9de;--soft:#9aa3ad;
--line:#363c45;--shade:#1f242b;--run0:#56b4e9;--run1:#e69f00;--run2:#2cc99b;--run3:#e29cc4;
--run4:#f0e442;--run5:#8f9bff}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:54rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.5rem;line-height:1.35;margin:.2rem 0 .8rem;font-weight:600;text-wrap:pretty;
overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 .6rem}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
section{margin-top:2.4rem}
.note{color:var(--soft);margin:0 0 .8rem}
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
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:1.2rem 1rem}
.gallery img,.episodes img{width:100%;image-rendering:pixelated;border:1px solid var(--line)}
.episodes{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1rem}
figcaption{font-size:.9rem;margin-top:.4rem;overflow-wrap:anywhere}
ul{list-style:none;margin:.15rem 0 0;padding:0;color:var(--soft)}
li{display:flex;align-items:center}
li span{margin-left:auto;padding-left:.5em;color:var(--ink);font-variant-numeric:tabular-nums;
white-space:nowrap}
li .run{flex:none}
details{margin-top:1rem}
summary{cursor:pointer;color:var(--soft)}
dl{margin:0;display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.5rem 1.2rem}
dt{font-weight:600;overflow-wrap:anywhere;max-width:12rem}
dd{margin:0;overflow-wrap:anywhere}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.7rem}
h1{font-size:1.25rem}th:first-child{max-width:10rem}.gallery{grid-template-columns:repeat(2,1fr)}}
"""
