"""Prioritised level replay as a sampler: identities, guarantees, and vmap over seeds."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.samplers.plr import PLR, Alternate, EachSlot
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import remembered
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.none import NoScore
from rlgen.buffer import Priority
from rlgen.curriculum import Curriculum
from rlgen.envs.rooms.rho_rooms import RhoRooms
from rlgen.testing import new_slots
from rlgen.types import NEW, REPLAY, Keys, Outcome, Slots
from tests.standins import trial
from tests.standins.numbers import Numbers
from tests.standins.programs import primitives

N, R, K = 4, 2, 24


ENV = Numbers()
MEMORY = MaxMC().initial_state()
PER_SEED: Any = (0, None)
AXES = Keys(*PER_SEED)


def make(**fields):
    defaults = {"capacity": K, "decision": Alternate(0.5), "min_fill": 0.5}
    return PLR(ENV, Random(ENV), **(defaults | fields))


def first_slots(sampler):
    blank, note = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (N, R, *jnp.shape(x))),
        (sampler.example_level(), sampler.level_info()),
    )
    return Slots(
        blank,
        score_state=jnp.zeros((N, R)),
        buffer_index=jnp.full((N, R), -1, jnp.int32),
        origin=jnp.full(N, NEW, jnp.int32),
        weight=jnp.ones(N),
        level_info=note,
    )


def score_of(number):
    """Return a fixed score per level, to check the buffer; a fifth give no evidence."""
    return jnp.where(number % 5 == 0, -jnp.inf, (number % 1000).astype(jnp.float32) / 1000)


def cycle(sampler, state, slots, keys, free, done):
    """Run one update of the loop; the memory of a level counts how often it was played."""
    state, slots = sampler.propose(keys, state, slots, free)
    unseen = free[:, None] & (slots.buffer_index < 0)
    slots = slots._replace(score_state=jnp.where(unseen, 0.0, slots.score_state) + 1)
    state = sampler.observe(keys, state, slots, score_of(slots.level["number"]), Outcome(done))
    return state, slots


def history(sampler, num_updates=40, own=0, shared=0):
    """Return slots and states of a run, stacked over its updates."""

    def body(carry, t):
        state, slots = carry
        keys = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, shared)))
        everyone = jnp.ones(N, bool)
        carry = cycle(sampler, state, slots, keys, everyone, everyone)
        return carry, carry

    start = sampler.init(jax.random.key(own), MEMORY), first_slots(sampler)
    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 1))


@pytest.mark.thorough
def test_replaying_never_is_the_source_alone_bit_for_bit():
    states, slots = run(make(decision=Alternate(0.0)))
    _, expected = run(Random(ENV))
    jax.tree.map(np.testing.assert_array_equal, slots._replace(level_info=()), expected)
    assert int(states.buffer.size[-1]) == K


@pytest.mark.thorough
def test_robust_plr_differs_from_plr_by_the_weight_of_new_levels_alone():
    states, slots = run(make(decision=Alternate(1.0)))
    robust, robust_slots = run(make(decision=Alternate(1.0), train_on_new=False))
    jax.tree.map(np.testing.assert_array_equal, states, robust)
    np.testing.assert_array_equal(slots.weight, 1.0)
    np.testing.assert_array_equal(robust_slots.weight, np.where(slots.origin == NEW, 0.0, 1.0))
    same = robust_slots._replace(weight=slots.weight)
    jax.tree.map(np.testing.assert_array_equal, slots, same)
    # From the first replay on no new level is played, and the two methods are bit-identical.
    begun = int(np.argmax(np.asarray(slots.origin)[:, 0] == REPLAY))
    assert (robust_slots.weight[begun:] == 1.0).all()


@pytest.mark.thorough
def test_replay_begins_when_enough_levels_were_inserted_and_then_keeps_its_share():
    states, slots = run(make(decision=Alternate(1.0)))
    origin = np.asarray(slots.origin)
    needed = int(np.ceil(0.5 * K / (N * R)))
    assert (origin[:needed] == NEW).all()
    assert (origin[needed:] == REPLAY).all()
    np.testing.assert_array_equal(states.num_new, np.minimum(np.arange(1, 41), needed) * N * R)
    decisions = []
    for shared in range(20):
        origin = np.asarray(run(make(), 40, 0, shared)[1].origin)[needed:]
        assert (origin == origin[:, :1]).all()  # one decision for all slots
        decisions.extend(origin[:, 0] == REPLAY)
    assert abs(np.mean(decisions) - 0.5) < 0.075  # four standard deviations


@pytest.mark.thorough
@pytest.mark.parametrize("sequential", [True, False])
def test_what_is_replayed_was_observed_and_brings_its_memory(sequential):
    states, slots = run(make(sequential=sequential))
    plays = {}
    for t in range(40):
        level, row = np.asarray(slots.level["number"][t]), np.asarray(slots.buffer_index[t])
        if slots.origin[t, 0] == REPLAY:
            held = np.asarray(states.buffer.level["number"][t - 1])
            np.testing.assert_array_equal(held[row], level)
            assert all(number in plays for number in level.ravel())
            expected = np.vectorize(plays.get)(level) + 1
            np.testing.assert_array_equal(slots.score_state[t], expected)
        else:
            assert (row == -1).all()
            np.testing.assert_array_equal(slots.score_state[t], 1)
        for number, memory in zip(level.ravel(), slots.score_state[t].ravel(), strict=True):
            plays[number] = int(memory)
    size = int(states.buffer.size[-1])
    final = states.buffer
    np.testing.assert_allclose(
        final.score[-1][:size], score_of(final.level["number"][-1][:size]), rtol=1e-6
    )
    assert size == K
    assert (final.level["number"][-1] % 5 != 0).all()
    assert len(np.unique(final.level["number"][-1])) == K


@pytest.mark.thorough
def test_a_family_of_few_levels_fills_few_rows_and_is_replayed_all_the_same():
    few = Numbers(num_kinds=5)
    sampler = PLR(few, Random(few), capacity=K, decision=Alternate(1.0))
    states, slots = run(sampler)
    assert int(states.buffer.size[-1]) == 4  # level 0 gives no evidence
    assert (slots.origin[-1] == REPLAY).all()


@pytest.mark.thorough
def test_busy_slots_keep_their_levels_and_their_rows():
    sampler = make(decision=Alternate(1.0), min_fill=0.1, priority=Priority(staleness_coef=0.0))
    step = jax.jit(lambda *args: cycle(sampler, *args))
    state, slots = sampler.init(jax.random.key(0), MEMORY), first_slots(sampler)
    free = jnp.ones(N, bool)
    rng = np.random.default_rng(0)
    num_held = 0
    for t in range(36):
        keys = Keys(jax.random.key(t), jax.random.key(1000 + t))
        done = jnp.asarray(rng.random(N) < 0.5)
        if t % 3 == 0:  # new levels with high scores are inserted into the buffer
            state = state._replace(num_new=jnp.int32(0))
        before, busy = slots, np.flatnonzero(~np.asarray(free))
        state, slots = step(state, slots, keys, free, done)
        for name in ("buffer_index", "origin", "weight"):
            x, y = getattr(before, name), getattr(slots, name)
            np.testing.assert_array_equal(x[busy], y[busy])
        np.testing.assert_array_equal(before.level["number"][busy], slots.level["number"][busy])
        np.testing.assert_array_equal(before.score_state[busy] + 1, slots.score_state[busy])
        held = set(np.asarray(before.buffer_index)[busy].ravel()) - {-1}
        num_held += len(held)
        fresh = set(np.asarray(slots.buffer_index)[np.asarray(free)].ravel()) - {-1}
        assert not held & fresh  # a level in play is not drawn a second time
        still = np.asarray(~done)
        rows, numbers = (
            np.asarray(slots.buffer_index)[still],
            np.asarray(slots.level["number"])[still],
        )
        kept = np.asarray(state.buffer.level["number"])[rows[rows >= 0]]
        np.testing.assert_array_equal(kept, numbers[rows >= 0])
        free = done
    assert num_held > 12


@pytest.mark.thorough
def test_seeds_under_vmap_equal_single_runs_and_decide_together():
    seeds, sampler = jnp.arange(3), make()
    many = jax.jit(jax.vmap(lambda own: history(sampler, 40, own)))(seeds)
    for i in range(3):
        one = run(sampler, 40, int(seeds[i]))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), many, one)
    origin = np.asarray(many[1].origin)
    assert (origin == origin[:1]).all()
    assert set(np.unique(origin)) == {NEW, REPLAY}


@pytest.mark.thorough
def test_a_seed_without_any_row_goes_on_with_new_levels_while_others_replay():
    sampler = make(decision=Alternate(1.0))
    state = run(sampler)[0]
    filled = jax.tree.map(lambda x: x[-1], state)
    empty = sampler.init(jax.random.key(1), MEMORY)._replace(num_new=filled.num_new)
    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), filled, empty)
    slots, free = first_slots(sampler), jnp.ones(N, bool)
    own = jax.vmap(jax.random.key)(jnp.arange(2))
    keys = Keys(own, jax.random.key(5))
    propose = jax.jit(jax.vmap(sampler.propose, in_axes=(AXES, 0, None, None)))
    after, proposed = propose(keys, both, slots, free)
    np.testing.assert_array_equal(proposed.origin, [[REPLAY] * N, [NEW] * N])
    assert (proposed.buffer_index[1] == -1).all()
    np.testing.assert_array_equal(after.buffer.clock - both.buffer.clock, [N * R, 0])
    alone = jax.jit(sampler.propose)(Keys(own[1], keys.shared), empty, slots, free)[1]
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y), proposed, alone)


def test_under_vmap_over_seeds_generation_and_recall_stay_branches():
    sampler, num_seeds = make(), 3
    own = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    state = jax.vmap(sampler.init, in_axes=PER_SEED)(own, MEMORY)
    slots = jax.tree.map(lambda x: jnp.stack([x] * num_seeds), first_slots(sampler))
    free = jnp.ones((num_seeds, N), bool)
    propose = jax.vmap(sampler.propose, in_axes=(AXES, 0, 0, 0))
    found = list(primitives(jax.make_jaxpr(propose)(Keys(own, own[0]), state, slots, free).jaxpr))
    assert [name for name, _ in found].count("cond") == 2
    assert ("sort", True) in found  # ranks are computed in the branch that draws
    assert ("sort", False) not in found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"capacity": 0}, "capacity must be at least 1, got 0"),
        ({"min_fill": -0.1}, "min_fill must lie"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        make(**fields)


def test_an_impossible_share_of_replay_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"replay_prob must lie in \[0, 1\], got 1.5"):
        Alternate(1.5)
    with pytest.raises(ValueError, match="replay_prob must lie"):
        EachSlot(-0.1)


def test_priorities_in_proportion_to_scores_that_may_be_negative_are_refused():
    sampler, student = make(priority=Priority("proportional")), trial.Student(ENV)
    with pytest.raises(ValueError, match=r"MaxMC may be negative; use priority\.kind='rank'"):
        Curriculum(student, sampler, MaxMC(), num_slots=N)
    with pytest.raises(ValueError, match="MaxMC may be negative"):  # also inside another sampler
        Curriculum(student, replace(make(), source=sampler), MaxMC(), num_slots=N)
    Curriculum(student, sampler, NoScore(), num_slots=N)


def test_a_buffer_smaller_than_an_update_is_refused():
    with pytest.raises(ValueError, match="capacity=24 is below the 25 levels"):
        make().check(25, MaxMC())
    make().check(24, MaxMC())
    with pytest.raises(ValueError, match="capacity=24 is below"):
        replace(make(), capacity=100, source=make()).check(30, MaxMC())


def test_levels_with_arrays_without_elements_can_be_stored():
    env = RhoRooms(size=4)  # a level has no doors, so the array of doors has no elements
    sampler = PLR(env, Random(env), capacity=4)
    level = jax.tree.map(lambda x: jnp.stack([x] * 2)[:, None], env.default_params)
    slots = new_slots(level, (), sampler.level_info())
    held, _ = remembered(slots)
    assert held.doors.shape == (2, 0, 2)
