"""Generative models of levels: interpolation, learning, measures."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.spatial
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Array

from rlgen import config, registry
from rlgen.algos.level_models import graph_vae, interpolation, measures, mlp_vae, vae
from rlgen.algos.level_models.graph_vae import GraphVAE
from rlgen.algos.level_models.mlp_vae import MLPVAE
from rlgen.algos.level_models.objective import Objective
from rlgen.codec import LevelCodec
from rlgen.envs.classic_control.cart_pole import CartPole
from rlgen.envs.maze import Maze
from rlgen.protocols import LevelModel
from tests.standins.caves import EMPTY, WALL, Parts, cave_levels, cave_parts


def test_the_size_of_the_model_at_a_cave_of_169_cells():
    codec = Parts(cave_parts())
    assert isinstance(codec, LevelCodec)
    levels = jax.eval_shape(lambda: cave_levels(2))
    state = jax.eval_shape(GraphVAE(codec).begin, jax.random.key(0), levels)
    counted = {
        net: sum(x.size for x in jax.tree.leaves(own["params"]))
        for net, own in state.variables.items()
    }
    layers = sum(1 + 12 * inputs + 12 * 12 + 3 * 2 * 12 for inputs in (6, 12, 12))
    hidden = (169 * (6 + 3 * 12)) * 256 + 256 + 2 * 256
    assert counted["encoder"] == layers + hidden + 2 * (256 * 1024 + 1024) == 2_345_203
    body = 1024 * 256 + 256 + 256 * 256 + 256 + 2 * 2 * 256
    assert counted["decoder"] == body + 257 * 169 * (4 + 1 + 1) == 589_814


# Interpolation.


def test_slerp_begins_and_ends_at_its_ends():
    a, b = jax.random.normal(jax.random.key(0), (2, 8))
    np.testing.assert_allclose(interpolation.slerp(jnp.asarray(0.0), a, b), a, atol=1e-5)
    np.testing.assert_allclose(interpolation.slerp(jnp.asarray(1.0), a, b), b, atol=1e-5)


def test_slerp_of_right_angles_by_hand():
    found = interpolation.slerp(jnp.asarray(1 / 3), jnp.array([2.0, 0.0]), jnp.array([0.0, 2.0]))
    np.testing.assert_allclose(found, [3**0.5, 1.0], rtol=1e-5)


@pytest.mark.parametrize("cosine", [0.96, -0.96, 1.0, -1.0])
def test_nearly_parallel_vectors_are_joined_by_a_line(cosine):
    a, b = jnp.array([1.0, 0.0]), 3 * jnp.array([cosine, (1 - cosine**2) ** 0.5])
    found = interpolation.slerp(jnp.asarray(0.25), a, b)
    np.testing.assert_allclose(found, 0.75 * a + 0.25 * b, rtol=1e-6)


def test_at_a_cosine_below_the_bound_it_is_an_arc():
    a, b = jnp.array([1.0, 0.0]), jnp.array([0.95, (1 - 0.95**2) ** 0.5])
    found = interpolation.slerp(jnp.asarray(0.5), a, b)
    assert float((found**2).sum()) == pytest.approx(1.0, abs=1e-5)


def test_a_zero_vector_makes_no_nan():
    found = interpolation.slerp(jnp.asarray(0.5), jnp.zeros(3), jnp.ones(3))
    assert found.tolist() == [0.5] * 3


def test_pairs_are_of_distinct_levels_and_points_in_a_row():
    points = interpolation.draw_points(jax.random.key(0), 12, 36, 6)
    pairs = np.asarray(points.parents)[::6]
    assert sorted(pairs.reshape(-1)) == list(range(12))
    np.testing.assert_array_equal(np.asarray(points.parents), np.repeat(pairs, 6, 0))
    np.testing.assert_allclose(points.position[:6], [0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-6)


@pytest.mark.thorough
@given(st.integers(1, 9), st.integers(1, 20), st.integers(0, 99))
def test_in_small_sets_only_the_two_of_a_pair_differ(num_levels, num, seed):
    points = interpolation.draw_points(jax.random.key(seed), num_levels, num, 3)
    parents = np.asarray(points.parents)
    assert parents.shape == (num, 2) and points.position.shape == (num,)
    assert parents.min() >= 0 and parents.max() < num_levels
    assert num_levels == 1 or (parents[:, 0] != parents[:, 1]).all()


# Learning.


def test_the_divergence_is_the_mean_of_the_closed_form():
    mean, std = jax.random.normal(jax.random.key(0), (3, 5)), jnp.full((3, 5), 0.7)
    each = -np.log(0.7) + (0.7**2 + np.asarray(mean) ** 2) / 2 - 0.5
    np.testing.assert_allclose(vae.kl(mean, std), each.mean(1), rtol=1e-5)
    assert float(vae.kl(jnp.zeros((1, 4)), jnp.ones((1, 4)))[0]) == 0


@pytest.fixture(scope="module")
def overfitted():
    """Eight random caves, and a small model that has memorised them."""
    model = GraphVAE(
        Parts(cave_parts(6, 7)),
        num_epochs=400,
        batch_size=8,
        learning_rate=3e-3,
        hidden_size=32,
        num_latents=16,
        objective=Objective(kl_coef=1e-3),
    )
    levels = cave_levels(8, 6, 7)
    state, metrics = jax.jit(lambda key: model.train(model.begin(key, levels), levels, 400))(
        jax.random.key(0)
    )
    return model, levels, jax.jit(model.finish)(state, levels), metrics


@pytest.mark.thorough
def test_eight_levels_are_memorised(overfitted):
    model, levels, fitted, metrics = overfitted
    found = jax.jit(model.reconstruct)(fitted, levels)
    assert float(found["layout"].mean()) > 0.99
    assert float(found["goal"].mean()) == float(found["start"].mean()) == 1
    assert metrics["loss"].shape == (400,)
    assert float(metrics["loss"][-1]) < 0.2 * float(metrics["loss"][0])


@pytest.mark.thorough
def test_proposals_depend_on_the_key_and_lie_between_their_parents(overfitted):
    model, levels, fitted, _ = overfitted
    propose = jax.jit(model.propose, static_argnums=2)
    bare = fitted._replace(encoder=())
    made, parents = propose(jax.random.key(1), bare, 20)
    again, _ = propose(jax.random.key(1), fitted, 20)
    other, _ = propose(jax.random.key(2), bare, 20)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), made, again)
    assert all(same.values())
    assert not bool((made["layout"] == other["layout"]).all())
    assert parents.shape == (20, 2)
    ends = made["layout"][::6] == levels["layout"][parents[::6, 0]]
    assert float(ends.mean()) > 0.8  # the first proposal of each row is a noisy copy of its parent


def some_levels(env: Any, num: int) -> Any:
    return jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(0), num))


@pytest.mark.thorough
def test_holding_out_leaves_levels_for_the_measure():
    env = CartPole()
    model = config.override(mlp_vae.tiny(env), {"holdout": 0.3})
    assert model.vae().num_fitted(512) == 358
    assert config.override(model, {"holdout": 0.1}).vae().num_fitted(512) == 460
    levels = some_levels(env, 10)
    metrics = jax.jit(lambda key: model.train(model.begin(key, levels), levels, 1)[1])(
        jax.random.key(0)
    )
    assert metrics["held_out_loss"].shape == (1,) and jnp.isfinite(metrics["held_out_loss"]).all()


@pytest.mark.parametrize("name", registry.names("level-models"))
@pytest.mark.parametrize("num_levels", [pytest.param(1, marks=pytest.mark.thorough), 5])
def test_every_model_keeps_the_protocol(name, num_levels):
    env = Maze(height=3, width=4, num_walls=3)
    model = registry.load("level-models", name).tiny(env)
    assert isinstance(model, LevelModel)
    levels = some_levels(env, num_levels)

    def whole(key: Array) -> tuple:
        fitted = model.fit(key, levels)
        return model.propose(key, fitted, 7)

    made, parents = jax.jit(whole)(jax.random.key(0))
    wanted = jax.tree.map(lambda x: (7, *x.shape[1:]), levels)
    assert jax.tree.map(lambda x: x.shape, made) == wanted
    assert jax.tree.map(lambda x: x.dtype, made) == jax.tree.map(lambda x: x.dtype, levels)
    assert parents.shape == (7, 2) and int(parents.max()) < num_levels


@pytest.mark.thorough
def test_vectors_of_parameters_are_learned():
    env = CartPole()
    levels = some_levels(env, 64)
    model = MLPVAE(env.codec(), num_epochs=150, learning_rate=3e-3)
    fitted = jax.jit(model.fit)(jax.random.key(0), levels)
    assert float(model.reconstruct(fitted, levels)["parameters"].mean()) < 0.1
    made, _ = model.propose(jax.random.key(1), fitted, 60)
    assert (made.gravity >= 7).all() and (made.gravity <= 13).all()
    assert float(made.gravity.std()) > 0.3 * float(levels.gravity.std())


def test_levels_that_are_no_grid_are_refused_by_the_graph_model():
    with pytest.raises(ValueError, match="use mlp-vae, which accepts any levels"):
        graph_vae.build(CartPole())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"holdout": 1.0}, "holdout=1.0"),
        ({"num_points": 0}, "num_points=0"),
        ({"num_latents": 0}, "num_latents=0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0"),
        ({"objective": Objective}, None),
    ],
)
def test_fields_that_make_no_model_are_refused(fields, message):
    if message is None:
        with pytest.raises(ValueError, match="kl_coef=-1"):
            Objective(kl_coef=-1.0)
        return
    with pytest.raises(ValueError, match=message):
        mlp_vae.build(Maze(height=3, width=3, num_walls=1), **fields)


# Measures.


def test_distances_by_hand():
    free = np.array([[[1, 1, 0, 1], [0, 1, 0, 0]]], bool)
    found = measures.distances(free, np.array([0]))
    assert found[0].tolist() == [[0, 1, 2, np.inf], [1, 2, 3, 4]]
    parts = cave_parts(2, 4)
    values = {"layout": np.where(free, EMPTY, WALL), "goal": np.array([0]), "start": np.array([3])}
    assert not measures.connected(parts, values, parts[0])[0]
    assert measures.connected(parts, values | {"start": np.array([5])}, parts[0])[0]


def test_divergence_is_between_0_and_1_bit():
    a, b = np.array([3.0, 1.0, 0.0]), np.array([0.0, 0.0, 5.0])
    assert measures.divergence(a, 2 * a) == pytest.approx(0)
    assert measures.divergence(a, b) == pytest.approx(1)
    c = np.array([1.0, 1.0, 2.0])
    expected = scipy.spatial.distance.jensenshannon(a, c, 2) ** 2
    assert measures.divergence(a, c) == pytest.approx(expected)
