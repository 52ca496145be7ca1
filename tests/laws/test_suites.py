"""Agents play a suite only if they read its observations correctly, for all families and suites."""

import sys
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces

from rlgen import registry, testing
from rlgen.cli.train import _suite_of_run
from rlgen.envs.gridworld.modes import MODES
from rlgen.evaluation.ladder.ladder import climb
from rlgen.evaluation.suites import check_readable, load_suite, playable_suites
from rlgen.levels import Suite, make_level_set
from rlgen.observations import interface_difference, misread
from rlgen.protocols import LevelEnv
from rlgen.testing.suites import walk
from rlgen.types import Solution

VARIANTS = [
    name
    for family in registry.names("envs")
    for name in (
        family,
        *(f"{family}/{each}" for each in registry.variants(registry.load("envs", family))),
    )
]


@pytest.fixture(scope="module")
def suites_forgotten_at_the_end():
    """Empty the caches of suites after this file: their optima are invented, see `unsolved`."""
    yield
    for name, module in list(sys.modules.items()):
        if name.startswith("rlgen.envs."):
            for each in vars(module).values():
                if clear := getattr(each, "cache_clear", None):
                    clear()


@pytest.fixture
def unsolved(monkeypatch, suites_forgotten_at_the_end):
    """Build suites without solving their levels, which takes most of the time."""

    def solve(self, level):
        return Solution(jnp.bool_(True), jnp.int32(1), jnp.float32(1.0))

    for family in registry.names("envs"):
        env = registry.load("envs", family).tiny()
        if registry.has(env, LevelEnv.solve):
            monkeypatch.setattr(type(env), "solve", solve)


def reads_alike(env, suite):
    """Compare what an agent of `env` reads with the meaning of the observations; independent check.

    The agent's `unpack` must give what the `unpack` of the suite's environment gives, and the
    agent's own environment must give the same observations on the same levels.
    """
    obs = walk(suite.env, suite, 8, 4)
    try:
        own = walk(env, suite, 8, 4)
    except (AttributeError, TypeError, ValueError):  # it cannot play such levels at all
        return False
    if env.num_actions != suite.env.num_actions or not equal(own, obs):
        return False
    return equal(env.unpack(obs), suite.env.unpack(obs))


def equal(tree, other):
    one, two = ([np.asarray(x) for x in jax.tree.leaves(each)] for each in (tree, other))
    return [x.shape for x in one] == [x.shape for x in two] and all(
        np.allclose(x, y, rtol=1e-4, atol=1e-4) for x, y in zip(one, two, strict=True)
    )


def check_pair(name, short):
    """Return whether agents of a variant are rejected by a suite; both ways must be right."""
    if package := registry.missing_extra(name):
        pytest.skip(f"without {package}")
    env = registry.make_env(name)
    suite = env.suites()[short]()
    why = misread(env, suite)
    assert bool(why) != reads_alike(env, suite), f"{name} on {short}: {why or 'not rejected'}"
    assert not (why and short in ("heldout", "test"))
    return why


@pytest.mark.parametrize(
    ("name", "short", "sentence"),
    [
        ("gridworld/dense", "handcrafted", "21632 values instead of 1936 values at obs"),
        ("gridworld/sparse", "mazes", "1352 values instead of 676 values at obs"),
        ("gridworld/rand-tiny", "mazes", "its observations have different shapes"),
        ("gridworld/rand-tiny", "seen", ""),
        ("gridworld/large", "unseen", ""),
        ("gridworld/labyrinth", "mazes", ""),
        ("maze", "large-corridor", ""),
        ("cart-pole", "far", ""),
    ],
)
def test_a_suite_is_rejected_if_and_only_if_agents_would_misread_it(
    name, short, sentence, unsolved
):
    why = check_pair(name, short)
    assert sentence in why and bool(why) == bool(sentence)


@pytest.mark.thorough
@pytest.mark.parametrize("name", VARIANTS)
def test_every_suite_of_every_variant(name, unsolved):
    if package := registry.missing_extra(name):
        pytest.skip(f"without {package}")
    for short in registry.make_env(name).suites():
        check_pair(name, short)


def test_modes_with_the_same_observation_space_number_states_in_the_same_way():
    # The index of a state does not contain the number of cells, so equal numbers of states could
    # hide different numbers of cells.
    seen = {}
    for mode in MODES:
        env = registry.make_env(f"gridworld/{mode}")
        space = env.observation_space()
        size = (
            (space.n,) if env.is_tabular else (int(space.spaces["objects"].high), env.max_objects)
        )
        code = (env.max_size, env.max_objects, env.is_tabular or env.num_types)
        assert seen.setdefault((env.is_tabular, *size), code) == code, mode


def test_the_message_names_the_run_the_suite_and_the_suites_to_play(unsolved):
    env = registry.make_env("gridworld/dense")
    suite = env.suites()["handcrafted"]()
    with pytest.raises(ValueError) as error:
        check_readable("runs/a", env, suite)
    assert str(error.value) == (
        "runs/a was trained in gridworld/dense (GridWorld) and cannot play gridworld/handcrafted, "
        "which uses gridworld/handcrafted (GridWorld) (mode dense and handcrafted): an observation "
        "means something else there, because the observation space has 21632 values instead of "
        "1936 values at obs; suites that it can play: gridworld/test"
    )


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("gridworld/dense", "gridworld/test"),
        ("gridworld/rand-tiny", "gridworld/seen"),
        ("cart-pole", "cart-pole/beyond"),
        ("maze", "maze/heldout"),
        ("cave", "cave/test"),
    ],
)
def test_training_names_a_suite_that_the_run_can_play(name, suite, unsolved):
    assert _suite_of_run(registry.make_env(name)) == suite


@pytest.mark.thorough
@pytest.mark.parametrize("name", VARIANTS)
def test_training_names_a_playable_suite_for_every_variant(name, unsolved):
    if package := registry.missing_extra(name):
        pytest.skip(f"without {package}")
    env = registry.make_env(name)
    suite = load_suite(env, _suite_of_run(env))
    assert not misread(env, suite)
    if suite.name.startswith(("minatar/", "key-corridor/s6r3")):
        assert suite.env == env  # the suite of the same variant is preferred


@dataclass(frozen=True)
class Lamp(testing.Probe):
    """Probe whose fields change the observation, the dynamics or the space."""

    inverted: bool = False
    is_slow: bool = False
    top: float = 1.0

    def observe(self, key, state, action, params):
        obs = super().observe(key, state, action, params)
        return 1 - obs if self.inverted else obs

    def step_env(self, key, state, action, params):
        obs, after, *rest = super().step_env(key, state, action, params)
        return obs, jax.tree.map(lambda x: x + self.is_slow, after), *rest

    def observation_space(self, params):
        space = super().observation_space(params)
        return spaces.Box(space.low, self.top, space.shape, space.dtype)

    def suites(self):
        changed = {"inverted": Lamp(inverted=True), "slow": Lamp(is_slow=True), "dim": Lamp(top=2)}
        return {name: lambda env=env, name=name: lamps(env, name) for name, env in changed.items()}


def lamps(env, name="lamps"):
    level = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(0), 3))
    return Suite(name, env, make_level_set(env, level))


def test_the_observations_of_a_users_environment_are_compared():
    sentence = r"level test-0000, step 0"
    with pytest.raises(ValueError, match=rf"{sentence}.*can play: .*slow$"):
        check_readable("run", Lamp(), lamps(Lamp(inverted=True), "inverted"))
    assert playable_suites(Lamp()) == ["slow"]
    assert misread(Lamp(), lamps(Lamp())) == ""
    told = interface_difference(Lamp(), Lamp(top=2))
    assert told.endswith("has the range 0 .. 2 instead of the range 0 .. 1 at obs")
    assert set(testing.check_suites(Lamp())) == {"inverted", "slow", "dim"}


def test_a_ladder_leaves_out_levels_that_agents_would_misread():
    # Agents in smaller houses read positions as fractions of another size.
    env = registry.load("envs", "houses").tiny()
    found = climb(env, 2, chosen=("V2",))
    assert not found.rungs
    assert (
        "V2: agents would misread crowded: an observation means something else" in found.missing[0]
    )
