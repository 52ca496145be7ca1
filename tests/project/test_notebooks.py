"""The notebooks in `notebooks/`: stripped of output, and runnable from a built wheel."""

import ast
import json
import os
import re
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.conftest import CACHE
from tests.paths import ROOT
from tests.project.test_packaging import run, tree  # noqa: F401 (a fixture)

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = [
    "01_train_and_evaluate",
    "02_write_your_own",
    "03_learn_a_learning_rule",
    "04_bring_your_own_levels",
]
OWN = re.compile(r"rlgen[-_.]|__editable__|_?rlgen$")  # names of files of an installed rlgen
NOWHERE = "http://127.0.0.1:9"  # a proxy that never answers, as no cell may need the network


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_all_four_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem[:2])
def path(request) -> Path:
    return request.param


def test_it_is_valid_and_stripped(path):
    notebook = json.loads(path.read_text())
    nbformat.validate(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, cell["id"]
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info", "colab"}
    assert "version" not in notebook["metadata"]["language_info"]


def test_it_installs_first_and_ends_with_where_to_go(path):
    notebook = read(path)
    first, second, *_ = code(notebook)
    assert '%pip install -q "$SOURCE"' in first and "# @param" in first
    assert 'os.environ.get("RLGEN_SOURCE", SOURCE)' in first and "jax.devices()" in second
    (sizes,) = [source for source in code(notebook) if 'os.environ.get("RLGEN_TINY")' in source]
    assert code(notebook).index(sizes) == 2
    last = notebook.cells[-1]
    assert last.cell_type == "markdown" and last.source.startswith("## Where to go next")


def test_every_cell_is_python_but_for_the_installation(path):
    for source in code(read(path))[1:]:
        ast.parse(source)


def test_what_it_points_at_is_there(path):
    """Files, commands and other notebooks named in the text exist."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    named = re.findall(r"`((?:docs|scripts|rlgen)/[\w/.-]+\.\w+|[A-Z]+\.md)`", text)
    assert named and [name for name in named if not (ROOT / name).is_file()] == []
    from rlgen.cli.main import COMMANDS

    assert set(re.findall(r"`rlgen ([a-z-]+)", text)) <= set(COMMANDS)
    assert {x + "_" for x in re.findall(r"\b(0\d): ", text)} <= {name[:3] for name in NAMES}


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, cwd=tree)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of an environment with all packages installed here except rlgen."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False, symlinks=True)
    libraries = home / "libraries"
    libraries.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not OWN.match(path.name) and path.suffix != ".pth":
            (libraries / path.name).symlink_to(path)
    (site,) = home.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(f"{libraries}\n")
    return home / "bin" / "python"


def kernel(python: Path, folder: Path) -> AsyncKernelManager:
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "wheel", "language": "python"}
    (folder / "wheel").mkdir()
    (folder / "wheel" / "kernel.json").write_text(json.dumps(spec))
    specs = KernelSpecManager(kernel_dirs=[str(folder)], ensure_native_kernel=False)
    return AsyncKernelManager(kernel_name="wheel", kernel_spec_manager=specs)


def environment(wheel: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("MPLBACKEND", "PYTHONPATH")}
    proxies = {name: NOWHERE for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    return {
        **kept,
        **proxies,
        "RLGEN_TINY": "1",
        "RLGEN_SOURCE": str(wheel),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "JAX_COMPILATION_CACHE_DIR": str(CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }


@pytest.mark.thorough
def test_it_runs_from_a_wheel(path, wheel, python, tmp_path):
    notebook = read(path)
    notebook.cells.append(nbformat.v4.new_code_cell("print(rlgen.__file__)"))
    (tmp_path / "specs").mkdir()
    (tmp_path / "here").mkdir()
    client = NotebookClient(
        notebook,
        km=kernel(python, tmp_path / "specs"),
        timeout=600,
        resources={"metadata": {"path": str(tmp_path / "here")}},
    )
    client.owns_km = True  # so that the kernel, which holds a gigabyte, is shut down
    client.execute(env=environment(wheel))
    *cells, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    # A late message of an earlier cell to stderr can be another output of the last cell.
    found = "".join(one.text for one in last.outputs if one.get("name") == "stdout").strip()
    assert Path(found).is_relative_to(python.parent.parent), found
    outputs = [one for cell in cells for one in cell.outputs]
    assert [one for one in outputs if one.output_type == "error"] == []
    drawn = [one for one in outputs if "image/png" in one.get("data", {})]
    assert len(drawn) >= 2
