"""Environments from other packages, tested without and with the package."""

import importlib
import runpy
import sys
from collections import Counter
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments.environment import Environment

from rlgen import registry, testing
from rlgen.envs.external import craftax_adapter, xland_adapter
from rlgen.envs.external import xland_rulesets as rulesets
from rlgen.envs.external.craftax import Craftax
from rlgen.envs.external.xland import XLand
from rlgen.protocols import LevelEnv

NAMES = {"craftax": "craftax", "xland": "xminigrid"}
ONE_OF_EACH = (
    *("r2-9x9", "r4-9x9", "r6-13x13", "r9-16x16", "door-key-5x5", "four-rooms", "locked-room"),
    *("empty-random-5x5", "memory-s8", "unlock", "unlock-pick-up", "blocked-unlock-pick-up"),
)
PACKAGES = {"craftax": craftax_adapter, "xland": xland_adapter}
needs_craftax = pytest.mark.skipif(find_spec("craftax") is None, reason="craftax is not installed")
needs_xland = pytest.mark.skipif(
    find_spec("xminigrid") is None, reason="xminigrid is not installed"
)


@pytest.fixture(params=NAMES)
def absent(request, monkeypatch):
    """Family whose package is made impossible to import, even if it is installed."""
    monkeypatch.setitem(sys.modules, NAMES[request.param], None)
    PACKAGES[request.param].load.cache_clear()
    return request.param


def test_without_its_package_an_environment_can_be_imported_built_and_asked(absent):
    module = registry.load("envs", absent)
    for path in (PACKAGES[absent].__file__, module.__file__):
        runpy.run_path(str(path))  # run the module as on its first import
    assert NAMES[absent] == module.EXTRA
    for fields in registry.variants(module).values():
        env = module.build(**fields)
        assert env == module.build(**fields) and hash(env) == hash(module.build(**fields))
        # Also without the package.
        assert isinstance(env, LevelEnv) and isinstance(env, Environment)
        assert registry.has(env, LevelEnv.position)
        assert not registry.has(env, LevelEnv.feature_values)
        level = jax.eval_shape(env.sample_level, jax.random.key(0))
        space: Any = env.observation_space(None)
        assert level.world.shape == (2,) and len(space.shape) in (1, 3)


def test_without_its_package_playing_says_what_to_install(absent):
    env, key = registry.load("envs", absent).tiny(), jax.random.key(0)
    sentence = rf"{absent} needs the package {NAMES[absent]} .*: pip install \"rlgen\[{absent}\]\""
    with pytest.raises(ValueError, match=sentence):
        jax.eval_shape(env.reset_env, key, jax.eval_shape(env.sample_level, key))


@pytest.mark.parametrize(
    ("build", "fields", "sentence"),
    [
        (Craftax, {"game": "classy"}, "did you mean 'classic'"),
        (Craftax, {"max_steps": -1}, "max_steps=-1"),
        (XLand, {"task": "r1-9x8"}, "did you mean 'r1-9x9'"),
        (XLand, {"max_depth": 9}, "max_depth=9 is not in 0 .. 4"),
    ],
)
def test_bad_fields_are_refused(build, fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        build(**fields)


def test_a_world_of_craftax_is_a_key_and_suites_share_none():
    env = Craftax("classic")
    key = jax.random.key(7)
    assert (env.sample_level(key).world == jax.random.key_data(key)).all()
    suites = {name: make() for name, make in env.suites().items()}
    hashes = np.concatenate([suite.levels.hash for suite in suites.values()])
    assert len(np.unique(hashes, axis=0)) == len(hashes) == 64 + 256
    assert (suites["heldout"].levels.level.max_steps_in_episode == 10_000).all()


# Rulesets, compared with a search over multisets of objects, in which rules are reactions.


@pytest.fixture(scope="module")
def drawn():
    keys = jax.random.split(jax.random.key(0), 400)
    draw = jax.jit(jax.vmap(lambda key: rulesets.sample_ruleset(key, 3, 4)))
    return jax.tree.map(np.asarray, draw(keys))


def pairs(numbers):
    return [tuple(x) for x in np.asarray(numbers).reshape(-1, 2).tolist() if any(x)]


def reactions(rules):
    """Inputs and product of every rule, decoded as in the package."""
    found = []
    for kind, *numbers in rules.tolist():
        if kind:
            *inputs, product = pairs(numbers if kind == 3 else numbers[:4])
            assert len(inputs) == (2 if kind == 3 else 1)
            found.append((inputs, product))
    return found


def needed(goal):
    kind, *numbers = goal.tolist()
    return pairs(numbers) if kind == 4 else pairs(numbers[:2])


def derivable(bag, rules, wanted):
    """Return whether some order of reactions yields all wanted objects at the same time."""
    if not Counter(wanted) - bag:
        return True
    possible = [(ins, out) for ins, out in rules if not Counter(ins) - bag]
    return any(
        derivable(bag - Counter(ins) + Counter([out]), rules, wanted) for ins, out in possible
    )


def test_every_goal_can_be_made_and_only_by_all_rules_of_its_chain(drawn):
    lengths, kinds = Counter(), Counter()
    for goal, rules, tiles in zip(*drawn, strict=True):
        bag, wanted = Counter(pairs(tiles)), needed(goal)
        chain, others = reactions(rules[:3]), reactions(rules[3:])
        assert max(bag.values()) == 1
        assert derivable(bag, chain + others, wanted)
        for i in range(len(chain)):
            assert not derivable(bag, chain[:i] + chain[i + 1 :] + others, wanted)
        lengths[len(chain)] += 1
        kinds.update([("goal", int(goal[0]))] + [("rule", int(k)) for k in rules[:3, 0] if k])
    assert sorted(lengths) == [0, 1, 2, 3] and min(lengths.values()) > 60  # expected 100
    assert set(kinds) == {("goal", k) for k in (1, 3, 4)} | {("rule", k) for k in (1, 2, 3)}


def test_no_reaction_of_distractors_uses_up_what_is_needed(drawn):
    for goal, rules, tiles in zip(*drawn, strict=True):
        chain, others = reactions(rules[:3]), reactions(rules[3:])
        useful = set(needed(goal)) | {tile for inputs, _ in chain for tile in inputs}
        assert len(others) == 2
        for inputs, product in others:
            assert useful.isdisjoint(inputs) and product not in useful
            assert set(inputs) <= set(pairs(tiles))


# Tests that need the packages.


@needs_xland
def test_what_is_said_of_the_tasks_is_so_and_none_with_a_goal_is_missing():
    package = importlib.import_module("xminigrid")
    known = {task.id: task[1:] for task in xland_adapter.TASKS.values()}
    names = set(package.registered_environments()) - {"MiniGrid-Playground"}
    params = {name: package.make(name)[1] for name in names}
    assert known == {n: (p.height, p.width, p.view_size, p.max_steps) for n, p in params.items()}


@needs_xland
def test_the_laws_hold_for_xland():
    testing.check_env(registry.load("envs", "xland").tiny(), num_steps=20, num_levels=3)


@needs_xland
def test_a_walk_to_the_goal_pays_one_and_is_seen():
    env = XLand("empty-5x5", max_steps=5)
    level = env.default_params
    step = jax.jit(env.step_env)
    obs, state = env.reset_env(jax.random.key(0), level)
    assert env.unpack(obs)["image"].shape == (7, 7, 25) and env.num_positions() == 25
    trace = []
    for action in (0, 0, 1, 0, 0):  # forward twice, turn clockwise, forward twice
        _, state, reward, terminated, _ = step(jax.random.key(0), state, action, level)
        trace.append((int(env.position(state, level)), float(reward), bool(terminated)))
    assert trace == [(7, 0, 0), (8, 0, 0), (8, 0, 0), (13, 0, 0), (18, 1, 1)]
    assert env.is_truncated(state, level)  # at the limit of the level the goal is still rewarded


@needs_xland
@pytest.mark.parametrize("task", ONE_OF_EACH)
def test_no_task_changes_types_in_play(task):
    env, key = XLand(task), jax.random.key(0)
    level = jax.eval_shape(env.sample_level, key)
    obs, state = jax.eval_shape(env.reset_env, key, level)
    after = jax.eval_shape(env.step_env, key, state, jnp.int32(0), level)
    testing.assert_shapes(after[:2], (obs, state), "a step changes types")
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    assert obs.shape == env.observation_space().shape


@needs_xland
def test_the_wrong_choice_of_a_memory_task_ends_it_unpaid():
    env = XLand("memory-s8")
    level, key = env.default_params, jax.random.key(0)
    step = jax.jit(env.step_env)
    ends, reward, terminated = [], 0.0, False
    for turn in (1, 2):  # at the end of the corridor, turn left or right
        _, state = env.reset_env(key, level)
        for action in (*[0] * 8, turn, 0):
            _, state, reward, terminated, _ = step(key, state, action, level)
        ends.append((float(reward), bool(terminated)))
    assert sorted(ends) == [(0, True), (1, True)]
    assert env.success(jnp.array([0.0, 1.0]), jnp.array([True, True])).tolist() == [False, True]


@needs_xland
def test_random_play_meets_every_kind_of_goal_and_rule():
    """The encodings of goals and rules have the same meaning in the package as in rlgen."""
    env = XLand(max_depth=1)
    keys = jax.random.split(jax.random.key(1), 128)
    level = jax.jit(jax.vmap(env.sample_level))(keys)

    def play(key, level):
        def step(carry, key):
            state, solved = carry
            action = jax.random.randint(key, (), 0, 6)
            _, new, reward, _, _ = env.step_env(key, state, action, level)
            state = jax.tree.map(lambda x, y: jnp.where(solved, x, y), state, new)
            return (state, solved | (reward > 0)), None

        start = (env.reset_env(key, level)[1], jnp.bool_(False))
        return jax.lax.scan(step, start, jax.random.split(key, 600))[0][1]

    solved = np.asarray(jax.jit(jax.vmap(play))(keys, level))
    goal, rule = np.asarray(level.ruleset.goal)[:, 0], np.asarray(level.ruleset.rules)[:, 0, 0]
    for kind in (1, 3, 4):
        assert solved[(goal == kind) & (rule == 0)].any(), f"goal {kind}"
    for kind in (1, 2, 3):
        assert solved[rule == kind].any(), f"rule {kind}"


@needs_craftax
@pytest.mark.parametrize("game", craftax_adapter.GAMES)
def test_what_is_said_of_a_game_is_so(game):
    env, facts = Craftax(game), craftax_adapter.GAMES[game]
    inner, level = craftax_adapter.load(game), env.default_params
    static = inner.static_env_params
    assert facts.shape == (getattr(static, "num_levels", 1), *static.map_size)
    assert facts.max_steps == inner.default_params.max_timesteps
    obs, state = jax.eval_shape(env.reset_env, jax.random.key(0), level)
    assert state.game.achievements.shape == (facts.num_achievements,)
    assert obs.shape == env.observation_space().shape
    assert env.num_events() == facts.num_achievements + 1
    assert env.num_actions == inner.num_actions
    after = jax.eval_shape(env.step_env, jax.random.key(0), state, jnp.int32(0), level)
    testing.assert_shapes(after[:2], (obs, state), "a step changes types")
    assert not any(x.weak_type for x in jax.tree.leaves(state))
    where = jax.eval_shape(env.position, state, level)
    assert where.shape == () and where.dtype == jnp.int32


@needs_craftax
@pytest.mark.slow
def test_the_laws_hold_for_craftax():
    testing.check_env(registry.load("envs", "craftax").tiny(), num_steps=20, num_levels=2)


@needs_craftax
@pytest.mark.slow
def test_rewards_of_craftax_are_its_events_and_changes_of_health():
    env = Craftax("classic")
    keys = jax.random.split(jax.random.key(2), 8)
    level = jax.vmap(env.sample_level)(keys)

    def play(key, level):
        def step(state, key):
            action = jax.random.randint(key, (), 0, 17)
            _, new, reward, _, _ = env.step_env(key, state, action, level)
            health = new.game.player_health - state.game.player_health
            event, cell = env.event(new, level), env.position(new, level)
            unlocked = new.game.achievements & ~state.game.achievements
            place = new.game.player_position
            return new, (reward, health, event, unlocked, cell, place)

        _, state = env.reset_env(key, level)
        return jax.lax.scan(step, state, jax.random.split(key, 200))[1]

    found = jax.tree.map(np.asarray, jax.jit(jax.vmap(play))(keys, level))
    reward, health, event, unlocked, cell, place = found
    assert event.max() > 0
    np.testing.assert_allclose(reward, unlocked.sum(-1) + 0.1 * health, atol=1e-5)
    np.testing.assert_array_equal(event > 0, unlocked.any(-1))
    one = unlocked.sum(-1) == 1
    np.testing.assert_array_equal(event[one] - 1, unlocked[one].nonzero()[1])
    np.testing.assert_array_equal(cell, 64 * place[..., 0] + place[..., 1])
    assert len(np.unique(cell)) > 50 and cell.max() < env.num_positions()
