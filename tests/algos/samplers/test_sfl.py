"""SFL as a sampler: phases, the pool it keeps, its draws, and the steps of its evaluation."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import testing
from rlgen.algos.learners.ppo import PPO
from rlgen.algos.samplers import sfl
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.sfl import SFL
from rlgen.algos.scores.learnability import Learnability
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.curriculum import Curriculum
from rlgen.nn.actor_critic import ActorCritic
from rlgen.registry import load
from rlgen.returns import episodes
from rlgen.students import OnPolicy
from rlgen.types import NEW, REPLAY, Keys, Outcome
from tests.standins import trial
from tests.standins.numbers import Numbers
from tests.standins.programs import over_seeds

N, R, M, K, PLAYS, TRAIN = 4, 2, 24, 8, 2, 5
COLLECT = M // (N * R) * PLAYS
CYCLE = COLLECT + TRAIN


ENV = Numbers()
MEMORY = MaxMC().initial_state()
PER_SEED: Any = (0, None)
AXES = Keys(*PER_SEED)


def make(**fields):
    defaults = {
        "num_candidates": M,
        "scout_updates": PLAYS,
        "capacity": K,
        "train_updates": TRAIN,
    }
    return SFL(ENV, Random(ENV), **(defaults | fields))


def test_an_empty_pool_has_no_mean_score():
    sampler = make()
    found = sampler.metrics(sampler.init(jax.random.key(0), MEMORY))
    assert found["pool_size"] == 0 and np.isnan(found["pool_score"])


def first_slots(sampler, num_slots=N):
    blank = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_slots, R)), sampler.example_level())
    return testing.new_slots(blank, jnp.float32(0), sampler.level_info())


def final_score(number):
    """Return the score of a level after all its plays; a fifth give no evidence."""
    known = (number % 1000) / 1000
    return jnp.where(number % 5 == 0, -jnp.inf, known.astype(jnp.float32))


def score_of(number, plays):
    """Return a score that misleads before the last play, since only the last one may count."""
    return jnp.where(plays >= PLAYS, final_score(number), 1 - final_score(number))


def cycle(sampler, state, slots, keys, free, done):
    """Run one update of the loop; the memory of a level counts how often it was played."""
    state, slots = sampler.propose(keys, state, slots, free)
    unseen = free[:, None] & (slots.buffer_index < 0)
    slots = slots._replace(score_state=jnp.where(unseen, 0.0, slots.score_state) + 1)
    score = score_of(slots.level["number"], slots.score_state)
    return sampler.observe(keys, state, slots, score, Outcome(done)), slots


def history(sampler, num_updates=3 * CYCLE, own=0, shared=0, num_slots=N):
    """Return slots and states of a run, stacked over its updates."""

    def body(carry, t):
        keys = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, shared)))
        everyone = jnp.ones(num_slots, bool)
        state, slots = carry
        carry = cycle(sampler, state, slots, keys, everyone, everyone)
        return carry, carry

    start = sampler.init(jax.random.key(own), MEMORY), first_slots(sampler, num_slots)
    return jax.lax.scan(body, start, jnp.arange(num_updates))[1]


run = jax.jit(history, static_argnums=(0, 1, 4))


@pytest.mark.thorough
def test_the_turns_come_in_order_and_only_training_has_weight():
    states, slots = run(make())
    position = np.arange(3 * CYCLE) % CYCLE
    collecting = position < COLLECT
    np.testing.assert_array_equal(slots.weight, np.repeat(~collecting, N).reshape(-1, N))
    assert (slots.origin[collecting] == NEW).all()
    # ρ = 1/2: two of four slots train on rows of the pool, and two on new levels.
    np.testing.assert_array_equal(slots.origin[~collecting], [[REPLAY] * 2 + [NEW] * 2] * 3 * TRAIN)
    assert (slots.buffer_index[~collecting][:, :2] >= 0).all() and (
        slots.buffer_index[~collecting][:, 2:] < 0
    ).all()
    # A batch of candidates stays for two updates; only the second starts with a memory.
    rows, numbers = np.asarray(slots.buffer_index), np.asarray(slots.level["number"])
    first, second = position < 0, position < 0
    first[collecting] = position[collecting] % PLAYS == 0
    second[collecting] = position[collecting] % PLAYS == 1
    assert (rows[first] == -1).all()
    np.testing.assert_array_equal(rows[second], [np.arange(N * R).reshape(N, R)] * (second.sum()))
    np.testing.assert_array_equal(numbers[first], numbers[second])
    np.testing.assert_array_equal(slots.score_state[second], PLAYS)
    fresh = numbers[~collecting][:, 2:]
    assert len(np.unique(numbers[first])) == 3 * M and len(np.unique(fresh)) == fresh.size
    np.testing.assert_array_equal(states.num_updates, np.arange(1, 3 * CYCLE + 1))


def test_each_collection_keeps_the_best_of_all_its_candidates_and_nothing_older():
    states, slots = run(make())
    for c in range(3):
        begun = c * CYCLE
        candidates = np.asarray(slots.level["number"][begun : begun + COLLECT : PLAYS]).ravel()
        scores = np.asarray(final_score(candidates))
        best = candidates[np.argsort(-scores, kind="stable")][:K]
        for t in range(begun + COLLECT - 1, begun + CYCLE):  # the pool is constant during training
            pool = jax.tree.map(lambda x, t=t: np.asarray(x[t]), states.buffer)
            assert pool.size == K
            assert set(pool.level["number"]) == set(best)
            np.testing.assert_allclose(pool.score, final_score(pool.level["number"]))
            np.testing.assert_array_equal(pool.level_info.score_state, PLAYS)
        assert states.buffer.size[begun + 1] <= N * R  # the collection starts again


def test_training_draws_uniformly_from_the_pool():
    sampler = make(train_updates=400, sampled_share=0.75)
    states, slots = run(sampler, COLLECT + 400)
    rows, numbers = (
        np.asarray(x)[COLLECT:, :3] for x in (slots.buffer_index, slots.level["number"])
    )
    np.testing.assert_array_equal(np.asarray(states.buffer.level["number"][-1])[rows], numbers)
    counts = np.bincount(rows.ravel(), minlength=K)
    expected = rows.size / K
    assert ((counts - expected) ** 2 / expected).sum() < 24.3  # χ², 7 df, p = 0.001
    assert (np.asarray(slots.origin)[COLLECT:, 3] == NEW).all()
    repeated = (rows[1:] == rows[:-1]).mean()
    assert abs(repeated - 1 / K) < 0.03  # resampled in every update


@pytest.mark.thorough
@pytest.mark.parametrize(("share", "num_sampled"), [(0.0, 0), (0.5, 3), (0.6, 4), (1.0, 6)])
def test_the_share_of_the_pool_is_exact(share, num_sampled):
    sampler = make(sampled_share=share, scout_updates=1, num_candidates=12, capacity=12)
    origin = np.asarray(run(sampler, 3, 0, 0, 6)[1].origin)[1:]
    assert ((origin == REPLAY).sum(1) == num_sampled).all()


def test_without_any_evidence_all_slots_train_on_fresh_levels():
    @dataclass(frozen=True)
    class Fives(Numbers):
        def sample_level(self, key):
            return {"number": 5 * super().sample_level(key)["number"]}

    sampler = replace(make(scout_updates=1), source=Random(Fives()))
    states, slots = run(sampler, 8)
    assert (states.buffer.size == 0).all()
    assert (slots.origin == NEW).all() and (slots.weight[3:] == 1).all()


def test_a_busy_candidate_is_considered_when_it_is_done_and_busy_slots_stay():
    sampler = make(num_candidates=2 * M)
    state, slots = sampler.init(jax.random.key(0), MEMORY), first_slots(sampler)
    step = jax.jit(lambda *args: cycle(sampler, *args))
    rng, free, met = np.random.default_rng(0), jnp.ones(N, bool), set()
    collect = sampler.num_collecting(N * R)
    for t in range(collect):
        done = jnp.asarray(rng.random(N) < 0.4)
        before = slots
        state, slots = step(state, slots, Keys(jax.random.key(t), jax.random.key(t)), free, done)
        busy = np.flatnonzero(~np.asarray(free))
        for x, y in (
            (before.level["number"], slots.level["number"]),
            (before.buffer_index, slots.buffer_index),
        ):
            np.testing.assert_array_equal(x[busy], y[busy])
        ended = np.asarray(done)
        met |= set(np.asarray(slots.level["number"])[ended].ravel().tolist())
        assert (slots.weight == 0).all()
        free = done
    held = set(np.asarray(state.buffer.level["number"])[: int(state.buffer.size)].tolist())
    assert held <= met
    assert len(held) == K


@pytest.mark.thorough
def test_ages_are_counted_in_updates_from_the_first_meeting():
    sampler = make()
    states, slots = run(sampler)
    for t, expected in ((0, 0), (1, 1), (2, 0), (COLLECT - 1, 1)):
        at = jax.tree.map(lambda x, t=t: x[t], (states, slots))
        np.testing.assert_array_equal(sampler.lineage(*at)["age"], expected)
    at = jax.tree.map(lambda x: x[CYCLE - 1], (states, slots))
    age, level = np.asarray(sampler.lineage(*at)["age"]), at[1].level["number"]
    for n, r in np.ndindex(N, R):
        born = np.argwhere(np.asarray(slots.level["number"]) == level[n, r])[:, 0].min()
        assert age[n, r] == CYCLE - 1 - born


@pytest.mark.thorough
def test_seeds_under_vmap_equal_single_runs():
    sampler, seeds = make(), jnp.arange(3)
    many = jax.jit(jax.vmap(lambda own: history(sampler, CYCLE + COLLECT, own)))(seeds)
    for i in range(3):
        one = run(sampler, CYCLE + COLLECT, int(seeds[i]))
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), many, one)


def test_under_vmap_over_seeds_generating_drawing_and_keeping_stay_branches():
    sampler = make()
    found = over_seeds(cycle, sampler, MEMORY, first_slots(sampler))
    assert [name for name, _ in found].count("cond") == 3
    for work in ("sort", "top_k", "random_split", "random_bits"):
        assert (work, True) in found and (work, False) not in found, work


@dataclass(frozen=True)
class Lucky(testing.Probe):
    """Probe whose episodes are solved if their return exceeds 1/2."""

    def success(self, episode_return, terminated):
        return episode_return > 0.5


@pytest.mark.thorough
def test_accumulated_learnability_is_that_of_the_pooled_episodes():
    env, num_slots = Lucky(), 3
    score = Learnability(env, accumulate=True)
    slots = testing.new_slots(jnp.zeros((num_slots, R)), score.initial_state())
    num = num_success = np.zeros((num_slots, R))
    rollouts = [testing.random_rollout(seed, 30, num_slots, R) for seed in range(4)]
    outcome, value = Outcome(jnp.ones(num_slots, bool)), num
    for played in rollouts:
        outcome = outcome._replace(rollout=jax.tree.map(lambda x: x[None], played))
        value, memory = score(jax.random.key(0), slots, outcome)
        slots = slots._replace(score_state=memory)
        returns = np.zeros(num_slots)
        solved = np.zeros((30, num_slots), bool)
        for t in range(30):
            returns = np.where(played.first[t], 0, returns) + played.reward[t]
            solved[t] = (returns > 0.5) & played.done[t]
        one = episodes(played, R, jnp.asarray(solved))
        num, num_success = num + one.num, num_success + one.num_success
        p = num_success / np.maximum(num, 1)
        np.testing.assert_allclose(value, np.where(num > 0, p * (1 - p), -np.inf), rtol=1e-5)
    np.testing.assert_array_equal(slots.score_state.num, num)
    assert num.sum() > 10 and 0 < num_success.sum() < num.sum()
    single, nothing = Learnability(env)(jax.random.key(0), slots._replace(score_state=()), outcome)
    assert nothing == () and not np.allclose(single, value)
    testing.check_score(Learnability(env, accumulate=True, unbiased=True))


@pytest.mark.thorough
def test_looking_shows_up_in_the_step_accounts_and_training_does_not_look():
    env = load("envs", "maze").tiny()
    network = ActorCritic(core="none", hidden_size=4, head_size=4)
    student = OnPolicy(env, PPO(env, network, num_epochs=1), num_steps=8)
    sampler = replace(sfl.tiny(env), num_candidates=8, capacity=4, train_updates=3)
    curriculum = Curriculum(student, sampler, Learnability(env, accumulate=True), num_slots=4)
    keys = Keys(jax.random.key(0), jax.random.key(1))
    train = jax.jit(curriculum.train, static_argnums=3)
    ts, metrics = train(curriculum.init(keys.own), keys, jnp.int32(0), 9)
    steps = np.where([True] * 4 + [False] * 3 + [True] * 2, 4 * 8, 0)
    np.testing.assert_array_equal(metrics["steps_scout"], steps)
    np.testing.assert_array_equal(metrics["steps_train"], 4 * 8 - steps)
    np.testing.assert_array_equal(metrics["steps_score"], 0)
    assert ts.student.learner.num_updates == 3
    np.testing.assert_array_equal(np.isnan(metrics["loss"]), steps > 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_candidates": 0}, "num_candidates must be at least 1, got 0"),
        ({"scout_updates": 0}, "scout_updates must be at least 1"),
        ({"train_updates": 0}, "train_updates must be at least 1"),
        ({"capacity": 25}, "capacity=25 is more than num_candidates=24"),
        ({"sampled_share": 1.5}, r"sampled_share must lie in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_settings_are_refused_with_the_reason(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(make(), **fields)


def test_a_score_that_forgets_is_refused_where_candidates_are_played_more_than_once():
    student, score = trial.Student(ENV, gives=frozenset({"rollout"})), Learnability(ENV)
    with pytest.raises(ValueError, match="set accumulate=True in the score, or scout_updates=1"):
        Curriculum(student, make(), score, num_slots=N)
    Curriculum(student, make(scout_updates=1), score, num_slots=N)
    Curriculum(student, make(), replace(score, accumulate=True), num_slots=N)


def test_a_pool_smaller_than_an_update_is_refused():
    make().check(8, MaxMC())
    with pytest.raises(ValueError, match="capacity=8 is below the 9 levels of one update"):
        make().check(9, MaxMC())
