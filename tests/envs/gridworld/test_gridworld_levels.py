"""Levels of grid worlds: hand-designed sets, layouts and statistics as published."""

import functools
import hashlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.gridworld import VARIANTS, GridWorld
from rlgen.envs.gridworld.generator import distinct_cells, draw, num_draws, table_of
from rlgen.envs.gridworld.modes import LAYOUTS, MODES
from rlgen.envs.maze.suites import NAMED
from rlgen.protocols import level_hash

NUM_LEVELS = 4000
DESIGNS = ("dense", "sparse", "long", "longer", "long-dense")


@functools.cache
def levels(mode):
    sample = jax.jit(jax.vmap(GridWorld(mode).sample_level))
    return jax.tree.map(np.asarray, sample(jax.random.split(jax.random.key(5), NUM_LEVELS)))


def grid(level, i):
    """Walls of a level as an array [rows, columns]."""
    size = level.size[i]
    assert not level.walls[i, size * size :].any(), "a wall lies outside the grid"
    return level.walls[i, : size * size].reshape(size, size)


def is_uniform(x):
    """Return whether a Kolmogorov-Smirnov test passes at a level of about 1 in 10,000."""
    x = np.sort(x)
    ideal = (np.arange(x.size) + 0.5) / x.size
    return np.abs(x - ideal).max() < 2.23 / np.sqrt(x.size) + 0.5 / x.size


def are_equal(times):
    """Return whether counts fit equally likely outcomes (chi-square, 4 standard deviations)."""
    times = np.asarray(times, float)
    chi_square = ((times - times.mean()) ** 2 / times.mean()).sum()
    return chi_square < times.size - 1 + 4 * np.sqrt(2 * (times.size - 1))


# Sizes, objects, (walls drawn, cells of the largest grid), time limits.
PUBLISHED = {
    "debug": ((3, 4), (1, 2), (4, 16), (5, 10)),
    "small": ((4, 6), (1, 3), (7, 36), (20, 100)),
    "medium": ((6, 8), (2, 4), (10, 64), (100, 250)),
    "large": ((8, 10), (2, 5), (15, 100), (250, 750)),
    "all": ((4, 10), (1, 5), (15, 100), (20, 750)),
    "rand-all": ((4, 10), (1, 5), (15, 100), (20, 750)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("mode", PUBLISHED)
def test_random_levels_have_the_published_statistics(mode):
    level, (size, num, (num_walls, num_cells), limit) = levels(mode), PUBLISHED[mode]
    for drawn, (low, high) in ((level.size, size), (level.num_objects, num)):
        assert (drawn.min(), drawn.max()) == (low, high)
        assert are_equal(np.bincount(drawn - low))
    assert num_cells == level.walls.shape[1]
    for each in range(size[0], size[1] + 1):
        density = level.walls[level.size == each].sum(1) / each**2
        error = density.std() / np.sqrt(density.size)
        assert abs(density.mean() - num_walls / num_cells) <= 4 * error + 1e-9
    assert (level.walls[level.size == size[1]].sum(1) == num_walls).all()
    steps = level.max_steps_in_episode
    assert (steps.min() >= limit[0]) and (steps.max() <= limit[1])
    inner = np.log(steps / limit[0]) / np.log(limit[1] / limit[0])
    assert abs(inner.mean() - 0.5) < 4 * 0.29 / np.sqrt(NUM_LEVELS) + 0.01


@pytest.mark.parametrize("mode", ["all", "rand-all"])
def test_random_objects_have_the_published_statistics(mode):
    level, rest = levels(mode), levels(mode).num_objects > 1
    assert is_uniform(level.reward[:, 0])
    assert is_uniform((level.reward[rest, 1] + 1) / 2)
    for prob, low, high in ((level.terminate_prob, 0.01, 1.0), (level.respawn_prob, 0.001, 0.1)):
        for x in (prob[:, 0], prob[rest, 1]):
            assert is_uniform(np.log(x / low) / np.log(high / low))
    drawn = np.stack([level.reward[rest, 1], level.terminate_prob[rest, 1]])
    assert abs(np.corrcoef(drawn)[0, 1]) < 4 / np.sqrt(rest.sum())


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["all", "debug", "rand-all", "handcrafted", "mazes", "rand-small"])
def test_starts_and_objects_lie_in_free_cells_and_nothing_is_left_in_unused_entries(mode):
    level, tabular = levels(mode), GridWorld(mode).is_tabular
    for i in range(500):
        free = set(np.flatnonzero(~grid(level, i).ravel()))
        num = level.num_objects[i]
        places = level.object_pos[i, :num].tolist()
        cells = {int(level.start[i]), *places} if tabular else {int(level.start[i])}
        assert cells <= free and len(cells) == (num + 1 if tabular else 1)
        used = set(level.object_type[i, :num])
        unused = [k for k in range(level.reward.shape[1]) if k not in used]
        assert not level.object_type[i, num:].any()
        assert (level.object_pos[i, num if tabular else 0 :] == -1).all()
        for of_type in (level.reward, level.terminate_prob, level.respawn_prob):
            assert not of_type[i, unused].any()


def test_starts_are_equally_likely_in_all_free_cells():
    level = levels("rand-small")
    times = np.bincount(level.start, minlength=49)
    assert np.flatnonzero(times == 0).tolist() == [9, 25]
    assert are_equal(times[times > 0])


# Size, time limit, objects as (reward, termination probability, respawn probability), walls.
SETS = {
    "dense": (11, 500, [(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1), (-1, 0, 0.5)], []),
    "sparse": (13, 50, [(1, 1, 0), (-1, 1, 0)], []),
    "long": (11, 1000, [(1, 0, 0.01)] * 2 + [(-1, 0.5, 1)] * 2, []),
    "longer": (
        9,
        2000,
        [(1, 0.1, 0.01)] * 2 + [(-1, 0.8, 1)] * 5,
        [(i, 4) for i in (0, 2, 3, 4, 5, 6, 8)],
    ),
    "long-dense": (
        11,
        2000,
        [(1, 0, 0.005)] * 4,
        [(i, 5) for i in (1, 2, 3, 4, 5, 6, 8, 9, 10)]
        + [(4, i) for i in (0, 1, 3, 4, 6, 7, 9, 10)],
    ),
    "rand-small": (7, 500, [(1, 0, 0.05)] * 2 + [(-1, 0.5, 0.1)] * 2, [(1, 2), (3, 4)]),
    "rand-sparse": (7, 50, [(1, 1, 1)] + [(-1, 1, 1)] * 2, []),
    "rand-very-dense": (11, 2000, [(1, 0, 1)], []),
    "rand-tiny": (3, 50, [(1, 0, 1)] * 2, []),
}
SETS |= {"rand-dense": SETS["dense"], "rand-long": SETS["long"]}


def contents(level, i):
    kinds = level.object_type[i, : level.num_objects[i]]
    arrays = (level.reward, level.terminate_prob, level.respawn_prob)
    objects = [tuple(round(float(x[i, kind]), 6) for x in arrays) for kind in kinds]
    walls = [(int(a), int(b)) for a, b in np.argwhere(grid(level, i))]
    return int(level.size[i]), int(level.max_steps_in_episode[i]), objects, walls


@pytest.mark.thorough
@pytest.mark.parametrize("mode", SETS)
def test_hand_designed_sets_are_the_published_ones(mode):
    size, limit, objects, walls = SETS[mode]
    assert contents(levels(mode), 0) == (size, limit, objects, sorted(walls))
    assert len({x.tobytes() for x in levels(mode).start}) > 1, "all levels have the same start"


def test_mazes_have_the_layouts_of_the_mazes_of_the_same_names():
    for name, (rows, _, _) in NAMED.items():
        ours = "".join(word.capitalize() for word in name_of(name).split("-"))
        assert ours == name and LAYOUTS[name_of(name)].split() == rows.lower().split()
    corridor = grid(levels("small-corridor"), 0)
    picture = ["".join(".#"[x] for x in line) for line in corridor.astype(int)]
    comb = [".#.#.#.#.#.#."] * 5
    assert picture == ["." * 13, *comb, ".###########.", *comb, "." * 13]


def name_of(camel):
    return "".join("-" + c.lower() if c.isupper() or c.isdigit() else c for c in camel)[1:]


@pytest.mark.parametrize("mode", LAYOUTS)
def test_every_free_cell_of_a_maze_can_be_reached(mode):
    walls = GridWorld(mode).default_params.walls
    free = ~np.asarray(walls).reshape(13, 13)
    rows = [int(x, 16) for x in LAYOUTS[mode].split()]
    assert [sum(1 << 12 - i for i in np.flatnonzero(~line)) for line in free] == rows
    reached = np.zeros((15, 15), bool)
    reached[tuple(np.argwhere(free)[0] + 1)] = True
    for _ in range(13 * 13):
        inner = reached[:-2, 1:-1] | reached[2:, 1:-1] | reached[1:-1, :-2] | reached[1:-1, 2:]
        reached[1:-1, 1:-1] |= inner & free
    assert (reached[1:-1, 1:-1] == free).all()


def test_mazes_have_three_harmless_objects():
    level = levels("mazes")
    assert (level.num_objects == 3).all() and (level.reward >= 0).all()
    assert (level.max_steps_in_episode.min(), level.max_steps_in_episode.max()) == (25, 50)
    assert is_uniform(level.reward.ravel())


@pytest.mark.parametrize(("mode", "members"), [("handcrafted", DESIGNS), ("mazes", LAYOUTS)])
def test_mixtures_have_all_their_members_equally_often(mode, members):
    level, kinds = levels(mode), {}
    for i in range(NUM_LEVELS):
        size, limit, objects, walls = contents(level, i)
        kind = (size, limit, *objects, *walls) if mode == "handcrafted" else tuple(walls)
        kinds[kind] = kinds.get(kind, 0) + 1
    assert len(kinds) == len(members) and are_equal(list(kinds.values()))
    if mode == "handcrafted":
        assert set(kinds) == {
            (s, t, *o, *sorted(w)) for s, t, o, w in (SETS[name] for name in DESIGNS)
        }


def test_cells_are_drawn_without_replacement_all_orders_alike():
    """Uniform numbers at the midpoints of equal parts yield each order exactly once."""
    vacant = np.array([False, True, True, False, True, True])
    middles = [(np.arange(n) + 0.5) / n for n in (4, 3, 2)]
    drawn = [
        tuple(distinct_cells(np.array(uniform), vacant, np).tolist())
        for uniform in itertools.product(*middles)
    ]
    assert sorted(drawn) == sorted(itertools.permutations([1, 2, 4, 5], 3))
    high = jnp.full(6, np.nextafter(np.float32(1), 0))
    assert distinct_cells(high, jnp.asarray(vacant), jnp).tolist() == [5, 4, 2, 1, -1, -1]


def test_a_level_too_full_loses_its_last_objects():
    """Walls on the first 15 of 100 cells leave one free cell in a 4 x 4 grid."""
    table = table_of(MODES["all"])
    uniform = np.full(num_draws(table), 0.5)
    uniform[[1, 2]] = 0.0, 0.99  # the smallest grid, five objects
    uniform[4:104] = np.arange(100) / 100
    level = draw(table, uniform, np)
    assert (level.size, level.num_objects, level.start) == (4, 0, 15)
    assert (level.object_pos == -1).all() and not level.reward.any()


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["all", "handcrafted", "mazes"])
def test_numpy_draws_the_levels_that_jax_draws(mode):
    table = table_of(MODES[mode])
    uniform = jax.random.uniform(jax.random.key(1), (32, num_draws(table)))
    ours = jax.jit(jax.vmap(lambda one: draw(table, one, jnp)))(uniform)
    theirs = [draw(table, np.asarray(one), np) for one in uniform]
    theirs = jax.tree.map(lambda *x: np.stack(x), *theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5)


SUITES = {
    # Number, mode, first and last name, and a digest of the level hashes, which never change.
    "unseen": (64, "all", "unseen-0000", "unseen-0063", "1f944b125b3006bf"),
    "handcrafted": (20, "handcrafted", "dense-0", "long-dense-3", "d6ff9fc57f3bf72d"),
    "mazes": (18, "mazes", "sixteen-rooms-0", "small-corridor-1", "eb01a6b04851c9af"),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SUITES)
def test_suites_are_the_same_on_every_machine_and_solvable(name):
    num, mode, first, last, digest = SUITES[name]
    suite = GridWorld("small").suites()[name]()
    hashes = np.asarray(suite.levels.hash)
    assert suite.name == f"gridworld/{name}" and suite.env == GridWorld(mode)
    assert (len(suite.levels), *suite.levels.names[:: num - 1]) == (num, first, last)
    assert len({x.tobytes() for x in hashes}) == num
    assert hashlib.sha256(hashes.tobytes()).hexdigest()[:16] == digest
    assert (np.asarray(suite.levels.optimal_return) > 0).all()


@pytest.mark.thorough
def test_the_large_suite_begins_with_the_small_one_and_shares_none_with_training(monkeypatch):
    suites = GridWorld().suites()
    small = np.asarray(suites["unseen"]().levels.hash)
    solver = "rlgen.envs.gridworld.solver.optimal_return"  # it would take minutes for 1,024 levels
    monkeypatch.setattr(solver, lambda level, max_objects: jnp.float32(1.0))
    large = np.asarray(suites["unseen-1024"]().levels.hash)
    np.testing.assert_array_equal(large[:64], small)
    trained = np.asarray(jax.jit(jax.vmap(level_hash))(levels("all")))
    together = {x.tobytes() for x in np.concatenate([large, trained])}
    assert len(together) == 1024 + NUM_LEVELS


def test_lifetimes_are_the_published_ones():
    lives = {mode: GridWorld(mode).lifetime() for mode in VARIANTS}
    expected = {"debug": 4, "small": 250, "medium": 1000, "large": 2500, "all": 1000}
    expected |= dict.fromkeys((*DESIGNS, *LAYOUTS, "handcrafted", "mazes"), 2500)
    expected |= {mode: 25_000 for mode in VARIANTS if mode.startswith("rand-")}
    assert lives == expected | {"rand-tiny": 250}


def test_the_lowest_return_is_that_of_the_worst_object_in_every_step():
    found = {
        mode: GridWorld(mode).lowest_return for mode in ("all", "sparse", "mazes", "long-dense")
    }
    assert found == {"all": -750.0, "sparse": -50.0, "mazes": 0.0, "long-dense": 0.0}


def test_features_tell_what_a_level_holds():
    env, level = GridWorld("all"), levels("all")
    found = jax.jit(jax.vmap(env.level_features))(level)
    for i in range(200):
        num = level.num_objects[i]
        rewards = level.reward[i, level.object_type[i, :num]]
        assert found["num_walls"][i] == grid(level, i).sum()
        assert (found["num_objects"][i], found["num_good"][i]) == (num, (rewards > 0).sum())
        assert found["max_reward"][i] == rewards.max()
