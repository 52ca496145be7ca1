"""The graph of a level, and the distributions that a decoder's outputs parametrise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jaxtyping import Array

from rlgen.algos.level_models import level_graph
from rlgen.algos.level_models.heads import Heads
from rlgen.algos.level_models.objective import Objective
from rlgen.codec import Cells, Choice, Flags, Numbers, Place
from tests.standins.caves import EMPTY, FREE, KINDS, LAVA, MOSS, WALL, cave_levels, cave_parts

MIXED = (
    *cave_parts(3, 4),
    Choice("direction", 4),
    Numbers("numbers", 3),
    Flags("flags", 2),
)


def mixed_level(seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    level = {name: x[0] for name, x in cave_levels(1, 3, 4, seed).items()}
    numbers = jnp.asarray(rng.normal(size=3), jnp.float32)
    return level | {
        "direction": jnp.asarray(2),
        "numbers": numbers,
        "flags": jnp.array([True, False]),
    }


# Graphs.


def reference_adjacency(level: dict[str, np.ndarray]) -> np.ndarray:
    """Build the edges of a cave, one by one."""
    width = level["layout"].shape[1]
    kinds, places = level["layout"].reshape(-1), [int(level["goal"]), int(level["start"])]
    edges = np.zeros((kinds.size, kinds.size))
    free = [kind in FREE for kind in kinds]
    for a in range(kinds.size):
        for b in range(kinds.size):
            near = abs(a // width - b // width) + abs(a % width - b % width) == 1
            marks = kinds[a] in (LAVA, MOSS) and a not in places and b == places[0]
            if (near and free[a] == free[b]) or marks or {a, b} == set(places):
                edges[a, b] = edges[b, a] = 1
    return edges


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
def test_shifts_sum_what_the_matrix_of_adjacency_does(seed):
    cells = cave_parts(3, 4)[0]
    level = jax.tree.map(lambda x: x[0], cave_levels(1, 3, 4, seed))
    graph = level_graph.graph_of(cells, level["layout"], {k: level[k] for k in ("goal", "start")})
    edges = reference_adjacency(jax.device_get(level))
    np.testing.assert_array_equal(level_graph.adjacency(graph), edges)
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(12, 5)), jnp.float32)
    np.testing.assert_allclose(level_graph.sum_neighbours(graph, x), edges @ x, atol=1e-5)


def test_a_node_under_a_place_is_that_place_only():
    cells = cave_parts(1, 3)[0]
    places = {"goal": jnp.asarray(0), "start": jnp.asarray(2)}
    found = level_graph.features(cells, jnp.array([[EMPTY, LAVA, EMPTY]]), places)
    expected = [[0, 0, 0, 0, 1, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1]]
    assert found.tolist() == expected


@pytest.mark.thorough
def test_three_places_on_one_cell_are_joined_once():
    cells = Cells("layout", (1, 4), KINDS, ("empty",))
    places = {name: jnp.asarray(at) for name, at in (("a", 0), ("b", 0), ("c", 3))}
    graph = level_graph.graph_of(cells, jnp.zeros((1, 4), jnp.int32), places)
    edges = level_graph.adjacency(graph)
    assert float(edges[0, 0]) == 0
    assert float(edges[0, 3]) == float(edges[3, 0]) == 1


# Heads.


def test_likelihoods_are_those_of_scipy():
    heads, level = Heads(MIXED, Objective(number_scale=0.3)), mixed_level()
    outputs = jax.random.normal(jax.random.key(1), (heads.num_outputs,))
    found = heads.log_likelihood(outputs, level)
    cut = np.split(np.asarray(outputs, float), np.cumsum([48, 12, 12, 4, 3]))
    layout, goal, start = (
        np.asarray(level["layout"]).reshape(-1),
        *map(int, (level["goal"], level["start"])),
    )
    log_prob = np.log(scipy.special.softmax(cut[0].reshape(12, 4), -1))
    each = log_prob[np.arange(12), layout]
    each[[goal, start]] = log_prob[[goal, start]][:, FREE].mean(-1)
    free = np.isin(layout, FREE)
    legal = free & (np.arange(12) != goal)
    expected = {
        "layout": each.mean(),
        "goal": np.log(scipy.special.softmax(np.where(free, cut[1], -np.inf))[goal]),
        "start": np.log(scipy.special.softmax(np.where(legal, cut[2], -np.inf))[start]),
        "direction": np.log(scipy.special.softmax(cut[3])[2]),
        "numbers": scipy.stats.norm.logpdf(np.asarray(level["numbers"]), cut[4], 0.3).mean(),
        "flags": np.log(scipy.special.expit(cut[5] * [1, -1])).mean(),
    }
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-4), name
    weights = Objective()
    bound = weights.cells_coef * expected["layout"] + weights.choice_coef * expected["direction"]
    bound += weights.place_coef * (expected["goal"] + expected["start"])
    bound += weights.numbers_coef * expected["numbers"] + weights.flags_coef * expected["flags"]
    assert float(heads.weighted(found)) == pytest.approx(bound, rel=1e-4)


def test_a_learned_scale_is_read_from_the_outputs():
    heads = Heads((Numbers("x", 2),), Objective(learn_scale=True))
    assert heads.num_outputs == 4
    outputs = jnp.array([0.5, -1.0, 0.3, 2.0])
    scale = np.log1p(np.exp([0.3, 2.0])) + 0.01
    expected = scipy.stats.norm.logpdf([1.0, 0.0], [0.5, -1.0], scale).mean()
    found = heads.log_likelihood(outputs, {"x": jnp.array([1.0, 0.0])})["x"]
    assert float(found) == pytest.approx(expected, rel=1e-5)


def degenerate(heads: Heads, which: str) -> Array:
    outputs = jax.random.normal(jax.random.key(5), (heads.num_outputs,)) * 30
    grid = jnp.zeros((12, 4))
    if which == "walls":
        return outputs.at[:48].set(grid.at[:, WALL].set(1e6).reshape(-1))
    if which == "one free cell":
        one = grid.at[:, LAVA].set(99.0).at[7].set(jnp.array([99.0, 0, 0, 0]))
        return outputs.at[:48].set(one.reshape(-1))
    if which == "two free cells":
        two = grid.at[:, LAVA].set(99.0).at[jnp.array([3, 7])].set(jnp.array([0, 0, 0, 99.0]))
        return outputs.at[:48].set(two.reshape(-1))
    return jnp.zeros_like(outputs) if which == "zeros" else outputs


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["random", "zeros", "walls", "one free cell", "two free cells"])
def test_sampled_levels_are_always_legal(which):
    heads = Heads(MIXED, Objective())
    outputs = degenerate(heads, which)
    keys = jax.random.split(jax.random.key(0), 64)
    made = jax.device_get(jax.vmap(lambda key: heads.sample(key, outputs))(keys))
    layout = made["layout"].reshape(64, -1)
    rows = np.arange(64)
    assert (made["goal"] != made["start"]).all()
    for name in ("goal", "start"):
        assert set(layout[rows, made[name]]) == {EMPTY}
    assert layout.min() >= 0 and layout.max() < 4
    free = np.isin(layout, FREE).sum(1)
    if which == "two free cells":
        assert (np.sort(np.stack([made["goal"], made["start"]]), 0) == [[3], [7]]).all()
    expected = {"walls": 2, "one free cell": 2, "two free cells": 2}.get(which)
    assert expected is None or (free == expected).all()


@pytest.mark.thorough
def test_a_start_avoids_where_the_goal_was_likeliest():
    heads = Heads(cave_parts(1, 3), Objective())
    layout = jnp.zeros((3, 4)).at[:, EMPTY].set(99.0).reshape(-1)
    outputs = jnp.concatenate([layout, jnp.array([0.1, 0.0, 0.0]), jnp.array([9.0, 0.0, 0.0])])
    keys = jax.random.split(jax.random.key(0), 200)
    made = jax.device_get(jax.vmap(lambda key: heads.sample(key, outputs))(keys))
    assert set(made["goal"]) == {0, 1, 2}
    assert set(made["start"]) == {1, 2}


@pytest.mark.thorough
def test_masks_of_true_levels_never_make_an_infinite_loss():
    heads = Heads(cave_parts(), Objective())
    levels = cave_levels(8)
    levels["layout"] = levels["layout"].at[0].set(WALL)  # places on walls, which a file may contain
    outputs = 100 * jax.random.normal(jax.random.key(0), (8, heads.num_outputs))

    def loss(outputs: Array) -> Array:
        return heads.weighted(jax.vmap(heads.log_likelihood)(outputs, levels)).sum()

    value, grad = jax.value_and_grad(loss)(outputs)
    assert jnp.isfinite(value) and jnp.isfinite(grad).all()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Flags("a", 1), Flags("a", 1)), "distinct names"),
        ((Place("a", "grid"),), "must name earlier cells"),
        ((Cells("g", (2, 2), ("x",), ()), Place("a", "g")), "must name earlier cells"),
        ((Cells("g", (2, 2), ("x",), ("y",)),), "free has 'y'"),
        ((Cells("g", (2, 2), ("x",), ("x",), hub="h"),), "hub='h' must name a place"),
        ((Cells("g", (2, 2), ("x",), ("x",)), Place("a", "g", ("b",))), "earlier place"),
        (
            (Cells("g", (1, 1), ("x",), ("x",)), Place("a", "g"), Place("b", "g", ("a",))),
            "no room",
        ),
    ],
)
def test_parts_that_make_no_sense_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        Heads(parts, Objective())
