"""The file with the hashes of the sealed suites agrees with the suites of all environments."""

import os
import runpy
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import held_out, registry, testing
from rlgen.envs.gridworld.env import GridWorld
from rlgen.types import Solution
from tests.paths import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_held_out.py"))
FAMILIES = [name for name in registry.names("envs") if not registry.missing_extra(name)]
"""Families whose packages are installed."""


def agrees(env, built=None, without=()):
    known, found = held_out.shipped()[held_out.key_of(env)], held_out.build_hashes(env, built)
    assert known.keys() == found.keys()
    for name in known.keys() - set(without):
        assert known[name][0] == found[name][0], name
        np.testing.assert_array_equal(known[name][1], found[name][1], name)


def test_the_file_agrees_with_quickly_built_suites():
    for name in ("cart-pole", "mountain-car", "pendulum"):
        env = registry.make_env(name)
        assert held_out.shipped()[held_out.key_of(env)], "no suite of this family is sealed"
        agrees(env)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(SCRIPT["FAMILIES"]) - {"gridworld"}))
def test_the_file_agrees_with_all_suites(name):
    built = {}  # suites that variants share are built once
    for env in SCRIPT["environments"](name).values():
        agrees(env, built)


@pytest.mark.thorough
def test_the_file_agrees_with_suites_of_grid_worlds_that_need_no_solver(monkeypatch):
    """The solver runs for minutes; only `test` depends on it, where it leaves out levels."""

    def solve(self, level):
        return Solution(jnp.bool_(True), jnp.int32(1), jnp.float32(1.0))

    monkeypatch.setattr(GridWorld, "solve", solve)
    built = {}
    for env in SCRIPT["environments"]("gridworld").values():
        agrees(env, built, without=("test",) if env.is_tabular else ())


@pytest.mark.slow
def test_the_file_agrees_with_all_suites_of_grid_worlds():
    # In another process: without the flags that make compiling in tests fast and solvers slow.
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    script = ROOT / "scripts" / "make_held_out.py"
    command = [sys.executable, str(script), "--check", "gridworld"]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_trains_on_held_out_levels(name):
    variants = registry.variants(registry.load("envs", name))
    for one in (name, *(f"{name}/{variant}" for variant in variants)):
        testing.check_held_out(registry.make_env(one))


def test_fields_outside_suite_fields_do_not_change_the_suites():
    # The slow families are compared in all of their variants by the tests above.
    pole = registry.make_env("cart-pole")
    assert pole.suite_fields == () and held_out.key_of(pole) == "cart-pole {}"
    other = type(pole)(max_steps=77)
    for name, (shapes, hashes) in held_out.build_hashes(other).items():
        assert held_out.shipped()["cart-pole {}"][name][0] == shapes
        np.testing.assert_array_equal(held_out.shipped()["cart-pole {}"][name][1], hashes)
