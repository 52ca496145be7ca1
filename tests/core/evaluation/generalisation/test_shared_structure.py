"""Shared structure of a family: dispersion of values, and coverage of an episode."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.cli.main import main
from rlgen.envs import corridors, maze
from rlgen.evaluation.generalisation.shared_structure import (
    dispersion_of,
    shared_structure,
    structures,
    visits_of,
)


def test_dispersion_is_that_of_a_slow_loop_over_what_any_level_has():
    rng = np.random.default_rng(0)
    values = rng.random((7, 5)) * (rng.random((7, 5)) < 0.6)
    values[:, 2] = 0.0  # a feature of no level
    values[:, 3] = 1.0  # the goal of all levels
    dispersion, variance = dispersion_of(values)
    every = []
    for z in (0, 1, 3, 4):
        column = list(values[:, z])
        mean = sum(column) / 7
        spread = sum((v - mean) ** 2 for v in column) / 7
        every.append((spread, spread / (mean * (1 - mean)) if mean < 1 else 0.0))
    np.testing.assert_allclose(variance, np.mean([x[0] for x in every]))
    np.testing.assert_allclose(dispersion, np.mean([x[1] for x in every]))


@pytest.mark.parametrize("values", [[[0.2, 0.9], [0.2, 0.9]], [[1.0, 0.0], [0.0, 1.0]]])
def test_equal_levels_have_no_dispersion_and_opposite_ones_all_of_it(values):
    expected = 0.0 if values[0] == values[1] else 1.0
    np.testing.assert_allclose(dispersion_of(np.array(values))[0], expected)


def test_a_star_of_corridors_is_measured_exactly():
    """Every distance is known in M corridors of L cells, one of which is rewarded."""
    num, length, limit, discount = 3, 2, 12, 0.9
    env = corridors.build(num_corridors=num, length=length, max_steps=limit, sharing=0.0)
    keys = jax.random.split(jax.random.key(0), 64)
    levels = jax.vmap(env.sample_level)(keys)
    found = shared_structure(env, levels, discount=discount)
    np.testing.assert_allclose(found.coverage, limit / (1 + num * length))
    rewarded = [int(level) for level in np.asarray(levels.rewarded)]
    columns = [[discount**length] * 64]
    for m in range(num):
        for cell in range(1, length + 1):
            away = [length - cell if m == right else length + cell for right in rewarded]
            columns.append([discount**steps for steps in away])
    expected = dispersion_of(np.array(columns).T)
    np.testing.assert_allclose((found.dispersion, found.variance), expected, rtol=1e-4)


@pytest.mark.thorough
def test_what_an_environment_does_not_tell_is_refused():
    env = maze.tiny()
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(ValueError, match="shared structure of event needs an environment with"):
        shared_structure(env, levels, "event")
    assert [found.feature for found in structures(env, 4)] == ["position"]


def test_visits_count_what_is_to_be_counted():
    positions = jnp.asarray([[0, 1], [1, 3]])
    counted = jnp.asarray([[True, True], [True, False]])
    np.testing.assert_array_equal(visits_of(positions, 4, counted), [1, 2, 0, 0])


def test_the_command_prints_what_was_measured(capsys):
    arguments = [
        "list",
        "envs",
        "--shared-structure",
        "--envs",
        "corridors",
        "--levels",
        "3",
        "--json",
    ]
    assert main(arguments) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["env"], row["feature"], row["num_levels"]) == ("corridors", "position", 3)
    assert main([arg for arg in arguments if arg != "--json"]) == 0
    assert "corridors" in capsys.readouterr().out
