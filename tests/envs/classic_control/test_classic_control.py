"""Cart-pole, pendulum and mountain car: gymnax's dynamics, and properties of levels."""

import dataclasses
import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.classic_control import cartpole, mountain_car, pendulum

from rlgen import registry
from rlgen.envs.classic_control.cart_pole import CartPole
from rlgen.envs.classic_control.mountain_car import MountainCar
from rlgen.envs.classic_control.parameters import EDIT, NEARBY
from rlgen.envs.classic_control.pendulum import Pendulum
from rlgen.evaluation.suites import load_suite
from rlgen.levels import disjoint, make_level_set, save_levels
from rlgen.protocols import LevelEnv, level_hash

ENVS = {"cart-pole": CartPole(), "pendulum": Pendulum(), "mountain-car": MountainCar()}
THEIRS = {
    "cart-pole": cartpole.CartPole(),
    "pendulum": pendulum.Pendulum(),
    "mountain-car": mountain_car.MountainCar(),
}
NAMES = list(ENVS)

# Number of levels of each suite, and the first digits of a hash of their contents. If the levels of
# a suite change, give it a new version together with the new hash.
PINNED = {
    "cart-pole/nominal": (1, "a1199edb9fc0ac54"),
    "cart-pole/train-range": (200, "b7354cf8460e2cd7"),
    "cart-pole/beyond": (80, "46f963c3220f0a39"),
    "cart-pole/far": (80, "deb99904854f59f0"),
    "pendulum/nominal": (1, "38d68c44418f2b13"),
    "pendulum/train-range": (200, "1f6511a57828c3f3"),
    "pendulum/beyond": (64, "970fa2008330204f"),
    "pendulum/far": (64, "adfbf6a691330255"),
    "mountain-car/nominal": (1, "93166b20b098b052"),
    "mountain-car/train-range": (200, "7626b20032826204"),
    "mountain-car/beyond": (32, "d3fca3168a217736"),
    "mountain-car/far": (32, "b3d23fbdcfe89912"),
}


def suite(name):
    return load_suite(ENVS[name.split("/")[0]], name)


def table(env, levels):
    """Parameters of levels [M] as an array [M, D]."""
    return np.stack([np.asarray(getattr(levels, name)) for name in env.ranges().names], -1)


@functools.cache
def sampled(env, num, method="sample_level", seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    return jax.jit(jax.vmap(getattr(env, method)))(keys)


def shares(env, values):
    """Logarithmic places of values in their ranges: 0 at the low end, 1 at the high end."""
    ranges = env.ranges()
    return np.log(values / ranges.low) / np.log(ranges.high / ranges.low)


@pytest.mark.parametrize("name", NAMES)
def test_the_nominal_level_is_gymnax_step_for_step(name):
    env, theirs = ENVS[name], THEIRS[name]
    usual = theirs.default_params
    actions = np.random.default_rng(0).integers(0, env.num_actions, 60)
    torques = np.linspace(-usual.max_torque, usual.max_torque, 5) if name == "pendulum" else None

    @jax.jit
    def walk(key, level):
        key_reset, key_step = jax.random.split(key)
        ours, their = env.reset_env(key_reset, level), theirs.reset_env(key_reset, usual)

        def step(states, action):
            force = action if torques is None else jnp.asarray(torques, jnp.float32)[action]
            ours = env.step_env(key_step, states[0], action, level)
            their = theirs.step_env(key_step, states[1], force, usual)
            states = jax.tree.map(jnp.asarray, (ours[1], their[1]))
            return states, [(each[0], *each[2:4]) for each in (ours, their)]

        states = jax.tree.map(
            lambda x: jax.lax.convert_element_type(x, jnp.result_type(x)), (ours[1], their[1])
        )
        return (ours[0], their[0]), jax.lax.scan(step, states, jnp.asarray(actions))[1]

    (start, their_start), (ours, their) = walk(jax.random.key(3), env.default_params)
    np.testing.assert_array_equal(start, their_start)
    for mine, right in zip(ours, their, strict=True):  # observation, reward, terminated
        np.testing.assert_allclose(mine, right, rtol=2e-6, atol=2e-6)
    assert (np.ptp(np.asarray(ours[0]), axis=0) > 0.01).all()
    assert env.default_params.max_steps_in_episode == 200


# Effects of one step, derived by hand from the physics: initial state, action, parameter, index of
# the observation, and whether that entry grows (+1) or shrinks (-1) with the parameter.
CART = {"x": 0.0, "x_dot": 0.0, "theta": 0.1, "theta_dot": 0.0}
ROD = {"theta": 0.5, "theta_dot": 0.0, "last_u": 0.0}
CAR = {"position": 0.0, "velocity": 0.0}
EFFECTS = [
    ("cart-pole", CART, 1, "gravity", 3, 1),  # a leaning pole falls faster
    ("cart-pole", CART, 1, "masscart", 1, -1),  # an equal push moves a heavier cart less
    # The cart also has to move the pole.
    ("cart-pole", CART | {"theta": 0.0}, 1, "masspole", 1, -1),
    ("cart-pole", CART | {"theta": 0.0}, 1, "length", 3, 1),  # a long pole tips over more slowly
    ("cart-pole", CART | {"theta": 0.0}, 0, "length", 3, -1),  # and in the other direction
    ("cart-pole", CART, 1, "force_mag", 1, 1),
    ("cart-pole", CART, 0, "force_mag", 1, -1),
    ("pendulum", ROD, 2, "gravity", 2, 1),  # no torque, gravity only
    ("pendulum", ROD, 2, "length", 2, -1),  # a long rod falls more slowly
    ("pendulum", ROD | {"theta": 0.0}, 4, "mass", 2, -1),
    ("pendulum", ROD | {"theta": 0.0}, 4, "length", 2, -1),
    ("pendulum", ROD, 4, "max_torque", 2, 1),
    ("pendulum", ROD, 0, "max_torque", 2, -1),
    ("mountain-car", CAR, 2, "force", 1, 1),
    ("mountain-car", CAR, 0, "force", 1, -1),
    ("mountain-car", CAR, 1, "gravity", 1, -1),  # at 0 the hill rises to the right
    ("mountain-car", CAR | {"position": -1.0}, 1, "gravity", 1, 1),  # at -1 it rises to the left
]


@pytest.mark.parametrize(("name", "state", "action", "parameter", "number", "sign"), EFFECTS)
def test_a_larger_parameter_acts_as_physics_says(name, state, action, parameter, number, sign):
    env = ENVS[name]
    level, key = env.default_params, jax.random.key(0)
    start = env.reset_env(key, level)[1].replace(**jax.tree.map(jnp.float32, state))
    more = level.replace(**{parameter: 1.5 * getattr(level, parameter)})
    obs, more_obs = (env.step_env(key, start, action, each)[0] for each in (level, more))
    assert sign * float(more_obs[number] - obs[number]) > 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_an_effect_under_test(name):
    assert {effect[3] for effect in EFFECTS if effect[0] == name} == {*ENVS[name].ranges().names}


@pytest.mark.parametrize("name", NAMES)
def test_generated_levels_fill_their_ranges_evenly(name):
    env = ENVS[name]
    levels = sampled(env, 2000)
    place = shares(env, table(env, levels))
    assert place.min() >= -1e-6 and place.max() <= 1 + 1e-6
    quantiles = np.quantile(place, [0.01, 0.25, 0.5, 0.75, 0.99], axis=0)
    uniform = np.array([0.01, 0.25, 0.5, 0.75, 0.99])[:, None]
    np.testing.assert_allclose(quantiles, np.broadcast_to(uniform, quantiles.shape), atol=0.05)
    correlation = np.corrcoef(place.T) - np.eye(place.shape[1])
    assert abs(correlation).max() < 0.1
    assert (np.asarray(levels.max_steps_in_episode) == env.max_steps).all()


@pytest.mark.parametrize("name", NAMES)
def test_simple_levels_lie_close_together_and_differ(name):
    env = ENVS[name]
    values = table(env, sampled(env, 50, "sample_simple_level"))
    place = shares(env, values)
    assert place.min() >= -1e-6 and place.max() <= 1 + 1e-6
    assert (np.ptp(place, axis=0) <= 2 * NEARBY + 1e-5).all()
    assert len(np.unique(values, axis=0)) == 50
    if name != "mountain-car":
        np.testing.assert_allclose(values, np.tile(table(env, env.default_params), (50, 1)), 0.05)
    else:
        assert (place[:, 0] > 0.98).all() and (place[:, 1] < 0.02).all()


@pytest.mark.parametrize(
    ("name", "num_edits"), [*((name, 1) for name in NAMES), ("cart-pole", 0), ("cart-pole", 3)]
)
def test_an_edit_changes_one_parameter_a_little(name, num_edits):
    env = ENVS[name]
    levels = sampled(env, 2000)
    mutate = jax.jit(lambda key, levels: env.mutate_levels(key, levels, num_edits))
    mutants = mutate(jax.random.key(1), levels)
    before, after = table(env, levels), table(env, mutants)
    ranges = env.ranges()
    assert (after >= ranges.low).all() and (after <= ranges.high).all()
    changed = (before != after).sum(1)
    assert changed.max(initial=0) <= num_edits
    moved = abs(shares(env, after) - shares(env, before))
    assert moved.max() <= num_edits * EDIT + 1e-5
    if num_edits == 1:
        assert (changed == 1).mean() > 0.9  # the others were clipped at an end of their range
        per_parameter = (before != after).mean(0)
        np.testing.assert_allclose(per_parameter, 1 / before.shape[1], atol=0.08)
        assert moved.max() > 0.8 * EDIT
    np.testing.assert_array_equal(mutants.max_steps_in_episode, levels.max_steps_in_episode)


def test_an_edit_brings_a_level_back_into_the_ranges():
    env = MountainCar()
    level = env.make_level(np.array([[0.1, 1e-6]], np.float32))
    edited = env.mutate_levels(jax.random.key(0), level, 50)
    np.testing.assert_allclose(table(env, edited)[0], [0.003, 0.001], rtol=0.9)
    assert (table(env, edited) <= env.ranges().high).all()


@pytest.mark.parametrize("name", PINNED)
def test_a_suite_is_the_same_on_every_machine(name):
    made = suite(name)
    data = b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(made.levels.level))
    assert (len(made.levels), hashlib.sha256(data).hexdigest()[:16]) == PINNED[name]
    assert made.name == name
    assert len({row.tobytes() for row in np.asarray(made.levels.hash)}) == len(made.levels)


@pytest.mark.parametrize("name", NAMES)
def test_every_suite_is_pinned(name):
    assert {f"{name}/{suite}" for suite in ENVS[name].suites()} == {
        pinned for pinned in PINNED if pinned.startswith(f"{name}/")
    }


@pytest.mark.parametrize("name", NAMES)
def test_suites_lie_where_they_claim(name):
    env = ENVS[name]
    names = env.ranges().names
    inside = shares(env, table(env, suite(f"{name}/train-range").levels.level))
    assert inside.min() >= -1e-6 and inside.max() <= 1 + 1e-6
    assert inside.min(0).max() < 0.05 and inside.max(0).min() > 0.95
    for which, (near, far) in {"beyond": (0.02, 0.25), "far": (0.3, 0.5)}.items():
        levels = suite(f"{name}/{which}").levels
        place = shares(env, table(env, levels.level))
        for i, label in enumerate(levels.names):
            parameter, side, _ = label.rsplit("-", 2)
            here = names.index(parameter)
            distance = -place[i, here] if side == "low" else place[i, here] - 1
            assert near - 0.001 <= distance <= far + 0.001, label
            others = np.delete(place[i], here)
            assert ((others >= 0) & (others <= 1)).all(), label


@pytest.mark.parametrize("name", NAMES)
def test_the_nominal_suite_is_the_level_of_gymnax(name):
    env = ENVS[name]
    (level,) = table(env, suite(f"{name}/nominal").levels.level)
    np.testing.assert_array_equal(level, table(env, env.default_params))


@pytest.mark.parametrize("name", NAMES)
def test_fresh_levels_are_not_those_of_the_suite(name):
    env = ENVS[name]
    hashes = jax.jit(jax.vmap(level_hash))(sampled(env, 2000))
    assert disjoint(hashes, suite(f"{name}/train-range").levels.hash)


def test_a_suite_stays_what_it_is_in_another_environment_of_the_family():
    narrow = Pendulum(gravity=(9.0, 9.5), mass=(2.0, 3.0), num_torques=9, max_steps=30)
    made = load_suite(narrow, "pendulum/beyond")
    np.testing.assert_array_equal(made.levels.hash, suite("pendulum/beyond").levels.hash)
    assert made.env == Pendulum(num_torques=9)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gravity": (13.0, 7.0)}, r"CartPole: gravity=\(13.0, 7.0\) must be two positive numbers"),
        ({"length": (0.0, 1.0)}, r"length=\(0.0, 1.0\) must be .* such as length=\(0.25, 1.0\)"),
        ({"masspole": (0.1, float("inf"))}, "masspole="),
        ({"masscart": (float("nan"), 1.0)}, "masscart="),
        ({"max_steps": 0}, "max_steps=0 is not in 1"),
    ],
)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        CartPole(**fields)


def test_a_pendulum_needs_a_torque_to_either_side():
    with pytest.raises(ValueError, match="num_torques=1 must be at least 2"):
        Pendulum(num_torques=1)


def test_a_range_may_be_a_single_number():
    env = MountainCar(force=(0.002, 0.002))
    levels = sampled(env, 10)
    assert (np.asarray(levels.force) == np.float32(0.002)).all()
    assert len(np.unique(levels.gravity)) == 10
    mutants = env.mutate_levels(jax.random.key(0), levels, 3)
    np.testing.assert_array_equal(mutants.force, levels.force)


def test_success():
    returns, ended = jnp.array([500.0, 100.0]), jnp.array([False, True])
    np.testing.assert_array_equal(CartPole().success(returns, ended), [True, False])
    np.testing.assert_array_equal(MountainCar().success(-returns, ended), [False, True])
    returns = jnp.array([-499.0, -501.0])  # the threshold is 200 * -2.5
    np.testing.assert_array_equal(Pendulum().success(returns, ~ended), [True, False])


@pytest.mark.parametrize("name", NAMES)
def test_no_episode_returns_less_than_the_lowest_return(name):
    env = dataclasses.replace(ENVS[name], max_steps=30)
    level = jax.tree.map(lambda x: x[:64], sampled(ENVS[name], 2000))
    worst = {"cart-pole": 0, "pendulum": 4, "mountain-car": 1}[name]

    def episode(key, level):
        def step(carry, _):
            state, over = carry
            _, state, reward, terminated, _ = env.step_env(key, state, worst, level)
            return (state, over | terminated), jnp.where(over, 0.0, reward)

        start = (env.reset_env(key, level)[1], jnp.bool_(False))
        return jax.lax.scan(step, start, None, length=30)[1].sum()

    returns = jax.jit(jax.vmap(episode))(jax.random.split(jax.random.key(0), 64), level)
    assert env.lowest_return <= float(returns.min())
    bound = {"cart-pole": 0.0, "pendulum": -30 * (np.pi**2 + 6.4 + 0.009), "mountain-car": -30.0}
    np.testing.assert_allclose(env.lowest_return, bound[name])


@pytest.mark.parametrize("name", NAMES)
def test_levels_survive_a_file(name, tmp_path):
    env = ENVS[name]
    levels = make_level_set(env, jax.tree.map(lambda x: x[:5], sampled(env, 2000)))
    save_levels(tmp_path / "a.npz", levels)
    read = env.load_levels(tmp_path / "a.npz")
    np.testing.assert_array_equal(table(env, read.level), table(env, levels.level))
    np.testing.assert_array_equal(read.hash, levels.hash)
    first = env.ranges().names[0]
    bad = levels.level.replace(**{first: getattr(levels.level, first).at[2].set(-1.0)})
    save_levels(tmp_path / "b.npz", make_level_set(env, bad))
    with pytest.raises(ValueError, match=rf"b\.npz: {first} of level 'test-0002' is -1\.0"):
        env.load_levels(tmp_path / "b.npz")


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_shows_every_parameter_and_the_state(name):
    env = ENVS[name]
    level = env.default_params
    picture = env.level_image(level)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    for parameter in env.ranges().names:
        larger = level.replace(**{parameter: 1.5 * getattr(level, parameter)})
        assert (env.level_image(larger) != picture).any(), parameter
    _, state = env.reset_env(jax.random.key(0), level)
    _, later, *_ = env.step_env(jax.random.key(0), state.replace(time=jnp.int32(1)), 1, level)
    for _ in range(10):
        _, later, *_ = env.step_env(jax.random.key(0), later, 1, level)
    assert (env.render(level, state) != env.render(level, later)).any()
    np.testing.assert_array_equal(env.render(later, level), env.render(level, later))


@pytest.mark.parametrize("name", NAMES)
def test_registry_and_abilities(name):
    env = registry.load("envs", name).build()
    assert env == ENVS[name]
    for ability in ("unpack", "success", "mutate_levels", "sample_simple_level", "editor"):
        assert registry.has(env, getattr(LevelEnv, ability))
    assert not registry.has(env, LevelEnv.solve)
    features = env.level_features(env.default_params)
    assert list(features) == list(env.ranges().names)
