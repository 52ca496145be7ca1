"""Stars of corridors compared with a model in plain Python."""

from collections import deque
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs.corridors import VARIANTS, Corridors, Level, State, build, tiny
from rlgen.evaluation.suites import load_suite
from rlgen.nn.approximators import Table
from rlgen.protocols import LevelEnv

ENV = Corridors(num_corridors=3, length=2, max_steps=12, sharing=0.25, show_visited=True)


def model(env, place: tuple, action) -> tuple:
    """Return the place after an action; () is the hub, (m, l) is l steps into corridor m."""
    if not place:
        return (action, 1) if action < env.num_corridors else ()
    corridor, depth = place
    depth += {env.num_corridors: 1, env.num_corridors + 1: -1}.get(action, 0)
    return (corridor, min(depth, env.length)) if depth else ()


def number(env, place: tuple) -> int:
    """Return the position of a place as documented."""
    return 1 + place[0] * env.length + place[1] - 1 if place else 0


def distances(env, rewarded):
    """Fewest steps from each place to the rewarded end, and from the hub to it, by search."""
    places: list[tuple] = [
        (),
        *((m, n + 1) for m in range(env.num_corridors) for n in range(env.length)),
    ]
    goal = rewarded, env.length
    edges = {p: {model(env, p, a) for a in range(env.num_actions)} for p in places}
    back = {p: {q for q in places if p in edges[q]} for p in places}
    return _search(back, goal), _search(edges, ())


def _search(edges, start) -> dict[tuple, int]:
    steps, todo = {start: 0}, deque([start])
    while todo:
        place = todo.popleft()
        new = edges[place] - steps.keys()
        steps |= dict.fromkeys(new, steps[place] + 1)
        todo.extend(new)
    return steps


@partial(jax.jit, static_argnums=0)
def play(env, key, level):
    """Play 60 random actions on one level, without resets."""
    obs, state = env.reset_env(key, level)
    # Forward is likely, so that ends are reached.
    logits = jnp.zeros(env.num_actions).at[env.num_corridors].set(1.0)
    actions = jax.random.categorical(key, logits, shape=(60,))

    def step(state, action):
        obs, state, reward, terminated, _ = env.step_env(key, state, action, level)
        truncated = env.is_truncated(state, level)
        return state, (obs, env.position(state, level), reward, terminated, truncated)

    return obs, actions, *jax.lax.scan(step, state, actions)[1]


def test_episodes_are_those_of_the_model():
    keys = jax.random.split(jax.random.key(0), 40)
    for rewarded, max_steps in ((0, 12), (2, 12), (1, 6)):
        level = Level(jnp.int32(rewarded), jnp.int32(max_steps))
        first, *played = jax.vmap(play, in_axes=(None, 0, None))(ENV, keys, level)
        assert (first == 0).all()
        wins = [check_episode(level, *one) for one in zip(*map(np.array, played), strict=True)]
        assert 0 < sum(wins) < 40


def check_episode(level, actions, obs, position, reward, terminated, truncated):
    place, visited = (), 0
    for t, action in enumerate(actions):
        place = model(ENV, place, action)
        visited |= (1 << place[0]) if place and place[1] == ENV.length else 0
        wins = place == (int(level.rewarded), ENV.length)
        assert position[t] == number(ENV, place)
        assert obs[t] == position[t] + 7 * visited
        assert reward[t] == wins and terminated[t] == wins
        assert truncated[t] == (t + 1 >= level.max_steps_in_episode)
        if wins:
            return True
    return False


@pytest.mark.parametrize("max_steps", [1, 2, 4, 5, 6, 7, 8, 12])
def test_values_of_positions_are_those_of_a_search_within_the_time_limit(max_steps):
    for rewarded in range(3):
        to_goal, from_hub = distances(ENV, rewarded)
        level = Level(jnp.int32(rewarded), jnp.int32(max_steps))
        found = ENV.feature_values(level, "position", 0.9)
        assert found.shape == (ENV.num_positions(),)
        for place, steps in to_goal.items():
            expected = 0.9**steps if from_hub[place] + steps <= max_steps else 0.0
            assert found[number(ENV, place)] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [(0.0, 0.140), (0.25, 0.131), (0.5, 0.105), (0.75, 0.061), (1.0, 0.0)],
)
def test_the_published_shared_structure_is_the_mean_variance_over_the_cells_of_corridors(
    sharing, expected
):
    # Mean of p (1 - p) over corridors, 0.16 if uniform, times the mean of 0.99 ** 2k, k = 0 .. 14.
    env = Corridors(sharing=sharing)
    prob = np.full(5, (1 - sharing) / 5) + sharing * (np.arange(5) == 0)
    values = jax.vmap(env.feature_values, in_axes=(0, None, None))
    value = np.array(values(env._level(jnp.arange(5)), "position", 0.99), float)
    mean = prob @ value
    variance = prob @ value**2 - mean**2
    assert variance[1:].mean() == pytest.approx(expected, abs=6e-4)
    assert variance[0] == pytest.approx(0.0, abs=1e-6)  # the hub has the same value on every level


def exact(env, rewarded, max_steps, log_policy):
    """Solve probability, by a dictionary over places and visited ends."""
    start: tuple[tuple, int] = (), 0
    at, won = {start: 1.0}, 0.0
    for _ in range(max_steps):
        new: dict[tuple[tuple, int], float] = {}
        for (place, visited), prob in at.items():
            obs = number(env, place) + env.num_positions() * visited * env.show_visited
            for action, share in enumerate(np.exp(log_policy[obs].astype(float))):
                there = model(env, place, action)
                ended = bool(there) and there[1] == env.length
                won += prob * share * (ended and there[0] == rewarded)
                seen = (there, visited | (1 << there[0] if ended else 0))
                new[seen] = new.get(seen, 0) + prob * share * (not ended or there[0] != rewarded)
        at = new
    return won


def test_expected_return_follows_every_way_through_the_star():
    random = np.random.default_rng(0)
    for env in (ENV, Corridors(num_corridors=2, length=3, max_steps=9)):
        expected_return = jax.jit(env.expected_return)
        log_policy = random.normal(size=(env.num_states(), env.num_actions))
        log_policy -= np.log(np.exp(log_policy).sum(1, keepdims=True))
        for rewarded in range(2):
            for max_steps in (1, 5, 9):
                level = Level(jnp.int32(rewarded), jnp.int32(max_steps))
                found = expected_return(level, jnp.asarray(log_policy, jnp.float32))
                expected = exact(env, rewarded, max_steps, log_policy)
                assert found == pytest.approx(expected, abs=1e-5)


def sweep(env):
    """Log-policy that visits each end in turn, based on the observation."""
    choice = np.zeros(env.num_states(), int)
    for obs in range(env.num_states()):
        visited, cell = divmod(obs, env.num_positions())
        corridor = (cell - 1) // env.length
        unseen = [m for m in range(env.num_corridors) if not visited >> m & 1]
        inside = env.num_corridors + (visited >> max(corridor, 0) & 1)
        choice[obs] = inside if cell else (unseen or [0])[0]
    one_hot = np.eye(env.num_actions)[choice]
    return jnp.asarray(np.log(one_hot + 1e-30), jnp.float32)


def test_a_full_sweep_takes_two_lengths_for_all_but_one_corridor():
    env = Corridors(num_corridors=4, length=3, max_steps=21, show_visited=True)
    returns = jax.jit(jax.vmap(env.expected_return, in_axes=(0, None)))
    levels = env._level(jnp.arange(4))
    np.testing.assert_allclose(returns(levels, sweep(env)), 1.0, atol=1e-6)
    short = replace(levels, max_steps_in_episode=levels.max_steps_in_episode - 1)
    np.testing.assert_allclose(returns(short, sweep(env)), [1, 1, 1, 0], atol=1e-6)
    ends = env.level_features(short)["ends_in_reach"]
    assert (ends == 3).all() and (env.level_features(levels)["ends_in_reach"] == 4).all()


def test_an_episode_as_long_as_a_corridor_succeeds_once_in_m():
    env = Corridors()
    assert env.max_steps == env.length == 15
    forward = jnp.full((76, 7), -jnp.inf).at[1:, 5].set(0.0)
    policy = forward.at[0, :5].set(-jnp.log(5.0))
    assert env.expected_return(env._level(jnp.int32(3)), policy) == pytest.approx(0.2)
    solution = env.solve(env.default_params)
    assert solution.solvable and solution.steps == 15 and solution.optimal_return == 1
    unsolvable = env.solve(Level(jnp.int32(0), jnp.int32(14)))
    assert not unsolvable.solvable and unsolvable.steps == -1 and unsolvable.optimal_return == 0


@pytest.mark.parametrize("sharing", [0.0, 0.5, 1.0])
def test_levels_share_the_first_corridor_as_often_as_asked(sharing):
    env = Corridors(sharing=sharing)
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(1), 4000))
    found = np.bincount(levels.rewarded, minlength=5) / 4000
    expected = (1 - sharing) / 5 + sharing * (np.arange(5) == 0)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert (levels.max_steps_in_episode == 15).all()


def test_the_network_sees_place_and_visited_ends():
    obs = jnp.array([[0, 3], [7 * 5 + 2, 7 * 2]])
    seen = ENV.unpack(obs)
    assert seen.shape == (2, 2, 10)
    np.testing.assert_array_equal(seen[..., :7].argmax(-1), [[0, 3], [2, 0]])
    np.testing.assert_array_equal(seen[1, :, 7:], [[1, 0, 1], [0, 1, 0]])
    blind = Corridors(num_corridors=3, length=2)
    np.testing.assert_array_equal(blind.unpack(jnp.int32(6)), np.eye(7)[6])


def test_suites_have_every_corridor_and_what_training_draws():
    env = Corridors(sharing=0.5)
    every, seen = (load_suite(env, f"corridors/{name}") for name in ("all", "seen"))
    assert sorted(every.levels.level.rewarded.tolist()) == [0, 1, 2, 3, 4]
    share = np.mean(np.array(seen.levels.level.rewarded) == 0)
    assert len(seen.levels) == 100 and 0.45 < share < 0.75  # expected 0.6
    assert (every.levels.optimal_return == 1).all() and (seen.levels.optimal_steps == 15).all()


def test_variants_are_levels_and_time_of_two_kinds():
    for name, fields in VARIANTS.items():
        env = build(**fields)
        assert env.sharing == ("singleton" in name)
        corridors_in_reach = int(env.level_features(env.default_params)["ends_in_reach"])
        assert corridors_in_reach == (env.num_corridors if "sweep" in name else 1)
        Table().check(env)
    assert build() == build(**VARIANTS["singleton"])


def test_pictures_show_agent_goal_and_visited_ends():
    level, hub = ENV._level(jnp.int32(1)), State(*[jnp.int32(0)] * 4)
    start = ENV.level_image(level)
    np.testing.assert_array_equal(start, ENV.render(hub, level))
    moved = ENV.render(level, replace(hub, corridor=jnp.int32(2), depth=jnp.int32(1)))
    seen = ENV.render(level, replace(hub, visited=jnp.int32(4)))
    other = ENV.level_image(ENV._level(jnp.int32(2)))
    assert len({x.tobytes() for x in (start, moved, seen, other)}) == 4


def test_there_are_no_events():
    assert not registry.has(tiny(), LevelEnv.event)
    with pytest.raises(
        ValueError, match="feature='event' does not exist; the only one is 'position'"
    ):
        ENV.feature_values(ENV.default_params, "event", 0.99)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_corridors": 1}, r"num_corridors=1 is not in 2 \.\. 24"),
        ({"length": 0}, "length=0 is not in 1"),
        ({"max_steps": 0}, "max_steps=0 is not in 1"),
        ({"sharing": 1.5}, r"sharing=1\.5 is not in 0 \.\. 1"),
        ({"num_corridors": 20, "show_visited": True}, "observations, more than 4194304"),
    ],
)
def test_impossible_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Corridors(**fields)
