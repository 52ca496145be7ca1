"""ACCEL and parallel curricula as settings of PLR: levels played, and levels trained on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.algos.samplers.plr import PLR, Alternate, Blocks
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import Mutator, easiest_rows
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.curriculum import Curriculum
from rlgen.students import OnPolicy
from rlgen.types import MUTANT, NEW, REPLAY, EpisodeStats, Keys, Outcome, Slots
from tests.standins.numbers import Numbers
from tests.standins.stubs import Unplayed

N, R, K = 6, 1, 24
CHILD = 1_000_000  # a child's number is its parent's plus this, for each edit


ENV = Numbers(num_kinds=1000, child=CHILD)
MEMORY = MaxMC().initial_state()


def make(**fields):
    defaults = {"capacity": K, "decision": Alternate(0.5), "min_fill": 0.5, "train_on_new": False}
    return PLR(ENV, Random(ENV), **(defaults | fields))


def first_slots(sampler):
    shape = (N, R)
    blank, note = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)),
        (sampler.example_level(), sampler.level_info()),
    )
    return Slots(
        blank,
        score_state=jnp.zeros(shape),
        buffer_index=jnp.full(shape, -1, jnp.int32),
        origin=jnp.full(N, NEW, jnp.int32),
        weight=jnp.ones(N),
        level_info=note,
    )


def score_of(number):
    return (number % 1000).astype(jnp.float32)


def history(sampler, own=0, num_updates=60):
    """Return slots, states and lineage, stacked over the updates; mean returns are all 0."""

    def body(carry, t):
        state, slots = carry
        keys = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, 7)))
        free, zero = jnp.ones(N, bool), jnp.zeros((N, R))
        state, slots = sampler.propose(keys, state, slots, free)
        stats = EpisodeStats(jnp.ones((N, R), jnp.int32), zero.astype(jnp.int32), zero, zero, zero)
        outcome = Outcome(free, episodes=stats)
        state = sampler.observe(keys, state, slots, score_of(slots.level["number"]), outcome)
        return (state, slots), (state, slots, sampler.lineage(state, slots))

    start = sampler.init(jax.random.key(own), MEMORY), first_slots(sampler)
    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 2))


def same(x, y):
    jax.tree.map(np.testing.assert_array_equal, x, y)


def test_accel_with_zero_edits_is_robust_plr():
    env = registry.load("envs", "maze").tiny()
    accel, robust = (registry.load("recipes", name).build(env) for name in ("accel", "robust-plr"))
    assert replace(accel.sampler, mutator=robust.sampler.mutator) == robust.sampler
    states, slots, _ = run(make(mutator=Mutator(0)))
    assert set(np.unique(slots.origin)) == {NEW, REPLAY} and not states.edits_next.any()


@pytest.mark.thorough
def test_every_replay_is_followed_by_mutants_of_the_levels_just_replayed():
    states, slots, lineage = run(make(mutator=Mutator(3)))
    origin, number = np.asarray(slots.origin)[:, 0], np.asarray(slots.level["number"])
    kinds = [int(x) for x in origin]
    assert set(kinds) == {NEW, REPLAY, MUTANT}
    assert (np.asarray(slots.origin) == origin[:, None]).all()
    for t in range(1, len(kinds)):
        assert (kinds[t] == MUTANT) == (kinds[t - 1] == REPLAY)
        if kinds[t] == MUTANT:
            np.testing.assert_array_equal(number[t], number[t - 1] + 3 * CHILD)
            np.testing.assert_array_equal(lineage["depth"][t], lineage["depth"][t - 1] + 1)
    np.testing.assert_array_equal(slots.weight, np.asarray(slots.origin) == REPLAY)
    assert (np.asarray(slots.buffer_index)[origin == MUTANT] == -1).all()
    # Depth counts generations; age counts updates since a level was first played.
    np.testing.assert_array_equal(lineage["depth"], number // (3 * CHILD))
    met = {}
    for t in range(len(kinds)):
        for n in range(N):
            expected = t - met.setdefault(int(number[t, n, 0]), t) if kinds[t] == REPLAY else 0
            assert lineage["age"][t, n, 0] == expected
        if kinds[t] != REPLAY:  # a level generated again counts as new in its row
            met |= {int(x): t for x in number[t].ravel()}
    held = states.buffer.level_info.lineage
    size = int(states.buffer.size[-1])
    expected = np.where(np.asarray(held.depth[-1])[:size] > 0, MUTANT, NEW)
    np.testing.assert_array_equal(held.origin[-1][:size], expected)


def test_easiest_parents_are_those_of_highest_return_minus_score():
    rng = np.random.default_rng(0)
    for _ in range(50):
        row = rng.integers(-1, 5, (N, 2))
        score = np.where(rng.random((N, 2)) < 0.2, -np.inf, rng.normal(size=(N, 2)))
        mean = rng.normal(size=(N, 2))
        num, done = rng.integers(0, 2, (N, 2)), rng.random(N) < 0.8
        zero = jnp.zeros((N, 2))
        stats = EpisodeStats(jnp.asarray(num), zero.astype(int), jnp.asarray(mean), zero, zero)
        slots = first_slots(make())._replace(buffer_index=jnp.asarray(row, jnp.int32))
        found = easiest_rows(
            slots, jnp.asarray(score), Outcome(jnp.asarray(done), (), (), stats), 3
        )
        ease = {}
        for n in range(N):
            for r in range(2):
                if row[n, r] >= 0 and num[n, r] and done[n] and np.isfinite(score[n, r]):
                    ease.setdefault(row[n, r], mean[n, r] - score[n, r])
        expected = sorted(ease, key=lambda at: -ease[at])[:3]
        np.testing.assert_array_equal(found, expected + [-1] * (3 - len(expected)))


def test_the_easiest_parents_share_the_mutants():
    states, slots, _ = run(make(mutator=Mutator(1, "easiest", 2)))
    origin, number = np.asarray(slots.origin)[:, 0], np.asarray(slots.level["number"])[:, :, 0]
    mutants = np.flatnonzero(origin == MUTANT)
    assert mutants.size > 3
    for t in mutants:
        parents = np.unique(number[t - 1])  # mean returns are 0, so the lowest scores are easiest
        parents = parents[np.argsort(parents % 1000, kind="stable")][:2]
        assert set(number[t] - CHILD) == set(parents)
    assert (np.asarray(states.easiest)[origin == NEW] == -1).all()


@pytest.mark.thorough
@pytest.mark.parametrize(("num_edits", "blocks"), [(0, 2), (2, 3)])
def test_parallel_curricula_play_equal_blocks_and_learn_from_the_replayed_one(num_edits, blocks):
    sampler = make(decision=Blocks(), mutator=Mutator(num_edits))
    assert sampler.num_blocks == blocks and sampler.train_share == 1 / blocks
    _, slots, _ = run(sampler)
    origin, number = np.asarray(slots.origin), np.asarray(slots.level["number"])[:, :, 0]
    warm = int(np.ceil(0.5 * K / N))
    assert (origin[:warm] == NEW).all() and (np.asarray(slots.weight)[:warm] == 0).all()
    size = N // blocks
    expected = np.repeat([NEW, REPLAY, MUTANT][:blocks], size)
    np.testing.assert_array_equal(origin[warm:], np.tile(expected, (60 - warm, 1)))
    np.testing.assert_array_equal(slots.weight, origin == REPLAY)
    if num_edits:
        parents = number[warm:, size : 2 * size]
        np.testing.assert_array_equal(number[warm:, 2 * size :], parents + num_edits * CHILD)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "fields",
    [{"mutator": Mutator(2)}, {"mutator": Mutator(1, "easiest")}, {"decision": Blocks()}],
)
def test_seeds_under_vmap_equal_single_runs(fields):
    sampler = make(**fields)
    many = jax.jit(jax.vmap(lambda own: history(sampler, own)))(jnp.arange(3))
    for i in range(3):
        same(jax.tree.map(lambda x, i=i: x[i], many), run(sampler, i))


def test_no_branch_runs_all_paths_under_seeds():
    sampler, own = make(mutator=Mutator(2)), jax.vmap(jax.random.key)(jnp.arange(3))
    state = jax.vmap(lambda key: sampler.init(key, MEMORY))(own)
    slots = jax.tree.map(lambda x: jnp.stack([x] * 3), first_slots(sampler))
    axes = (Keys(0, None), 0, 0, 0)  # pyright: ignore[reportArgumentType]
    propose = jax.vmap(sampler.propose, in_axes=axes)
    free = jnp.ones((3, N), bool)
    jaxpr = jax.make_jaxpr(propose)(Keys(own, own[0]), state, slots, free).jaxpr
    predicates = [eqn.invars[0].aval.shape for eqn in jaxpr.eqns if eqn.primitive.name == "cond"]
    assert predicates == [(), (), ()]  # one scalar predicate each for generate, recall and edit


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_edits": -1}, "num_edits must be 0 or more"),
        ({"num_parents": 0}, "num_parents must be at least 1"),
    ],
)
def test_impossible_settings_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Mutator(**fields)


def test_parallel_blocks_cannot_mutate_the_easiest_levels():
    with pytest.raises(ValueError, match="use parents='batch'"):
        make(mutator=Mutator(parents="easiest"), decision=Blocks())


class Plain(Unplayed):
    """Environment without any optional capability."""

    def sample_level(self, key):
        return jnp.int32(0)


def test_an_environment_without_the_capability_is_refused_with_the_names_of_those_that_have_it():
    plain = Plain()
    with pytest.raises(ValueError, match=r"edits levels.*Plain has no mutate_levels.*: .*maze"):
        PLR(plain, Random(plain), mutator=Mutator(1))
    with pytest.raises(ValueError, match=r"Plain has no sample_simple_level.*have it: .*maze"):
        Random(plain, simple=True)


def test_slots_must_divide_into_blocks_and_all_with_weight_be_learned_from():
    env = registry.load("envs", "maze").tiny()
    learner = registry.load("learners", "ppo").tiny(env)
    sampler = PLR(env, Random(env), decision=Blocks(), mutator=Mutator(1), train_on_new=False)
    with pytest.raises(ValueError, match=r"num_slots=8 does not divide .* 3 equal blocks.* 9"):
        Curriculum(OnPolicy(env, learner), sampler, MaxMC(), num_slots=8)
    half = OnPolicy(env, learner, train_share=0.25)
    sentence = r"learns from 2 of 9 .* weight to 3; set student.train_share to 0.333"
    with pytest.raises(ValueError, match=sentence):
        Curriculum(half, sampler, MaxMC(), num_slots=9)
