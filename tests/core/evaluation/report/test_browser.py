"""The pages in a real browser: not blank, following the colour scheme, fitting a phone.

Needs Chromium. Without it these tests are skipped, or fail if RLGEN_BROWSER=required is set.
"""

import html
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.report.comparison import compared, write_comparison
from rlgen.evaluation.report.curriculum_section import CurriculumSummary
from rlgen.evaluation.report.figures import THEMES
from rlgen.evaluation.report.images import gif_bytes
from rlgen.evaluation.report.report import write_report
from rlgen.evaluation.stats.cost import cost_of
from rlgen.evaluation.stats.settings import Intervals
from tests.standins.browser import browser

PHONE = 390  # width in CSS pixels
QUICK = Intervals(reps=200)
LONG = "a-run-whose-name-goes-on-and-on-without-any-space-to-break-it-at-all-" * 2
SCHEMES = {"dark": 0, "light": 1}

# Shows a page in a frame of a given width and reports its size, images and tabs.
ASK = """<!DOCTYPE html><body style="margin:0"><iframe id="page" style="width:WIDTHpx;height:900px;
border:0" srcdoc="PAGE"></iframe><pre id="answer"></pre><script>
document.getElementById("page").onload = (event) => {
  const inside = event.target.contentDocument, root = inside.documentElement;
  const shown = () => [...inside.querySelectorAll(".panel")].map((x) => x.offsetHeight > 0);
  const found = {scroll: root.scrollWidth, client: root.clientWidth, panels: [shown()]};
  found.broken = [...inside.images].filter((x) => x.complete && !x.naturalWidth).length;
  found.images = inside.images.length;
  found.anchors = [...inside.querySelectorAll("nav a")].map((x) => x.getAttribute("href"));
  found.missing = found.anchors.filter((x) => !inside.getElementById(x.slice(1)));
  for (const label of inside.querySelectorAll(".tabs label")) {
    label.click();
    found.panels.push(shown());
  }
  document.getElementById("answer").textContent = JSON.stringify(found);
};</script></body>"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """A browser without a window; see `browser`."""
    return browser(tmp_path_factory.mktemp("profile"))


def evaluation(run, solve, seed):
    """Return a synthetic evaluation of 3 seeds on 12 levels."""
    rng = np.random.default_rng(seed)
    success = rng.random((3, 12, 5)) < solve
    return Evaluation(
        run=run,
        suite="maze/heldout",
        suite_version="1",
        level_names=tuple(f"AnotherLevelOfALongName{i}" for i in range(12)),
        level_hashes=np.arange(24, dtype=np.uint32).reshape(12, 2),
        optimal_steps=np.arange(10, 22),
        optimal_return=np.full(12, 0.9),
        episode_return=success * 0.8,
        length=np.where(success, 20, 50),
        success=success,
        meta={"update": 9, "look": 2, "run": f"somewhere/{LONG}"},
    )


def metrics(num=20):
    steps = [{"train": 80.0 * i, "scout": 20.0 * i} for i in range(1, num + 1)]
    return [
        {
            "update": i + 1,
            "env_steps": x,
            "gradient_updates": 4.0 * i,
            "wall_seconds": 0.5 * i,
            "solve_rate": [i / num, i / num / 2],
        }
        for i, x in enumerate(steps)
    ]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report of two runs and a comparison of five methods, with all sections."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [evaluation("plr", 0.7, 0), evaluation(LONG, 0.3, 1)]
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 255, (40, 40, 3), np.uint8) for name in runs[0].level_names}
    gifs = {f"{LONG}: not solved": gif_bytes(np.zeros((3, 40, 40, 3), np.uint8))}
    curves = {run.run: metrics() for run in runs}
    stories = {run.run: CurriculumSummary(missing=f"{LONG} is damaged") for run in runs}
    report = write_report(folder / "report", runs, images, gifs, curves, QUICK, stories)
    methods = [*runs, *(evaluation(f"method-{i}", 0.2 * i, i) for i in range(3))]
    costs = [cost_of(m.run, metrics(), 9, 3, "1 x cpu (cpu)") for m in methods]
    found = compared(methods, costs, [f"{LONG} is at update 9 of 20."], QUICK)
    comparison = write_comparison(folder / "comparison", found, images, curves, QUICK)
    return {"report": report, "comparison": comparison}


def ask(chromium, page: str, folder: Path, width: int = PHONE) -> dict:
    """Return size, images and tabs of a page shown at the given width."""
    inside = html.escape(page, quote=True)
    wrapper = folder / "wrapper.html"
    wrapper.write_text(ASK.replace("WIDTH", str(width)).replace("PAGE", inside))
    printed = chromium(wrapper.as_uri(), "--virtual-time-budget=10000", "--dump-dom")
    answer = re.search(r'<pre id="answer">(.*?)</pre>', printed, re.DOTALL)
    assert answer is not None
    return json.loads(html.unescape(answer[1]))


def screenshot(chromium, page: Path, folder: Path, scheme: str) -> np.ndarray:
    """Return the pixels of the top of a page, uint8 [H, W, 3]."""
    file = folder / f"{scheme}.png"
    setting = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    chromium(page.as_uri(), setting, f"--screenshot={file}", "--window-size=900,1600")
    with Image.open(io.BytesIO(file.read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def rgb(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_is_as_wide_as_a_phone_and_all_of_it_is_there(chromium, pages, tmp_path, name):
    found = ask(chromium, pages[name].read_text(), tmp_path)
    assert found["scroll"] <= found["client"] == PHONE
    assert found["images"] > 12
    assert found["broken"] == 0
    assert len(found["anchors"]) > 5
    assert found["missing"] == []
    first, *clicked = found["panels"]
    assert first == [True, False, False]
    assert clicked == np.eye(3, dtype=bool).tolist()  # each tab shows only its own panel


def test_a_page_that_is_too_wide_is_seen(chromium, tmp_path):
    """This shows that the test above can fail."""
    found = ask(chromium, '<!DOCTYPE html><div style="width:900px">x</div>', tmp_path)
    assert found["scroll"] > found["client"] == PHONE


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_follows_the_readers_scheme(chromium, pages, tmp_path, scheme):
    """Page and figures have the theme's background, and the page has text."""
    pixels = screenshot(chromium, pages["report"], tmp_path, scheme)
    paper = np.array(rgb(THEMES[scheme].paper))
    is_paper = (pixels == paper).all(axis=-1)
    assert is_paper[[0, 0, -1], [0, -1, 0]].all()
    assert 0.6 < is_paper.mean() < 0.99  # a figure with another background covers a third
    ink = np.abs(pixels.astype(int) - rgb(THEMES[scheme].ink)).sum(axis=-1) < 30
    assert ink.sum() > 1000
    for colour in THEMES[scheme].runs[:2]:  # colours of figure and labels
        assert (np.abs(pixels.astype(int) - rgb(colour)).sum(axis=-1) < 30).sum() > 100


@pytest.mark.thorough
def test_pages_are_not_heavy(pages):
    assert max(page.stat().st_size for page in pages.values()) < 5e6


@pytest.mark.thorough
def test_every_figure_is_drawn_for_both_schemes(pages):
    pairs = r'<source[^>]*srcset="([^"]*)"><img class="figure" src="([^"]*)"'
    found = re.findall(pairs, pages["report"].read_text())
    assert len(found) >= 5
    assert all(dark != light for dark, light in found)
