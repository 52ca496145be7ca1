"""Distributions: wheel, source distribution, editable install, lock file and versions."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import rlgen
from tests.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
FOLDERS = PROJECT["tool"]["setuptools"]["package-dir"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
MODULES = {
    "docstring-parser": "docstring_parser",
    "orbax-checkpoint": "orbax",
    "pillow": "pil",
    "pyyaml": "yaml",
}

# Runs with the site-packages of this environment but without its `.pth` files, so that the
# editable rlgen installed here cannot supply files that the built package lacks.
IMPORT = """
import site, sys
from importlib.metadata import entry_points
target, libraries, *sys.argv = sys.argv[1:]
site.addsitedir(target)
sys.path.append(libraries)
import rlgen, rlgen.envs, rlgen.algos
from rlgen import registry
for kind in registry.KINDS:
    for name in registry.names(kind):
        registry.load(kind, name)
print(*(m.__file__ for m in (rlgen, rlgen.envs, rlgen.algos)), sep="\\n")
sys.argv = ["rlgen", "list"]
(command,) = entry_points(group="console_scripts", name="rlgen")
command.load()()
"""


def run(*command: str | Path, cwd: Path, **kwargs) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip_install(target: Path, *what: str | Path) -> None:
    arguments = ("--no-deps", "--no-build-isolation", "--no-index", "--target", target)
    run(sys.executable, "-m", "pip", "-qq", "install", *arguments, *what, cwd=ROOT)


def name_of(requirement: str) -> str:
    """Return a normalised name: `Orbax_Checkpoint>=1` becomes `orbax-checkpoint`."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\s\[<>=!~;(]", requirement)[0]).lower()


def package_of(folder: Path) -> str:
    """Return the dotted name of the package that a folder of the repository becomes."""
    name = ".".join(folder.relative_to(ROOT).parts)
    return name if name.startswith("rlgen") else f"rlgen.{name}"


def library_files() -> dict[Path, str]:
    """Return every Python file of the library with its name in the wheel."""
    links = (ROOT / "rlgen" / "envs", ROOT / "rlgen" / "algos")
    tops = [ROOT / folder for folder in {folder.split("/")[0] for folder in FOLDERS.values()}]
    paths = [path for top in tops for path in top.rglob("*.py")]
    own = [path for path in paths if not any(link in path.parents for link in links)]
    return {p: f"{package_of(p.parent).replace('.', '/')}/{p.name}" for p in own}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the files that git does not ignore, so that build artefacts do not interfere."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    copy = tmp_path_factory.mktemp("tree")
    for name in filter(None, names.split("\0")):
        if os.path.lexists(ROOT / name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy


@pytest.fixture(scope="module")
def built(tree, tmp_path_factory) -> dict[str, Path]:
    """The source distribution, the wheel built from it, and the wheel built from the tree."""
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    both, direct = tmp_path_factory.mktemp("both"), tmp_path_factory.mktemp("direct")
    run(*build, both, cwd=tree)
    run(*build, direct, "--wheel", cwd=tree)
    one = {
        "sdist": both.glob("*.tar.gz"),
        "wheel": both.glob("*.whl"),
        "direct": direct.glob("*.whl"),
    }
    return {kind: next(found) for kind, found in one.items()}


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.thorough
def test_the_wheel_adds_one_name_to_site_packages(built):
    tops = {name.split("/")[0] for name in contents(built["wheel"])}
    assert tops == {"rlgen", f"rlgen-{rlgen.__version__}.dist-info"}


@pytest.mark.thorough
def test_the_wheel_holds_every_module(built):
    assert set(library_files().values()) | {"rlgen/py.typed"} <= contents(built["wheel"])


def test_the_wheel_holds_the_templates_of_pages(built):
    folder = "rlgen/evaluation/report/templates"
    names = {path.name for path in (ROOT / folder).iterdir()}
    assert {"page.html", "style.css"} < names
    assert {f"{folder}/{name}" for name in names} <= contents(built["wheel"])


def test_a_wheel_from_the_source_distribution_lacks_nothing(built):
    assert contents(built["wheel"]) == contents(built["direct"])


def test_the_source_distribution_holds_each_module_once(built):
    with tarfile.open(built["sdist"]) as archive:
        names = [name for name in archive.getnames() if name.endswith("/__init__.py")]
    assert len(names) == len(PACKAGES)
    assert not any("rlgen/envs" in name or "rlgen/algos" in name for name in names)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_it_runs_from_another_folder(kind, built, tree, tmp_path):
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "editable":
        pip_install(target, "--editable", tree)
    else:
        pip_install(target, built[kind])
    libraries = sysconfig.get_path("purelib")
    out = run(sys.executable, "-I", "-S", "-c", IMPORT, target, libraries, cwd=elsewhere)
    home = tree if kind == "editable" else target
    files = [Path(line) for line in out.splitlines()[:3]]
    assert all(file.is_relative_to(home) for file in files), files
    assert "maze" in out and "robust-plr" in out


@pytest.mark.parametrize("folder", ["envs", "algos"])
def test_the_bare_name_is_refused(folder):
    command = [sys.executable, "-c", f"import {folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"import this package as rlgen.{folder}" in done.stderr


@pytest.mark.parametrize("folder", ["envs", "algos"])
def test_the_links_for_static_tools_are_there(folder):
    assert os.readlink(ROOT / "rlgen" / folder) == f"../{folder}"


def test_git_keeps_every_module(tree):
    names = [path.relative_to(ROOT).as_posix() for path in library_files()]
    assert [name for name in names if not (tree / name).exists()] == []


def test_every_folder_of_the_library_is_a_shipped_package():
    assert {package_of(path.parent) for path in library_files()} == set(PACKAGES)


def test_what_the_library_imports_is_declared():
    declared = PROJECT["project"]["dependencies"] + [
        one for each in EXTRAS.values() for one in each
    ]
    names = {name_of(requirement) for requirement in declared}
    allowed = {MODULES.get(name, name) for name in names} | {"rlgen", *sys.stdlib_module_names}
    found = {}
    for path in library_files():
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            roots = [module.split(".")[0] for module in modules]
            found |= {root: path.name for root in roots if root.lower() not in allowed}
    assert found == {}


def test_the_lock_holds_names_and_versions_alone():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert [s for s in lines if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[\w.]*", s)] == []


def test_the_lock_covers_what_is_asked_for():
    lock = {name_of(line) for line in (ROOT / "requirements.lock").read_text().splitlines()}
    asked = PROJECT["project"]["dependencies"] + EXTRAS["test"] + EXTRAS["dev"]
    assert {name_of(requirement) for requirement in asked} - {"rlgen"} - lock == set()


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert rlgen.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert re.search(rf"^## .*{re.escape(version)}", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
