"""MiniGrid's rules and view, shared by two families, against a cell-by-cell reference."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.minigrid import view as view
from rlgen.envs.minigrid.base import MiniGridFamily
from rlgen.envs.minigrid.key_corridor import EVENTS, KeyCorridor
from rlgen.envs.minigrid.obstructed_maze import ObstructedMaze
from tests.standins.minigrid_worlds import TOGGLE, Walker, World, sight

HOW = "codes", "one-hot"
LEVELS, RANDOM, STEPS = 6, 160, 400
PROBS = [0.13, 0.13, 0.36, 0.12, 0.08, 0.15, 0.03]  # left, right, forward, pick up, drop, toggle
ENVS = {
    "key-corridor": KeyCorridor(room_size=4, num_rows=2, penalize_time=True),
    "obstructed-maze": ObstructedMaze("2dlhb"),
}


def one(levels, i):
    return jax.tree.map(lambda x: np.asarray(x)[i], levels)


def script(rng, world):
    """Random actions, then attempts to open locks without a key, then the walker's solution."""
    walker = Walker(world)
    walker.act(*rng.choice(7, RANDOM, p=PROBS))
    walker.put_down()
    for lock in walker.locks():
        if walker.clear(lock):
            walker.act(TOGGLE)
    actions = [*walker.solve(), *rng.choice(7, STEPS, p=PROBS)]
    return np.array(actions[:STEPS])


@pytest.fixture(scope="module", params=ENVS)
def played(request):
    """Levels, actions, and the resulting states and observations of the environment."""
    env, rng = ENVS[request.param], np.random.default_rng(0)
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(3), LEVELS))
    actions = np.stack([script(rng, World(one(levels, i))) for i in range(LEVELS)])

    def play(level, actions):
        def step(state, action):
            obs, state, reward, terminated, _ = env.step_env(
                jax.random.key(0), state, action, level
            )
            told = env.position(state, level), env.event(state, level), reward, terminated
            return state, (obs, told)

        first, state = env.reset_env(jax.random.key(0), level)
        return first, jax.lax.scan(step, state, actions)[1]

    first, (obs, told) = jax.jit(jax.vmap(play))(levels, jnp.asarray(actions))
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a[:, None], b], 1), first, obs)
    image = jnp.stack(view.objects_colours_states(joined), -1)
    told = jax.tree.map(np.asarray, told)
    return env.penalize_time, levels, actions, np.asarray(image), np.asarray(obs.direction), told


@pytest.mark.thorough
def test_steps_and_views_are_those_of_the_rules(played):
    penalize_time, levels, actions, image, direction, told = played
    position, event, reward, terminated = told
    happened = set()
    for i in range(LEVELS):
        world = World(one(levels, i))
        now = world.first
        assert (image[i, 0] == world.image(now)).all()
        for t, action in enumerate(actions[i]):
            now, what, success = world.step(now, action)
            assert EVENTS[event[i, t]] == what, (i, t)
            assert position[i, t] == now.cell[1] * world.width + now.cell[0], (i, t)
            assert direction[i, t] == now.direction
            late = 0.9 * (t + 1) / int(levels.max_steps_in_episode[i]) if penalize_time else 0
            assert terminated[i, t] == success
            assert reward[i, t] == pytest.approx(success * (1 - late), abs=1e-6)
            assert (image[i, t + 1] == world.image(now)).all(), (i, t)
            happened.add(what)
    missing = {"took a ball", "took a box", "opened a box"} if penalize_time else set()
    assert happened == set(EVENTS) - missing


def test_sight_spreads_as_upstream():
    """Tested on random windows in which the agent's own cell is clear."""
    opaque = np.random.default_rng(0).random((200, 7, 7)) < np.linspace(0, 0.7, 200)[:, None, None]
    opaque[:, 3, 6] = False
    rows = opaque.transpose(0, 2, 1).reshape(200, 49)  # [far to near, left to right]
    bits = rows.astype(np.uint64)
    far = (bits[:, :28] << np.arange(28, dtype=np.uint64)).sum(1)
    near = (bits[:, 28:] << np.arange(21, dtype=np.uint64)).sum(1)
    words = jax.jit(jax.vmap(lambda a, b: view._sight((a, b))))(
        jnp.asarray(far, jnp.uint32), jnp.asarray(near, jnp.uint32)
    )
    far, near = map(np.asarray, words)
    found = [far[:, None] >> np.arange(28) & 1, near[:, None] >> np.arange(21) & 1]
    found = np.concatenate(found, 1).reshape(200, 7, 7).transpose(0, 2, 1) == 1
    assert all((found[i] == sight(opaque[i])).all() for i in range(200))


def test_both_encodings_say_the_same():
    planes = jax.random.bits(jax.random.key(0), (50, 12), jnp.uint32) & (2**28 - 1)
    planes = planes.at[:, 1::2].set(planes[:, 1::2] & (2**21 - 1))
    obs = view.PackedObs(planes, jnp.arange(50, dtype=jnp.int8) % 4)

    @jax.jit
    def told(obs):
        return (
            view.objects_colours_states(obs),
            view.unpack(obs, "codes"),
            view.unpack(obs, "one-hot"),
        )

    numbers, codes, flags = told(obs)
    numbers, codes, flags = np.stack(numbers, -1), *(np.asarray(x["image"]) for x in (codes, flags))
    np.testing.assert_allclose(codes * 10, numbers, atol=1e-5)
    parts = np.split(flags, [8, 14], -1)
    for c, part in enumerate(parts):
        known = numbers[..., c] < part.shape[-1]  # random bits also give codes that do not exist
        assert (part.argmax(-1) == numbers[..., c])[known].all()


def test_an_unknown_encoding_is_refused():
    # The type check of the tests would already reject it in a family.
    family: Any = SimpleNamespace(encoding="raw")
    with pytest.raises(ValueError, match="encoding='raw' is none of codes, one-hot"):
        MiniGridFamily.__post_init__(family)
