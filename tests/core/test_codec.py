"""Levels encoded as parts and decoded again, in every environment with a codec."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.codec import Cells, Choice, Flags, LevelCodec, Numbers, Place
from rlgen.envs.classic_control.cart_pole import CartPole
from rlgen.envs.classic_control.codec import PhysicsCodec
from rlgen.envs.maze import Maze, make_level
from rlgen.protocols import LevelEnv
from tests.standins.stubs import Unplayed

ABLE = [
    n
    for n in registry.names("envs")
    if registry.has(registry.load("envs", n).tiny(), LevelEnv.codec)
]
PHYSICS = ["cart-pole", "mountain-car", "pendulum"]


def tiny(name: str) -> Any:
    return registry.load("envs", name).tiny()


def some_levels(env: Any, num: int = 16) -> Any:
    return jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(3), num))


def test_grids_and_parameter_vectors_have_codecs():
    assert {"maze", *PHYSICS} <= set(ABLE)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ABLE)
def test_decoding_inverts_encoding(name):
    env = tiny(name)
    codec, levels = env.codec(), some_levels(env)
    assert isinstance(codec, LevelCodec)
    back = jax.jit(jax.vmap(lambda level: codec.decode(codec.encode(level))))(levels)
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(levels), strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ABLE)
def test_parts_are_what_they_say(name):
    env = tiny(name)
    codec = env.codec()
    values = jax.device_get(jax.jit(jax.vmap(codec.encode))(some_levels(env)))
    assert [part.name for part in codec.parts] == list(dict.fromkeys(p.name for p in codec.parts))
    for part in codec.parts:
        value = values[part.name]
        if isinstance(part, Cells):
            assert value.shape[1:] == part.shape
            assert value.min() >= 0 and value.max() < len(part.kinds)
            for place in (p for p in codec.parts if isinstance(p, Place) and p.on == part.name):
                under = value.reshape(len(value), -1)[np.arange(len(value)), values[place.name]]
                assert {part.kinds[i] for i in under} <= set(part.free)
        elif isinstance(part, Choice):
            assert value.shape[1:] == () and value.max() < part.num
        elif isinstance(part, Numbers | Flags):
            assert value.shape[1:] == (part.size,)


def test_a_maze_by_hand():
    env = Maze(height=2, width=3, num_walls=0)
    walls = np.array([[0, 1, 0], [0, 0, 0]], bool)
    level = make_level(walls, (2, 1), 3, (0, 1), 250)
    values = env.codec().encode(level)
    assert values["layout"].tolist() == walls.astype(int).tolist()
    assert (int(values["goal"]), int(values["start"]), int(values["direction"])) == (3, 5, 3)


def test_a_wall_under_a_place_is_no_part_of_the_layout():
    env = Maze(height=2, width=2, num_walls=0)
    level = make_level(np.ones((2, 2), bool), (0, 0), 0, (1, 1), 250)
    assert env.codec().encode(level)["layout"].tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("name", PHYSICS)
def test_places_of_parameters_are_those_of_their_ranges(name):
    env = tiny(name)
    ranges = env.ranges()
    levels = some_levels(env)
    values = np.stack([np.asarray(getattr(levels, n)) for n in ranges.names], -1)
    found = jax.vmap(env.codec().encode)(levels)["parameters"]
    np.testing.assert_allclose(found, [ranges.places(v) for v in values], atol=1e-5)
    assert found.min() >= -1e-5 and found.max() <= 1 + 1e-5


def test_parameters_are_clipped_into_their_ranges():
    env = CartPole()
    low = env.codec().decode({"parameters": jnp.full(5, -3.0)})
    high = env.codec().decode({"parameters": jnp.full(5, 7.0)})
    for i, name in enumerate(env.ranges().names):
        assert float(getattr(low, name)) == env.ranges().low[i]
        assert float(getattr(high, name)) == env.ranges().high[i]


def test_a_range_of_one_number_has_place_0():
    env = CartPole(length=(0.5, 0.5))
    values = PhysicsCodec(env).encode(env.sample_level(jax.random.key(0)))
    assert values["parameters"][3] == 0
    assert float(env.codec().decode(values).length) == 0.5


def test_an_environment_without_a_codec_is_refused_by_name():
    class Bare(Unplayed):
        """Environment without optional capabilities."""

    with pytest.raises(ValueError, match=r"Bare has no codec\. Environments that have it: .*maze"):
        registry.require(Bare(), LevelEnv.codec, "this test")
