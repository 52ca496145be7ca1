"""Houses: connected rooms, and coverage equal to the share of cells that were seen."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from rlgen import registry
from rlgen.envs.houses import VARIANTS, Houses, build, cells_seen, make_level, tiny, walls_of
from rlgen.envs.houses.generator import Shape, layout, most_rooms, num_draws
from rlgen.evaluation.suites import load_suite
from rlgen.levels import disjoint
from rlgen.protocols import LevelEnv

ENV = Houses(max_steps=60, pay_coverage=True)
NUM_STEPS = 60
MOVES = [(1, 0), (0, 1), (-1, 0), (0, -1)]


def doors_of(walls):
    """Free cells between two walls, or a wall and the border; no room is that narrow."""
    around = np.pad(walls, 1, constant_values=True)
    beside = around[1:-1, :-2] & around[1:-1, 2:]
    above = around[:-2, 1:-1] & around[2:, 1:-1]
    return ~walls & (beside | above)


def labelled(cells) -> tuple[np.ndarray, int]:
    """Connected components of a set of cells, numbered from 1, and their number."""
    label: Any = np.zeros(cells.shape, np.int32)
    ndimage.label(cells, output=label)
    return label, int(label.max())


def rooms_of(walls):
    """Return height and width of every room, and check that each is a rectangle."""
    label, num = labelled(~walls & ~doors_of(walls))
    sides = np.array(
        [[part.stop - part.start for part in at] for at in ndimage.find_objects(label)]
    )
    areas = np.bincount(label.ravel(), minlength=num + 1)[1:]
    np.testing.assert_array_equal(areas, sides.prod(1), "a room is no rectangle")
    return sides


def check_house(walls, start, shape):
    """Check all guaranteed properties of a house; return the numbers of rooms and doors."""
    assert not walls[start[1], start[0]]
    assert labelled(~walls)[1] == 1, "a part of the house cannot be reached"
    rooms = rooms_of(walls)
    fewest, most = shape.num_rooms
    assert fewest <= len(rooms) <= most and rooms.min() >= shape.min_side
    num_doors = doors_of(walls).sum()
    assert len(rooms) - 1 <= num_doors <= 2 * (len(rooms) - 1)
    return len(rooms), num_doors


@pytest.fixture(scope="module")
def drawn():
    keys = jax.random.split(jax.random.key(0), 160)
    return jax.jit(jax.vmap(ENV.sample_level))(keys)


@pytest.mark.thorough
def test_houses_have_the_rooms_and_doors_that_are_promised(drawn):
    walls = np.array(jax.vmap(walls_of)(drawn))
    found = [check_house(*house, ENV._shape()) for house in zip(walls, drawn.start, strict=True)]
    num_rooms, num_doors = np.array(found).T
    counts = np.bincount(num_rooms, minlength=13)[6:]
    assert counts.min() > 8 and counts.max() < 45  # expected 23 each
    second = (num_doors - num_rooms + 1).sum() / (num_rooms - 1).sum()
    assert 0.42 < second < 0.58  # share of walls with two doors
    np.testing.assert_array_equal(drawn.num_free, (~walls).sum((1, 2)))
    assert (drawn.max_steps_in_episode == 60).all()
    # Starts are anywhere, walls run in both directions, and no two houses are equal.
    assert (np.abs(np.array(drawn.start).mean(0) - 20) < 3).all()
    upright, flat = walls[:, 1:-1].mean(1).max(1), walls[:, :, 1:-1].mean(2).max(1)
    assert 40 < (upright > flat).sum() < 120
    assert len({x.tobytes() for x in walls}) == 160


@pytest.mark.thorough
@pytest.mark.parametrize(
    "shape", [Shape(11, (2, 6), 2), Shape(41, (15, 15), 5), Shape(23, (16, 16), 2)]
)
def test_no_draw_makes_a_house_with_fewer_rooms_than_asked_for(shape):
    assert shape.num_rooms[1] <= most_rooms(shape.size, shape.min_side)
    draws = np.random.default_rng(1).random((40, num_draws(shape)), np.float32)
    draws[0], draws[1] = 0, np.float32(1) - np.float32(2**-24)
    draws[2:12] = draws[2:12].round().clip(0, np.float32(1) - np.float32(2**-24))
    walls, start = jax.jit(jax.vmap(partial(layout, shape)))(jnp.asarray(draws))
    for house in zip(np.array(walls), np.array(start), strict=True):
        check_house(*house, shape)


def test_a_house_is_split_as_its_numbers_say():
    made = jax.jit(partial(layout, Shape(7, (2, 2), 2)))
    # Two rooms: the wall is vertical if the second number is below 1/2, and lies at 2 + floor(3 u).
    shape = Shape(7, (2, 2), 2)
    draws = jnp.zeros(num_draws(shape))
    cut = draws.at[jnp.array([2, 3, 4])].set(jnp.array([0.9, 0.4, 0.7]))
    walls, start = made(cut.at[5].set(0.9).at[6 + 3].set(0.5).at[1].set(0.999))
    expected = np.zeros((7, 7), bool)
    expected[:, 4] = True
    expected[3, 4] = False  # one door, where the score is highest
    np.testing.assert_array_equal(walls, expected)
    assert start.tolist() == [6, 6]
    two_doors = made(cut.at[3].set(0.6).at[6 + 3].set(0.5).at[6 + 4].set(0.4))[0]
    expected = np.zeros((7, 7), bool)
    expected[4] = True
    expected[4, [0, 3]] = False  # its neighbour has the second highest score and is skipped
    np.testing.assert_array_equal(two_doors, expected)


@pytest.fixture(scope="module")
def played(drawn):
    """Play 60 steps in 16 houses; each action is repeated so that the agent moves around."""
    levels = jax.tree.map(lambda x: x[:16], drawn)
    actions = jnp.repeat(jax.random.randint(jax.random.key(1), (NUM_STEPS // 5, 16), 0, 4), 5, 0)

    def play(level, actions):
        first = ENV.reset_env(jax.random.key(0), level)

        def step(state, action):
            new = ENV.step_env(jax.random.key(0), state, action, level)
            return new[1], (*new[:4], ENV.is_truncated(new[1], level))

        return first, jax.lax.scan(step, first[1], actions)[1]

    play = jax.jit(jax.vmap(play, in_axes=(0, 1)))
    return levels, np.array(actions), *jax.tree.map(np.array, play(levels, actions))


@pytest.mark.thorough
def test_the_agent_walks_and_walls_stop_it(played):
    levels, actions, (_, first), (_, state, _, terminated, truncated) = played
    walls = np.pad(
        np.array(jax.vmap(walls_of)(levels)), ((0, 0), (1, 1), (1, 1)), constant_values=1
    )
    x, y, bumps = first.x, first.y, 0
    for t in range(NUM_STEPS):
        dx, dy = np.array(MOVES)[actions[t]].T
        free = ~walls[np.arange(16), y + dy + 1, x + dx + 1]
        x, y, bumps = x + dx * free, y + dy * free, bumps + (~free).sum()
        np.testing.assert_array_equal(state.x[:, t], x)
        np.testing.assert_array_equal(state.y[:, t], y)
    assert 50 < bumps < 600
    assert not terminated.any()
    np.testing.assert_array_equal(truncated.all(0), np.arange(1, NUM_STEPS + 1) == NUM_STEPS)


def sight(walls, x, y):
    """Cells visible from x, y, by a search over paths that never lead back towards it."""
    seen, free, todo = set(), set(), [(0, 0, 1), (0, 0, -1)]
    blocked = lambda u, v: walls[y + v + 8, x + u + 8]  # noqa: E731
    while todo:
        u, v, side = place = todo.pop()
        if max(abs(u), abs(v)) > 3 or place in seen or blocked(u, v):
            continue
        seen.add(place)
        free.add((u, v))
        todo += [(u + side, v, side)]
        todo += [(u, v + up, side) for up in (1, -1) if up * v >= 0]
    around = {(u + i, v + j) for u, v in free for i in (-1, 0, 1) for j in (-1, 0, 1)}
    return free | {(u, v) for u, v in around if max(abs(u), abs(v)) <= 3 and blocked(u, v)}


@pytest.mark.thorough
def test_walls_hide_what_is_behind_them_and_what_was_seen_is_kept(played):
    levels, _, (_, first), (obs, state, reward, *_) = played
    image = np.array(ENV.unpack(obs)["image"])  # [16, T, 7, 7, 2]
    walls = np.array(jax.vmap(walls_of)(levels))
    hidden = 0
    for i in range(16):
        padded = np.pad(walls[i], 8, constant_values=True)
        known = np.zeros((41, 41), bool)
        places = zip(state.x[i], state.y[i], strict=True)
        places = [(first.x[i], first.y[i]), *places]
        for t, (x, y) in enumerate(places):
            cells = sight(padded, x, y)
            free = [(x + u, y + v) for u, v in cells if not padded[y + v + 8, x + u + 8]]
            known[tuple(np.array(free).T[::-1])] = True
            if t == 0:
                continue
            expected = np.zeros((7, 7, 2))
            for u, v in cells:
                expected[v + 3, u + 3] = padded[y + v + 8, x + u + 8], 1
            np.testing.assert_array_equal(image[i, t - 1], expected)
            hidden += 49 - len(cells)
            if t in (1, 30, NUM_STEPS):
                moment = jax.tree.map(jnp.asarray, _row(_row(state, i), t - 1))
                np.testing.assert_array_equal(cells_seen(_row(levels, i), moment), known)
                share = known.sum() / (~walls[i]).sum()
                assert reward[i, :t].sum() == pytest.approx(share, abs=1e-5)
                assert ENV.coverage(moment, _row(levels, i)) == pytest.approx(share)
    assert hidden > 1000


def _row(tree, i):
    return jax.tree.map(lambda x: x[i], tree)


def test_the_network_sees_where_it_is(played):
    levels, _, (first, _), (obs, state, *_) = played
    vector = ENV.unpack(obs)["vector"]
    np.testing.assert_allclose(vector[..., 0] * 40, state.x, atol=1e-4)
    np.testing.assert_allclose(vector[..., 1] * 40, state.y, atol=1e-4)
    assert ENV.unpack(first)["vector"].max() <= 1
    where = jax.vmap(jax.vmap(ENV.position, in_axes=(0, None)))(state, levels)
    np.testing.assert_array_equal(where, state.y * 41 + state.x)
    assert ENV.num_positions() == 1681


@pytest.mark.thorough
def test_a_reward_free_episode_pays_nothing_and_sees_as_much(played):
    levels, actions, (_, start), (_, state, reward, *_) = played
    free = replace(ENV, pay_coverage=False)
    level, now = _row(levels, 0), free.reset_env(jax.random.key(0), _row(levels, 0))[1]
    step = jax.jit(free.step_env)
    total = 0.0
    for action in actions[:20, 0]:
        _, now, paid, _, _ = step(jax.random.key(0), now, jnp.int32(action), level)
        total += float(paid)
    assert total == 0 and reward[0, :20].sum() > 0.01
    np.testing.assert_array_equal(now.seen, state.seen[0, 19])
    assert not np.array_equal(now.seen, start.seen[0])


@pytest.mark.thorough
def test_a_hall_is_seen_by_walking_to_and_fro():
    env = Houses(size=14, min_side=2, num_rooms=(2, 2), pay_coverage=True)
    level = make_level(np.zeros((14, 14), bool), (3, 3), 500)
    total, state = 0.0, env.reset_env(jax.random.key(0), level)[1]
    step = jax.jit(env.step_env)
    for action in [0] * 7 + [1] * 7 + [2] * 7:
        _, state, reward, _, _ = step(jax.random.key(0), state, jnp.int32(action), level)
        total += float(reward)
        if action == 0:  # each step to the right reveals a column of seven cells
            assert total == pytest.approx(7 * (state.x + 4) / 196)
    assert total == pytest.approx(1.0) == env.coverage(state, level)
    features = env.level_features(level)
    assert features["first_coverage"] == 0.25 and features["num_free"] == 196


def test_alike_houses_hash_alike_whatever_their_time_limits(drawn):
    level = _row(drawn, 0)
    same = level.replace(max_steps_in_episode=jnp.int32(7))
    np.testing.assert_array_equal(ENV.level_hash(level), ENV.level_hash(same))
    other = level.replace(start=_row(drawn, 1).start)
    assert (ENV.level_hash(level) != ENV.level_hash(other)).any()


@pytest.mark.thorough
def test_suites_share_no_house_and_pay_coverage():
    train, test, crowded = (
        load_suite(tiny(), f"houses/{name}") for name in ("train", "test", "crowded")
    )
    assert [len(x.levels) for x in (train, test, crowded)] == [1000, 100, 100]
    assert disjoint(train.levels.hash, test.levels.hash)
    assert disjoint(train.levels.hash, crowded.levels.hash)
    for suite, shape in ((test, Shape(41, (6, 12), 5)), (crowded, Shape(41, (13, 15), 5))):
        assert suite.env == Houses(num_rooms=shape.num_rooms, pay_coverage=True)
        assert (np.array(suite.levels.level.max_steps_in_episode) == 500).all()
        for i in range(0, 100, 5):
            level = _row(suite.levels.level, i)
            check_house(np.array(walls_of(level)), np.array(level.start), shape)
    assert np.isnan(test.levels.optimal_return).all()  # so that the return is reported
    # Must never change: published results depend on these levels.
    assert (int(train.levels.level.num_free.sum()), int(test.levels.hash[7, 0])) == RECORDED


RECORDED = (1520137, 2488244595)


def test_what_cannot_be_known_is_not_claimed():
    for ability in ("success", "solve", "event", "feature_values"):
        assert not registry.has(tiny(), getattr(LevelEnv, ability))
    assert [build(**fields).pay_coverage for fields in VARIANTS.values()] == [False, True]
    assert build() == Houses()


def test_pictures_show_walls_the_agent_and_what_was_seen(drawn, played):
    level = _row(drawn, 0)
    picture = ENV.level_image(level)
    assert picture.shape == (410, 410, 3)
    middle = picture[3::10, 3::10].astype(int).sum(-1)
    walls = np.array(walls_of(level))
    x, y = np.array(level.start)
    walls[y, x] = True  # the agent is also drawn dark
    np.testing.assert_array_equal(middle < 500, walls)
    state = jax.tree.map(lambda x: x[0, -1], played[3][1])
    moment = ENV.render(level, state)
    np.testing.assert_array_equal(moment, ENV.render(state, level))
    tinted = np.array(cells_seen(level, state))
    blue = moment[3::10, 3::10, 2].astype(int)
    plain = ~tinted & ~np.array(walls_of(level))
    assert blue[plain].min() > 240 > blue[tinted].max()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"size": 4}, r"size=4 is not in 5 \.\. 64"),
        ({"size": 65}, "size=65 is not in"),
        ({"min_side": 1}, r"min_side=1 is not in 2 \.\. 41"),
        ({"max_steps": 0}, "max_steps=0 is not in 1"),
        ({"num_rooms": (6, 16)}, r"num_rooms=\(6, 16\) .* in 2 \.\. 15 for size=41"),
        ({"num_rooms": (7, 6)}, r"num_rooms=\(7, 6\)"),
        ({"num_rooms": (1, 1)}, r"num_rooms=\(1, 1\)"),
    ],
)
def test_impossible_fields_are_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        Houses(**fields)
