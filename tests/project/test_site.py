"""The documentation site in a real browser: search without a server, code, figures and phones.

Needs Chromium; without it these tests are skipped, unless RLGEN_BROWSER=required says that they
must not be.
"""

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.paths import ROOT
from tests.standins.browser import browser

DESKTOP, PHONE = 1440, 390  # CSS pixels across

# Opens pages one after another in a frame of a given width and measures each.
MEASURE = """<!DOCTYPE html><body style="margin:0"><pre id="answer"></pre><script>
(async () => {
  const found = {};
  for (const [name, page] of Object.entries(PAGES)) {
    const frame = document.createElement("iframe");
    frame.style = "width:WIDTHpx;height:900px;border:0";
    document.body.append(frame);
    await new Promise((done) => { frame.onload = done; frame.src = page; });
    const inside = frame.contentDocument, root = inside.documentElement;
    const cut = [...inside.querySelectorAll("pre, pre > code")]
      .filter((x) => x.scrollWidth > x.clientWidth + 1).map((x) => x.textContent.slice(0, 80));
    inside.body.setAttribute("data-md-color-scheme", "slate");
    const bright = [...inside.querySelectorAll('.md-content img[src$=".png"]')]
      .filter((x) => frame.contentWindow.getComputedStyle(x).filter === "none").map((x) => x.src);
    found[name] = {scroll: root.scrollWidth, client: root.clientWidth, cut, bright};
    frame.remove();
  }
  document.getElementById("answer").textContent = JSON.stringify(found);
})();
</script></body>"""

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site as `make docs` builds it."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--clean", "-d", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser without a window; see `browser`."""
    return browser(tmp_path_factory.mktemp("profile"))


def measure(chromium, site: Path, folder: Path, width: int) -> dict[str, dict]:
    """Widths, cut code and bright figures of all pages but the API reference."""
    pages = {p.relative_to(site).as_posix(): p.as_uri() for p in sorted(site.rglob("*.html"))}
    kept = {name: page for name, page in pages.items() if not name.startswith("reference/")}
    assert len(kept) > 90
    wrapper = folder / "wrapper.html"
    wrapper.write_text(MEASURE.replace("PAGES", json.dumps(kept)).replace("WIDTH", str(width)))
    options = ("--allow-file-access-from-files", "--virtual-time-budget=300000", "--dump-dom")
    printed = chromium(wrapper.as_uri(), *options)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', printed, re.DOTALL)
    assert answer is not None and answer[1], "not all pages were measured"
    return json.loads(html.unescape(answer[1]))


def results(chromium, site: Path, words: str) -> list[str]:
    """Paths that the site's search lists for some words, from a page opened as a file."""
    page = (site / "concepts" / "level.html").as_uri()
    printed = chromium(f"{page}?q={quote(words)}", "--virtual-time-budget=20000", "--dump-dom")
    links = re.findall(r'<a href="([^"]*)" class="md-search-result__link"', printed)
    return [link.removeprefix(site.as_uri()).lstrip("/").partition("?")[0] for link in links]


def test_no_page_shows_markup_that_a_hook_wrote(site):
    pages = {p.relative_to(site).as_posix(): p.read_text() for p in site.rglob("*.html")}
    assert [name for name, text in pages.items() if re.search(r"\{: ?\.term|@@\w+:", text)] == []
    assert [name for name, text in pages.items() if 'class="term"' in text]  # this can fail


def test_code_is_whole_and_figures_are_dark_on_a_desktop(chromium, site, tmp_path):
    found = measure(chromium, site, tmp_path, DESKTOP)
    assert {name: page["cut"] for name, page in found.items() if page["cut"]} == {}
    assert {name: page["bright"] for name, page in found.items() if page["bright"]} == {}
    assert [n for n, page in found.items() if page["scroll"] > page["client"]] == []


def test_no_page_is_wider_than_a_phone(chromium, site, tmp_path):
    found = measure(chromium, site, tmp_path, PHONE)
    assert [n for n, page in found.items() if page["scroll"] > page["client"]] == []
    assert any(page["cut"] for page in found.values())  # long lines scroll there: this can fail


@pytest.mark.parametrize(
    "words, page",
    [
        ("how to install on GPU", "getting-started.html"),
        ("bring your own levels", "guides/own-levels.html"),
        ("metrics.jsonl", "files.html"),
        ("resume a run", "concepts/run.html"),
    ],
)
def test_search_finds_guides_without_a_server(chromium, site, words, page):
    assert results(chromium, site, words)[0] == page
