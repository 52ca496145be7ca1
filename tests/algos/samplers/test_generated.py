"""Sampler that proposes levels from a fitted generative model."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.algos.level_models.files import digest_of, save_model
from rlgen.algos.samplers import generated
from rlgen.algos.samplers.dred import DRED
from rlgen.algos.samplers.fixed import Fixed
from rlgen.types import NEW, Keys, Slots

ENV = registry.load("envs", "cart-pole").build()


@pytest.fixture(scope="module")
def sampler():
    return generated.tiny(ENV)


@pytest.fixture(scope="module")
def state(sampler):
    return jax.jit(sampler.init)(jax.random.key(0), ())


def slots_of(sampler, shape=(4, 2)):
    level, note = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)),
        (sampler.example_level(), sampler.level_info()),
    )
    row = jnp.full(shape, -1, jnp.int32)
    return Slots(level, (), row, jnp.full(4, NEW, jnp.int32), jnp.zeros(4), note)


@pytest.mark.thorough
def test_all_seeds_share_the_model_that_is_fitted_with_the_first_state(sampler, state):
    keys = jax.random.split(jax.random.key(1), 2)
    both = jax.jit(jax.vmap(lambda key: sampler.init(key, ())))(keys)
    for i in range(2):
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), both, state)
    other = jax.jit(replace(sampler, seed=1).init)(jax.random.key(0), ())
    leaves = zip(jax.tree.leaves(state), jax.tree.leaves(other), strict=True)
    assert any((np.asarray(x) != np.asarray(y)).any() for x, y in leaves)


def test_free_slots_get_levels_of_the_family_and_busy_ones_keep_theirs(sampler, state):
    slots, free = slots_of(sampler), jnp.asarray([True, False, True, True])
    keys = Keys(jax.random.key(0), jax.random.key(0))
    _, filled = jax.jit(sampler.propose)(keys, state, slots, free)
    ranges = ENV.ranges()
    for name, low, high in zip(ranges.names, ranges.low, ranges.high, strict=True):
        value = np.asarray(getattr(filled.level, name))
        assert (value >= low * 0.999).all() and (value <= high * 1.001).all()
        np.testing.assert_array_equal(value[1], getattr(slots.level, name)[1])
    np.testing.assert_array_equal(filled.weight, [1, 0, 1, 1])
    assert (np.asarray(filled.buffer_index) == -1).all()


def test_a_fitted_model_is_read_from_its_file(sampler, state, tmp_path):
    path = tmp_path / "generator.npz"
    digest = digest_of(sampler.data.level_set.hash)
    save_model(path, sampler.model, "cart-pole", state.fitted, digest)
    read = replace(sampler, path=str(path)).init(jax.random.key(5), ())
    jax.tree.map(np.testing.assert_array_equal, read, state)
    other = registry.load("envs", "pendulum").build()
    model = registry.load("level-models", "mlp-vae").tiny(other)
    with pytest.raises(ValueError, match="was fitted on levels of cart-pole"):
        generated.Generated(other, model, Fixed(other, num_levels=4), path=str(path))
    with pytest.raises(ValueError, match="there is no file"):
        replace(sampler, path=str(tmp_path / "none.npz"))


def test_an_environment_without_parts_is_refused():
    env = registry.load("envs", "chain").tiny()
    with pytest.raises(ValueError, match="a generative model of levels needs an environment with"):
        generated.model_for(env)


@pytest.mark.parametrize(("name", "kind"), [("maze", "GraphVAE"), ("cart-pole", "MLPVAE")])
def test_the_same_recipe_suits_grids_and_vectors(name, kind):
    curriculum = registry.load("recipes", "dred").build(registry.load("envs", name).build())
    sampler = curriculum.sampler
    assert isinstance(sampler, DRED) and isinstance(sampler.source, generated.Generated)
    assert type(sampler.source.model).__name__ == kind
    assert sampler.source.data is sampler.data
