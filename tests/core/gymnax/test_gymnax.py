import dataclasses
import functools
import subprocess
import sys
import textwrap

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from gymnax.environments import environment, spaces
from gymnax.experimental import RolloutWrapper
from gymnax.wrappers import (
    FlattenObservationWrapper,
    GymnaxToGymWrapper,
    GymnaxToVectorGymWrapper,
    LogWrapper,
)

import rlgen  # noqa: F401 - it registers the ids
from rlgen.envs.maze import Maze
from rlgen.evaluation.suites import load_suite
from rlgen.gymnax import LevelPool, from_gymnax
from rlgen.protocols import LevelEnv
from rlgen.rollout import rollout
from tests.standins.stubs import Untaught

KEY = jax.random.key(0)
SMALL = {"height": 5, "width": 5, "num_walls": 4, "max_steps": 12, "num_levels": 6}


@pytest.fixture(autouse=True)
def as_users_run_it():
    with jax.numpy_rank_promotion("allow"):  # gymnax's own environments rely on it
        yield


def make():
    return gymnax.make("rlgen/Maze-v0", **SMALL)


def play(env, params, num_steps, num_envs=8):
    """Play random actions with gymnax's auto-resetting `step`."""

    def step(state, key):
        action = env.action_space(params).sample(key)
        obs, state, *rest = env.step(key, state, action, params)
        return state, (obs, *rest)

    def one(key):
        _, state = env.reset(key, params)
        return jax.lax.scan(step, state, jax.random.split(key, num_steps))

    return jax.jit(jax.vmap(one))(jax.random.split(KEY, num_envs))


@pytest.mark.thorough
def test_ids_appear_in_either_order_of_import_and_reloading_does_not_raise():
    script = """
        import importlib, sys
        import rlgen
        assert not {"jax", "gymnax", "numpy"} & set(sys.modules)  # --help stays quick
        import gymnax
        ids = ["rlgen/Maze-v0", "rlgen/MazeLevel-v0"]
        assert gymnax.registered_envs[-2:] == ids
        importlib.reload(rlgen)
        for name in [name for name in sys.modules if name.startswith("rlgen")]:
            del sys.modules[name]
        import rlgen  # a second copy of the hook
        assert gymnax.registered_envs.count(ids[0]) == 1
        assert importlib.reload(gymnax.registration).registered_envs.count(ids[0]) == 1

        hooks = [f for f in sys.meta_path if type(f).__module__ == "rlgen.gymnax_hook"]
        assert len(hooks) == 1
        sys.meta_path.remove(hooks[0])
        for name in [name for name in sys.modules if name.startswith("rlgen")]:
            del sys.modules[name]
        assert ids[0] not in importlib.reload(gymnax.registration).registered_envs
        import rlgen  # gymnax first
        assert gymnax.registration.registered_envs[-2:] == ids
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


@pytest.mark.thorough
def test_each_episode_is_played_on_a_newly_drawn_level_of_the_pool():
    env, params = make()
    _, (obs, reward, terminated, truncated, _) = play(env, params, 60)
    assert obs.shape == (8, 60, 79) and obs.dtype == reward.dtype == jnp.float32
    assert not (terminated & truncated & (reward == 0)).any()
    assert (reward > 0).any() and truncated.any()
    _, states = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 300), params)
    counts = np.bincount(states.index, minlength=6)
    assert counts.min() > 25 and counts.size == 6
    starts = np.asarray(params.level.start)[np.asarray(states.index)]
    np.testing.assert_array_equal(starts, np.stack([states.inner.x, states.inner.y], 1))


@pytest.mark.thorough
def test_pool_steps_as_its_environment_does_on_the_same_level():
    env, params = make()
    maze = env.env
    obs, state = env.reset(KEY, params)
    level = jax.tree.map(lambda x: x[state.index], params.level)
    expected_obs, expected = maze.reset_env(KEY, level)
    for t, action in enumerate([2, 0, 2, 1, 2, 2]):
        np.testing.assert_array_equal(obs, expected_obs)
        key = jax.random.key(t)
        obs, state, reward, terminated, truncated, _ = env.step(key, state, action, params)
        expected_obs, expected, *rest, _ = maze.step_env(key, expected, jnp.int32(action), level)
        assert [reward, terminated] == rest and not truncated
        if terminated:
            break
    else:
        assert state.inner == expected


@pytest.mark.thorough
@pytest.mark.parametrize("of_gymnax", [False, True])
def test_pool_steps_as_gymnax_would_step_it(of_gymnax):
    env = LevelPool(from_gymnax("CartPole-v1"), 2) if of_gymnax else make()[0]
    params = dataclasses.replace(env.default_params, max_steps_in_episode=4)
    _, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 32), params)

    def steps(step, state):
        def one(state, key):
            action = jax.random.randint(key, (32,), 0, env.num_actions)
            stepped = jax.vmap(step, in_axes=(0, 0, 0, None))
            obs, state, *rest = stepped(jax.random.split(key, 32), state, action, params)
            return state, (obs, state, *rest)

        return jax.lax.scan(one, state, jax.random.split(KEY, 9))[1]

    ours = steps(env.step, state)
    theirs = steps(functools.partial(environment.Environment.step, env), state)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert ours[4].any()  # truncated


@pytest.mark.thorough
def test_time_limits_truncate_and_params_may_shorten_them():
    env, params = make()
    assert params.max_steps_in_episode == 12
    assert env.env.default_params.max_steps_in_episode == 12
    for limit in (12, 5):
        shorter = params.replace(max_steps_in_episode=limit)
        _, state = env.reset(KEY, shorter)
        ends = []
        for _ in range(24):
            _, state, _, terminated, truncated, _ = env.step(KEY, state, 0, shorter)  # turn
            assert not terminated
            ends.append(bool(truncated))
        assert ends == [t % limit == limit - 1 for t in range(24)]


@pytest.mark.thorough
def test_held_out_mazes_can_be_put_into_the_pool():
    env, _ = gymnax.make("rlgen/Maze-v0", num_levels=1)
    heldout = load_suite(env.env, "maze/heldout")
    params = env.params_of(heldout.levels.level)
    assert params.max_steps_in_episode == 250
    _, states = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(KEY, 100), params)
    assert set(states.index.tolist()) == set(range(8))
    image = env.render(jax.tree.map(lambda x: x[0], states), params)
    assert image.dtype == np.uint8 and image.shape[2] == 3


def test_log_and_flatten_wrappers_follow_the_pool():
    env, params = make()
    logged = LogWrapper(FlattenObservationWrapper(env))
    _, (obs, reward, terminated, truncated, info) = play(logged, params, 40)
    assert obs.shape == (8, 40, 79)
    done = np.asarray(terminated | truncated)
    for i in range(8):
        first = int(done[i].argmax())
        assert info["returned_episode_lengths"][i, first] == first + 1
        expected = np.asarray(reward)[i, : first + 1].sum()
        assert info["returned_episode_returns"][i, first] == pytest.approx(expected)


@pytest.mark.thorough
def test_gymnasium_wrappers_follow_the_pool():
    env, params = make()
    single = GymnaxToGymWrapper(env, params, seed=1)
    obs, _ = single.reset(seed=2)
    assert single.observation_space.contains(np.asarray(obs))
    assert single.action_space == gymnasium.spaces.Discrete(7)
    ends = [single.step(single.action_space.sample())[2:4] for _ in range(26)]
    assert any(terminated or truncated for terminated, truncated in ends)
    assert np.asarray(single.render()).dtype == np.uint8

    many = GymnaxToVectorGymWrapper(env, num_envs=3, params=params)
    obs, _ = many.reset(seed=2)
    assert obs.shape == many.observation_space.shape == (3, 79)
    obs, reward, terminated, truncated, _ = many.step(np.array([0, 1, 2]))
    assert obs.shape == (3, 79) and reward.shape == terminated.shape == truncated.shape == (3,)


def test_rollout_wrapper_plays_the_pool_by_its_id():
    wrapper = RolloutWrapper(env_name="rlgen/Maze-v0", env_kwargs=SMALL)
    obs, action, reward, _, done, total = wrapper.batch_rollout(jax.random.split(KEY, 4), None)
    assert obs.shape == (4, 12, 79) and action.shape == (4, 12)  # the pool's time limit
    first = np.asarray(done).argmax(1)
    expected = [np.asarray(reward)[i, : first[i] + 1].sum() for i in range(4)]
    np.testing.assert_allclose(np.asarray(total)[:, 0], expected, rtol=1e-6)


@pytest.mark.thorough
def test_one_maze_as_params_maps_over_mazes():
    env, _ = gymnax.make("rlgen/MazeLevel-v0", height=5, width=5, num_walls=4)
    assert env == Maze(height=5, width=5, num_walls=4, observation="flat")
    levels = jax.vmap(env.sample_level)(jax.random.split(KEY, 4))
    obs, state = jax.vmap(env.reset)(jax.random.split(KEY, 4), levels)
    obs, *_ = jax.vmap(env.step)(jax.random.split(KEY, 4), state, jnp.zeros(4, jnp.int32), levels)
    assert obs.shape == (4, 79)
    np.testing.assert_array_equal(state.x, levels.start[:, 0])


def test_equal_pools_share_compilations():
    (env, params), (again, _) = make(), make()
    assert env is not again and env == again and hash(env) == hash(again)
    assert env != LevelPool(env.env, 7) and env != LevelPool(env.env, 6, seed=1)
    num_compiled = environment.Environment.reset._cache_size  # pyright: ignore
    env.reset(KEY, params)
    before = num_compiled()
    again.reset(KEY, params)
    assert num_compiled() == before


def test_default_params_are_concrete_also_when_first_asked_for_under_a_trace():
    env = LevelPool(Maze(height=5, width=5, num_walls=4), 3, seed=5)
    obs, state = env.reset(KEY)  # gymnax reads the params inside its jitted function
    expected, same = env.reset(KEY, env.default_params)
    assert (
        state == same and obs == expected and isinstance(env.default_params.level.walls, jax.Array)
    )


def test_a_pool_without_levels_is_refused():
    with pytest.raises(ValueError, match="num_levels=0"):
        gymnax.make("rlgen/Maze-v0", num_levels=0)


@dataclasses.dataclass(frozen=True)
class Uniform(Untaught):
    """Learner that acts uniformly at random and never learns."""

    num_actions: int

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, self.num_actions)
        zero = jnp.zeros(first.shape)
        return carry, action, zero, zero


def roll(env, num_steps=40, num_slots=3):
    learner = Uniform(env.num_actions)
    one = env.sample_level(KEY)
    level = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, 1, *x.shape)), one)
    played = jax.jit(lambda key: rollout(key, env, learner, (), level, num_steps)[0])
    return played(KEY)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("env_id", "shape", "num_actions"),
    [
        ("CartPole-v1", (4,), 2),
        ("Breakout-MinAtar", (10, 10, 4), 3),
        ("FourRooms-misc", (4,), 4),  # integer observations
        ("Catch-bsuite", (10, 5), 3),
        ("FrozenLake-misc", (16,), 4),  # a discrete observation
        ("UmbrellaChain-bsuite", (3,), 2),  # integer rewards
    ],
)
def test_gymnax_environments_are_families_of_one_level(env_id, shape, num_actions):
    env = from_gymnax(env_id)
    assert isinstance(env, LevelEnv) and env.num_actions == num_actions
    level = env.sample_level(KEY)
    leaves = jax.tree.leaves(level) + jax.tree.leaves(env.reset_env(KEY, level))
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in leaves)
    played = roll(env)
    assert played.obs.shape == (40, 3, *shape) and played.obs.dtype == jnp.float32
    space = env.observation_space()
    assert isinstance(space, spaces.Box) and space.shape == shape
    assert played.reward.dtype == jnp.float32 and played.terminated.dtype == bool
    assert np.isfinite(played.obs).all()


def test_state_keeps_its_types_from_reset_to_step():
    env = from_gymnax("CartPole-v1")
    level = env.default_params
    _, state = env.reset_env(KEY, level)
    _, after, reward, terminated, _ = env.step_env(KEY, state, jnp.int32(1), level)
    for before, then in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.dtype, before.shape, then.weak_type) == (then.dtype, then.shape, False)
    assert reward.shape == terminated.shape == () and env.is_truncated(state, level).dtype == bool


def test_wrapped_environments_play_as_they_do_in_gymnax():
    """Equal keys and actions give equal episodes, including time limits and changed params."""
    theirs, params = gymnax.make("CartPole-v1")
    env = from_gymnax("CartPole-v1")
    params = params.replace(gravity=20.0, max_steps_in_episode=9)
    level = env.default_params.replace(gravity=jnp.float32(20.0), max_steps_in_episode=jnp.int32(9))
    _, (expected, reward, terminated, truncated, _) = play(theirs, params, 30, num_envs=1)
    _, (obs, *ours, _) = play(env, level, 30, num_envs=1)
    np.testing.assert_allclose(obs, expected, rtol=1e-6)
    for one, other in zip(ours, (reward, terminated, truncated), strict=True):
        np.testing.assert_array_equal(one, other)
    assert truncated.any()


def test_a_discrete_observation_is_its_unit_vector():
    env = from_gymnax("FrozenLake-misc", map_name="8x8", is_slippery=False)
    obs, state = env.reset_env(KEY, env.default_params)
    obs, state, *_ = env.step_env(KEY, state, jnp.int32(1), env.default_params)
    assert obs.shape == (64,) and obs.sum() == 1 and obs[state.position] == 1


def test_environments_made_alike_are_equal():
    one = from_gymnax("FrozenLake-misc", desc=["SF", "FG"])
    assert one == from_gymnax("FrozenLake-misc", desc=("SF", "FG"))
    assert hash(one) == hash(from_gymnax("FrozenLake-misc", desc=["SF", "FG"]))
    assert one != from_gymnax("FrozenLake-misc", desc=["SF", "HG"]) != from_gymnax("Catch-bsuite")
    own, _ = gymnax.make("Catch-bsuite")
    assert from_gymnax(own) == from_gymnax(own)


@struct.dataclass
class Params:
    max_steps_in_episode: int = 3
    size: int = 2


@struct.dataclass
class State:
    time: jax.Array


class Unruly(environment.Environment):
    """A valid environment, with faults that its arguments switch on."""

    def __init__(self, shape_from_params=False, changing_type=False):
        self.shape_from_params, self.changing_type = shape_from_params, changing_type

    @property
    def default_params(self):
        return Params()

    def reset_env(self, key, params):
        size = params.size if self.shape_from_params else 2
        return jnp.zeros(size), State(jnp.int32(0))

    def step_env(self, key, state, action, params):
        time = state.time + (0.5 if self.changing_type else 1)
        return jnp.zeros(2), State(time), 0, False, {}

    def action_space(self, params):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0, 1, (2,))


def test_environments_of_ones_own_are_taken_and_faults_named():
    played = roll(from_gymnax(Unruly()), num_steps=6)
    assert played.truncated.sum(0).tolist() == [2, 2, 2] and not played.terminated.any()
    with pytest.raises(ValueError, match="reads its params as Python values"):
        from_gymnax(Unruly(shape_from_params=True))
    with pytest.raises(ValueError, match=r"state\.time is int32\(\) after a reset and float32\(\)"):
        from_gymnax(Unruly(changing_type=True))
    with pytest.raises(ValueError, match="belong to an id"):
        from_gymnax(Unruly(), map_name="8x8")


def test_what_cannot_be_a_family_is_refused_with_the_reason():
    continuous, _ = gymnax.make("MountainCarContinuous-v0")
    for source in ("Pendulum-v1", continuous):
        with pytest.raises(
            ValueError, match=r"has Box actions, but .* need discrete actions; wrap"
        ):
            from_gymnax(source)
    with pytest.raises(ValueError, match="did you mean 'CartPole-v1'"):
        from_gymnax("CartPole-v2")
    with pytest.raises(ValueError, match="downloads data"):
        from_gymnax("MNISTBandit-bsuite")
    with pytest.raises(ValueError, match="of type ArrayImpl cannot be compared"):
        from_gymnax("FrozenLake-misc", reward_schedule=jnp.array([1.0, 0.0, 0.0]))
