"""The Python snippets of README and pages run as they stand, in the order of their page."""

import functools
import re
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

from rlgen import config
from rlgen.algos.recipes.ued import plr
from rlgen.algos.rules.networks import RuleInputs
from rlgen.curriculum import Curriculum
from rlgen.levels import DistributionShift
from rlgen.runs import training
from rlgen.runs.spec import RunSpec
from tests.paths import ROOT
from tests.standins.small_agent import SMALL_AGENT

OTHERS = ("CONTRIBUTING.md", "docs/guides/own-components.md")  # run by test_guide.py
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = {path.relative_to(ROOT).as_posix(): PYTHON.findall(path.read_text()) for path in FILES}
SNIPPETS = {name: code for name, code in PAGES.items() if code and name not in OTHERS}

SMALL = SMALL_AGENT | {"num_slots": 4, "student.num_steps": 8, "sampler.capacity": 8}


def context(page: str) -> dict[str, Any]:
    """Names that a page's snippets use and its text introduces."""
    if page == "docs/ladder.md":
        return {"DistributionShift": DistributionShift}
    if page == "docs/learned-rules.md":
        scalar, vector = jnp.full((5, 1), 0.5), jnp.full((5, 1, 8), 1 / 8)
        done = jnp.zeros((5, 1), bool)
        return {"inputs": RuleInputs(scalar, done, scalar, vector, vector, scalar)}
    return {}


def prepare(code: str) -> None:
    """Make the files that a snippet of the guide on own levels reads."""
    if '"mine.txt"' in code:
        rows = [f"{'.' * i}#{'.' * (7 - i)}\n>......G\n" for i in range(8)]
        Path("mine.txt").write_text("\n".join(rows))
    if "runs/fixed-plr" in code:  # the three runs are one, as only their folders matter here
        own = SMALL | {"sampler.path": "train.npz"}
        del own["sampler.capacity"]
        spec = RunSpec("fixed", "maze", steps=4 * 8 * 2, chunk=1, overrides=own)
        training.train(spec, Path("runs/fixed"))
        for name in ("fixed-plr", "dred"):
            shutil.copytree("runs/fixed", f"runs/{name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the run that the pages train, as small as it can be."""
    place = tmp_path_factory.mktemp("snippets")
    spec = RunSpec("plr", "maze", steps=4 * 8 * 3, chunk=1, seeds=2, overrides=SMALL)
    training.train(spec, place / "runs" / "plr")
    return place


@pytest.mark.thorough
@pytest.mark.parametrize("page", SNIPPETS)
def test_the_snippets_of_a_page_run(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    build = plr.build  # of the same method with networks and rollouts that compile in seconds

    @functools.wraps(build)
    def small(*args: Any, **names: Any) -> Curriculum:
        return config.override(build(*args, **names), SMALL)

    monkeypatch.setattr(plr, "build", small)
    names = context(page)
    for code in SNIPPETS[page]:
        prepare(code)
        exec(compile(code, page, "exec"), names)
