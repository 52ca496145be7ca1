"""The small network for editors: one logit per cell, each depending on the whole board."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from rlgen import config, testing
from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.cell_actor_critic import CellActorCritic
from rlgen.protocols import LevelEnv, Network

HEIGHT, WIDTH, STEPS = 4, 5, 6
NETWORK = CellActorCritic(features=4, num_layers=2, head_size=8)


@struct.dataclass
class Level:
    noise: jax.Array
    max_steps_in_episode: jax.Array


@struct.dataclass
class State:
    board: jax.Array
    time: jax.Array


@dataclass(frozen=True)
class Painter(LevelEnv, abstract=True):
    """Environment that paints one cell per step; cells of even number give reward 1."""

    num_cells: int = HEIGHT * WIDTH

    @property
    def num_actions(self):
        return self.num_cells

    def sample_level(self, key):
        return Level(jax.random.uniform(key, (3,)), jnp.int32(STEPS + 1))

    def reset_env(self, key, params):
        state = State(jnp.zeros(HEIGHT * WIDTH), jnp.int32(0))
        return self._show(state, params), state

    def step_env(self, key, state, action, params):
        state = State(state.board.at[action].set(1.0), state.time + 1)
        reward = jnp.float32(action % 2 == 0)
        return self._show(state, params), state, reward, state.time >= STEPS, {}

    def observation_space(self, params=None):
        raise NotImplementedError

    def _show(self, state, params):
        time = jax.nn.one_hot(state.time, STEPS + 1)
        image = state.board.reshape(HEIGHT, WIDTH, 1)
        return {"image": image, "time": time, "noise": params.noise}


@pytest.fixture(scope="module")
def params():
    params = jax.jit(lambda key: NETWORK.init(key, Painter()))(jax.random.key(0))
    actor = jax.tree.map(lambda x: 100 * x, params["actor"])  # otherwise all differences are small
    return params | {"actor": actor}


def boards(num_steps=3, num_slots=2):
    keys = jax.random.split(jax.random.key(1), 3)
    shapes = {"image": (HEIGHT, WIDTH, 1), "time": (STEPS + 1,), "noise": (3,)}
    return {
        name: jax.random.normal(key, (num_steps, num_slots, *shape))
        for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def logits_of(params, obs):
    first = jnp.zeros(obs["noise"].shape[:2], bool)
    run = jax.jit(partial(NETWORK.unroll, Painter(), params, ()))
    return np.asarray(run(obs, first)[1])


@pytest.mark.thorough
def test_unroll_is_many_steps(params):
    obs, first = boards(), jnp.zeros((3, 2), bool)
    carry, logits, value = NETWORK.unroll(Painter(), params, (), obs, first)
    assert carry == ()
    assert logits.shape == (3, 2, HEIGHT * WIDTH)
    for t in range(3):
        now = jax.tree.map(lambda x, t=t: x[t], obs)
        _, now_logits, now_value = NETWORK.step(Painter(), params, (), now, first[t])
        np.testing.assert_allclose(now_logits, logits[t], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(now_value, value[t], rtol=1e-4, atol=1e-5)


def test_logits_stand_in_row_order(params):
    """A change affects nearby logits most; distant ones depend on it only through the mean."""
    obs = boards(1, 1)
    board = obs["image"].at[0, 0, 0, 4].add(1e-3)
    felt = np.abs(logits_of(params, obs | {"image": board}) - logits_of(params, obs))
    felt = felt.reshape(HEIGHT, WIDTH)
    assert felt[:3, 2:].max() > 3 * felt[3:].max()
    assert felt[:3, 2:].max() > 3 * felt[:, :2].max()


@pytest.mark.parametrize("name", ["time", "noise", "image"])
def test_every_cell_hears_of_every_part(params, name):
    obs = boards(1, 1)
    changed = obs[name].at[(0,) * obs[name].ndim].add(1.0)
    felt = np.abs(logits_of(params, obs | {name: changed}) - logits_of(params, obs))
    assert (felt > 1e-6).mean() > 0.9  # some cells may have no active unit


def test_cells_of_an_empty_board_differ(params):
    obs = jax.tree.map(jnp.zeros_like, boards(1, 1))
    assert len(np.unique(logits_of(params, obs))) > HEIGHT * WIDTH // 2


def test_first_policy_is_nearly_uniform():
    params = jax.jit(lambda key: NETWORK.init(key, Painter()))(jax.random.key(0))
    found = jax.nn.softmax(logits_of(params, boards()))
    np.testing.assert_allclose(found, 1 / (HEIGHT * WIDTH), rtol=0.2)


@pytest.mark.thorough
def test_ppo_with_it_satisfies_the_laws_of_learners():
    learner = PPO(Painter(), NETWORK, learning_rate=1e-3, num_epochs=2, num_minibatches=2)
    testing.check_learner(Painter(), learner, num_steps=2 * STEPS)


def test_its_sizes_are_hyperparameters_of_ppo():
    learner = PPO(Painter(), CellActorCritic())
    assert isinstance(learner.network, Network) and isinstance(ActorCritic(), Network)
    changed = config.override(learner, {"network.features": "4", "network.num_layers": 1})
    assert changed.network == CellActorCritic(features=4, num_layers=1)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (
            Painter(7),
            "one action for each cell, but Painter has 7 for 4x5 = 20 cells; use ActorCritic",
        ),
        (testing.Probe(), r"one image \[H, W, C\], but Probe has 0 among the shapes \[\(4,\)\]"),
    ],
)
def test_other_environments_are_refused(env, message):
    with pytest.raises(ValueError, match=message):
        NETWORK.init(jax.random.key(0), env)


def test_a_size_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"network\.features must be at least 1, got 0"):
        CellActorCritic(features=0)


def test_it_is_a_small_part_of_the_published_teacher():
    class Maze(Painter):
        """The properties of an editor of 13x13 mazes that determine the number of parameters."""

        def _show(self, state, params):
            shapes = {"image": (13, 13, 3), "time": (51,), "noise": (16,)}
            return {name: jnp.zeros(shape) for name, shape in shapes.items()}

    def size(network):
        shapes = jax.eval_shape(lambda key: network.init(key, Maze(169)), jax.random.key(0))
        return sum(x.size for x in jax.tree.leaves(shapes))

    assert size(ActorCritic(conv_features=128, vector_features=10)) > 16_000_000
    assert size(CellActorCritic()) < 10_000
