#!/usr/bin/env bash
# Run the tests on the oldest and newest supported versions, and check the built packages.
#
#   scripts/check_versions.sh [LANE ...]     all lanes by default, one after another
#
#   floor    Python 3.11, every run-time dependency at the lower bound of pyproject.toml
#   newest   Python 3.11, every dependency at the newest version that pyproject.toml allows
#   next     Python 3.12 or 3.13, jax 0.11
#   alone    the wheel, then the source distribution, built and installed without extras:
#            imports, `rlgen list` and `rlgen --help` from another folder
#
# Each lane creates its environment `.venv-LANE` from scratch. A missing Python is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

find_python() { # print the first working interpreter of the given minor versions
  local version candidate
  for version in "$@"; do
    for candidate in "python$version" "$HOME"/.pyenv/versions/"$version".*/bin/python; do
      if "$candidate" -c "import ensurepip, sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" \
        2>/dev/null; then
        echo "$candidate"
        return
      fi
    done
  done
  echo "Python $(printf '%s or ' "$@" | sed 's/ or $//') is needed, but not installed" >&2
  return 1
}

fresh_venv() { # fresh_venv LANE PYTHON
  echo "$1: $("$2" --version), setting up .venv-$1"
  "$2" -m venv --clear ".venv-$1"
}

install() { # install LANE ARGUMENT ...
  local lane=$1
  shift
  "$root/.venv-$lane/bin/python" -m pip --disable-pip-version-check --no-input -qq install "$@"
}

lower_bounds() { # print the run-time dependencies "name>=x,<y" as "name==x"
  "$1" - <<'PYTHON'
import re, tomllib

with open("pyproject.toml", "rb") as file:
    dependencies = tomllib.load(file)["project"]["dependencies"]
for dependency in dependencies:
    if bound := re.match(r"([\w.-]+)>=([\w.]+)", dependency):
        print("==".join(bound.groups()))
PYTHON
}

suite() { # suite LANE REQUIREMENT ...
  local lane=$1
  install "$lane" -e ".[test]" "${@:2}"
  ".venv-$lane/bin/python" -c 'import sys, jax, flax, numpy
print(f"python {sys.version.split()[0]}, jax {jax.__version__}, flax {flax.__version__}, numpy {numpy.__version__}")'
  ".venv-$lane/bin/python" -m pytest -q -n 2 --dist loadfile -m "not slow"
}

build() { # build the wheel and the source distribution in $scratch/dist
  fresh_venv alone "$1"
  install alone build
  .venv-alone/bin/python -m build --outdir "$scratch/dist" >"$scratch/log" 2>&1 || {
    cat "$scratch/log"
    return 1
  }
}

run_elsewhere() { # run the package installed in .venv-alone from an empty folder
  mkdir -p "$scratch/elsewhere"
  cd "$scratch/elsewhere"
  "$root/.venv-alone/bin/python" -c 'import pathlib, rlgen, rlgen.algos, rlgen.envs
here = pathlib.Path(rlgen.__file__).parent
assert here.parent.name == "site-packages", here
for part in (rlgen.envs, rlgen.algos):
    assert pathlib.Path(part.__file__).is_relative_to(here), part.__file__'
  "$root/.venv-alone/bin/rlgen" list
  "$root/.venv-alone/bin/rlgen" --help >/dev/null
  cd "$root"
}

lane() {
  local python
  case $1 in
    floor)
      python=$(find_python 3.11)
      fresh_venv floor "$python"
      lower_bounds "$python" >"$scratch/floor.txt"
      suite floor -c "$scratch/floor.txt"
      ;;
    newest)
      python=$(find_python 3.11)
      fresh_venv newest "$python"
      suite newest
      ;;
    next)
      python=$(find_python 3.13 3.12)
      fresh_venv next "$python"
      suite next "jax>=0.11,<0.12"
      ;;
    alone)
      python=$(find_python 3.11 3.12 3.13)
      build "$python"
      fresh_venv alone "$python"
      install alone "$scratch"/dist/*.whl
      run_elsewhere
      install alone --force-reinstall --no-deps "$scratch"/dist/*.tar.gz
      run_elsewhere
      ;;
    *)
      echo "unknown lane '$1'; known: floor, newest, next, alone" >&2
      return 2
      ;;
  esac
}

[ $# -gt 0 ] || set -- floor newest next alone
for name in "$@"; do
  lane "$name"
  echo "$name: ok"
done
