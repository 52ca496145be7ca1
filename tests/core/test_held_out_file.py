"""The file with the hashes of the sealed suites agrees with the suites of all environments."""

import runpy

import numpy as np
import pytest

from rlgen import held_out, registry, testing
from tests.paths import ROOT

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "make_held_out.py"))
FAMILIES = [name for name in registry.names("envs") if not registry.missing_extra(name)]
"""Families whose packages are installed."""


def agrees(env, built=None):
    known, found = held_out.shipped()[held_out.key_of(env)], held_out.build_hashes(env, built)
    assert known.keys() == found.keys()
    for name, (shapes, hashes) in found.items():
        assert known[name][0] == shapes, name
        np.testing.assert_array_equal(known[name][1], hashes, name)


def test_the_file_agrees_with_quickly_built_suites():
    for name in ("chain", "corridors", "cart-pole"):
        agrees(registry.make_env(name))


def check_family(name, modes=("",)):
    """Compare the environments of a family whose keys contain one of `modes` with the file."""
    built = {}  # suites that variants share are built once
    found = SCRIPT["environments"](name)
    chosen = [env for key, env in found.items() if any(mode in key for mode in modes)]
    assert len(chosen) >= len(modes)
    for env in chosen:
        agrees(env, built)


@pytest.mark.thorough
@pytest.mark.parametrize("name", SCRIPT["FAMILIES"])
def test_the_file_agrees_with_the_suites(name):
    # The solvers of most modes of grid worlds run for minutes.
    check_family(name, ('"rand-tiny"', '"debug"') if name == "gridworld" else ("",))


@pytest.mark.slow
def test_the_file_agrees_with_the_suites_of_all_modes_of_grid_worlds():
    check_family("gridworld")


@pytest.mark.thorough
@pytest.mark.parametrize("name", FAMILIES)
def test_no_family_trains_on_held_out_levels(name):
    variants = registry.variants(registry.load("envs", name))
    for one in (name, *(f"{name}/{variant}" for variant in variants)):
        testing.check_held_out(registry.make_env(one))


def test_fields_outside_suite_fields_do_not_change_the_suites():
    # The slow families are compared in all of their variants by the thorough tests above.
    pole = registry.make_env("cart-pole")
    assert pole.suite_fields == () and held_out.key_of(pole) == "cart-pole {}"
    other = type(pole)(max_steps=77)
    for name, (shapes, hashes) in held_out.build_hashes(other).items():
        assert held_out.shipped()["cart-pole {}"][name][0] == shapes
        np.testing.assert_array_equal(held_out.shipped()["cart-pole {}"][name][1], hashes)
