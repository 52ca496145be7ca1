"""No level of a sealed suite enters training, however the level was made."""

import itertools
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import held_out, testing
from rlgen.algos.samplers import dred, fixed, generated, lifetimes, ncc, paired, plr, random, sfl
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.envs.grid.bitboard import make_level
from rlgen.envs.maze import Maze
from rlgen.levels import Suite, exclude, make_level_set, plain_level, save_levels, words
from rlgen.types import Keys, Task
from tests.standins.idle_student import AnyScore, Idle
from tests.standins.stubs import Unplayed

N, UPDATES = 9, 24
ENV = Maze(height=2, width=3, num_walls=2, max_steps=20)


@pytest.fixture(autouse=True)
def half_held_out(monkeypatch):
    """Hold out half of the sampled levels of small mazes, so that every sampler meets many."""
    monkeypatch.setattr(Maze, "suites", lambda self: {"half": lambda: half(self)})
    monkeypatch.setattr(Maze, "suite_fields", None)
    forget()
    yield
    forget()


def forget():
    held_out._held_out.cache_clear()
    held_out._rejection.cache_clear()
    fixed._sample.cache_clear()


@cache
def half(env):
    """Hold out every second of all levels of a grid, at random; it has about 2,000 levels."""
    cells = np.arange(env.height * env.width)
    every = [
        (walls, start, direction, goal)
        for walls in itertools.product([False, True], repeat=cells.size)
        for start, goal in itertools.permutations(cells[~np.array(walls)].tolist(), 2)
        for direction in range(4)
    ]
    walls, start, direction, goal = (np.array(x) for x in zip(*every, strict=True))
    walls = walls.reshape(-1, env.height, env.width)
    start, goal = (np.stack([x % env.width, x // env.width], 1) for x in (start, goal))
    make = jax.jit(jax.vmap(partial(make_level, max_steps=env.max_steps)))
    level = make(walls, *(x.astype(np.int32) for x in (start, direction, goal)))
    rows = np.flatnonzero(np.random.default_rng(0).random(len(every)) < 0.5)
    return Suite("maze/half", env, make_level_set(env, jax.tree.map(lambda x: x[rows], level)))


def of_suite():
    return set().union(*map(words, held_out.held_out(ENV).values()))


SAMPLERS = {
    "random": lambda: random.tiny(ENV),
    "plr": lambda: plr.tiny(ENV),
    "accel": lambda: replace(plr.tiny(ENV), mutator=Mutator(num_edits=2)),
    "parallel-accel": lambda: replace(
        plr.tiny(ENV), decision=plr.Blocks(), mutator=Mutator(num_edits=2)
    ),
    "paired": lambda: paired.tiny(ENV),
    "repaired": lambda: replace(plr.tiny(ENV), source=paired.tiny(ENV)),
    "sfl": lambda: replace(sfl.tiny(ENV), capacity=12),
    "ncc": lambda: ncc.tiny(ENV),
    "generated": lambda: generated.tiny(ENV),
    "dred": lambda: dred.DRED(
        ENV, fixed.Fixed(ENV, num_levels=4), generated.tiny(ENV), capacity=16
    ),
    "accel-d": lambda: dred.DRED(
        ENV, fixed.Fixed(ENV, num_levels=4), mutator=Mutator(num_edits=2), capacity=16
    ),
    "lifetimes": lambda: lifetimes.tiny(ENV),
}


def trained(sampler, tenancy=1, num_seeds=1):
    """Hashes and origins of all levels in the slots, [S, U, N], and the final states."""
    curriculum = Curriculum(Idle(ENV, 1, tenancy), sampler, AnyScore(), num_slots=N)

    def show(met):
        level = jax.tree.map(lambda x: x[:, 0], plain_level(met.slots.level))
        return jax.vmap(ENV.level_hash)(level), met.slots.origin

    @jax.jit
    def run(key, shared):
        ts = curriculum.init(key)
        ts, _, shown = curriculum.train_and_show(ts, Keys(key, shared), jnp.int32(0), UPDATES, show)
        return ts, shown

    keys = jax.random.split(jax.random.key(3), num_seeds)
    run = jax.vmap(run, (0, None)) if num_seeds > 1 else run
    ts, (hashes, origin) = run(keys if num_seeds > 1 else keys[0], jax.random.key(4))
    return ts, np.asarray(hashes), np.asarray(origin)


@pytest.mark.parametrize(
    "name",
    [
        "accel",
        *(pytest.param(x, marks=pytest.mark.thorough) for x in SAMPLERS if x != "accel"),
    ],
)
def test_no_sampler_trains_on_held_out_levels(name, monkeypatch):
    ts, hashes, origin = trained(SAMPLERS[name]())
    bad = of_suite()
    assert bad.isdisjoint(words(hashes.reshape(-1, 2)))
    buffer = SAMPLERS[name]().buffer(ts.sampler)
    if buffer is not None:
        assert int(buffer.size) > 0
        assert bad.isdisjoint(words(np.asarray(buffer.hash)[: int(buffer.size)]))
    # Without the rejection, the levels of each origin include held-out levels.
    monkeypatch.setattr("rlgen.curriculum.rejection", lambda env: None)
    _, before, kinds = trained(SAMPLERS[name]())
    for kind in set(kinds.ravel().tolist()) - {1} | set(origin.ravel().tolist()) - {1}:
        assert not bad.isdisjoint(words(before[kinds == kind])), f"no held-out level of {kind}"


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["accel", "paired"])
def test_parallel_seeds_and_long_tenancies_train_on_no_held_out_level(name):
    _, hashes, _ = trained(SAMPLERS[name](), tenancy=3, num_seeds=2)
    assert of_suite().isdisjoint(words(hashes.reshape(-1, 2)))


def test_a_hash_is_found_if_and_only_if_it_is_in_the_set():
    rng = np.random.default_rng(0)
    # Few different words, so that many hashes have equal first words.
    every = np.array([(a, b) for a in range(7) for b in range(7)], np.uint32) * 600_000_011
    some = np.unique(every[rng.permutation(49)[:20]], axis=0)
    ties = np.unique(some[:, 0], return_counts=True)[1].max()
    rejected = held_out.Rejection(some, int(ties), ())
    found = jax.vmap(lambda one: held_out.is_held_out(rejected, one))(jnp.asarray(every))
    taken = set(words(some))
    assert found.tolist() == [word in taken for word in words(every)]


class Number(Unplayed):
    """Environment whose levels are whole numbers."""

    def level_hash(self, level):
        return jnp.stack([jnp.uint32(0), level.astype(jnp.uint32)])


def looked_up(level, held, free, row):
    """Result of the lookup for slots whose levels are numbers, with `held` numbers held out."""
    slots = testing.new_slots(jnp.asarray(level, jnp.int32), (), jnp.int32(0))
    info = jnp.asarray(level, jnp.int32) * 10
    weight = jnp.arange(len(level), dtype=jnp.float32)
    slots = slots._replace(level_info=info, weight=weight, buffer_index=jnp.asarray(row))
    hashes = np.stack([np.zeros(len(held)), sorted(held)], 1).astype(np.uint32)
    rejected = held_out.Rejection(hashes, len(held), jnp.int32(99))
    return held_out.replace_held_out(Number(), rejected, slots, jnp.asarray(free))


def test_a_held_out_level_is_replaced_by_the_next_new_one():
    level = [[1, 2], [7, 3], [4, 5], [7, 7], [8, 9]]
    row = [[-1, -1], [-1, -1], [3, 4], [-1, -1], [-1, -1]]
    free = [True, True, True, True, False]
    found = looked_up(level, {7, 8, 4}, free, row)
    # Slots 1 and 3 take the levels of slot 0, the only free slot with new levels that are not held
    # out. Slot 2 replays, and slot 4 is busy: both are unchanged.
    assert found.level.tolist() == [[1, 2], [1, 2], [4, 5], [1, 2], [8, 9]]
    assert found.level_info.tolist() == (10 * found.level).tolist()
    assert found.weight.tolist() == [0, 0, 2, 0, 4]
    every = looked_up(level, {1, 3, 7}, free, row)
    assert every.level.tolist() == [[99, 99], [99, 99], [4, 5], [99, 99], [8, 9]]


def test_a_task_keeps_its_lifetime():
    slots = testing.new_slots(Task(jnp.array([[1], [7]]), jnp.array([[10], [20]])), ())
    rejected = held_out.Rejection(np.array([[0, 7]], np.uint32), 1, jnp.int32(99))
    found = held_out.replace_held_out(Number(), rejected, slots, jnp.ones(2, bool))
    assert found.level.level.tolist() == [[1], [1]]
    assert found.level.lifetime.tolist() == [[10], [20]]


def test_sampled_training_sets_leave_held_out_levels_out_and_files_with_them_are_refused(tmp_path):
    chosen = fixed.Fixed(ENV, num_levels=50)
    assert len(chosen.level_set) == 50 and of_suite().isdisjoint(words(chosen.level_set.hash))
    suite = half(ENV).levels
    mixed = make_level_set(
        ENV,
        jax.tree.map(
            lambda x, y: jnp.concatenate([x[:2], y[:3]]), suite.level, chosen.level_set.level
        ),
    )
    save_levels(tmp_path / "mine.npz", mixed)
    with pytest.raises(ValueError, match=r"mine.npz: 2 of 5 levels .test-0000, test-0001. are"):
        fixed.Fixed(ENV, path=str(tmp_path / "mine.npz"))
    cleaned, num = exclude(mixed, np.concatenate(list(held_out.held_out(ENV).values())))
    assert num == 2 and len(fixed.Fixed(ENV, levels=cleaned).level_set) == 3


def test_the_law_finds_a_suite_with_too_large_a_share_of_the_levels():
    with pytest.raises(AssertionError, match=r"of the sampled levels are held out.*half.*'seen'"):
        testing.check_held_out(ENV, num_levels=256)


def test_a_family_without_other_levels_is_refused(monkeypatch):
    only = jax.tree.map(lambda x: x[None], ENV.default_params)
    monkeypatch.setattr(
        Maze,
        "suites",
        lambda self: {"one": lambda: Suite("maze/one", self, make_level_set(self, only))},
    )
    monkeypatch.setattr(Maze, "sample_level", lambda self, key: ENV.default_params)
    monkeypatch.setattr(held_out, "_SAMPLES", 64)
    forget()
    with pytest.raises(ValueError, match=r"no level is left to train on.*sealed suites: one"):
        held_out.rejection(ENV)


def test_a_suite_that_environments_share_is_built_once(monkeypatch):
    """Regression: the suites of all modes of a family were built again for each mode."""
    built = []

    def of(env, name):
        built.append(name)
        return half(ENV)

    own = {ENV: "first", replace(ENV, num_walls=1): "second"}
    monkeypatch.setattr(
        Maze,
        "suites",
        lambda self: {"shared": partial(of, Maze, "shared"), "own": partial(of, self, own[self])},
    )
    known = {}
    first, second = (held_out.build_hashes(env, known) for env in own)
    assert built == ["shared", "first", "second"]
    assert first["shared"] is second["shared"]
    held_out.build_hashes(ENV)  # without a record of earlier calls
    assert built[3:] == ["shared", "first"]


def test_equal_numbers_of_different_types_are_different_arguments():
    calls = [partial(half, ENV), partial(half, 1), partial(half, True), partial(half, env=1), half]
    assert len({held_out._parts(call) for call in calls}) == len(calls)
    one, other = (partial(make_level_set, ENV, [1]) for _ in range(2))  # not hashable
    assert held_out._parts(one) != held_out._parts(other)
