"""Tenancies longer than an update: episodes continue, levels stay, whole episodes count."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners.a2c import A2C
from rlgen.algos.learners.ppo import PPO
from rlgen.algos.samplers.plr import PLR, Alternate
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.curriculum import Curriculum
from rlgen.nn.actor_critic import ActorCritic
from rlgen.nn.approximators import MLP, Separate
from rlgen.protocols import Learner
from rlgen.returns import episode_progress
from rlgen.rollout import continue_rollout, reset_slots
from rlgen.students import OnPolicy
from rlgen.testing import Probe, assert_same, new_slots, random_rollout
from rlgen.types import Keys

N, T, TENANCY = 4, 3, 4  # episodes have 4 steps and end at every position of a rollout
ENV = Probe("memory")


@dataclass(frozen=True)
class Clock(Learner):
    """Learner that acts at random, never learns, and counts the steps of its episode."""

    def init(self, key):
        return jnp.int32(0)

    def initial_carry(self, num_slots):
        return jnp.zeros(num_slots)

    def act(self, key, state, carry, obs, first):
        carry = jnp.where(first, 0.0, carry) + 1
        action = jax.random.randint(key, first.shape, 0, 2)
        return carry, action, jnp.full(first.shape, -0.7), carry

    def value(self, state, carry, obs, first):
        return jnp.where(first, 0.0, carry) + 1

    def update(self, key, state, rollout, weight):
        return state + 1, {"loss": jnp.float32(0)}


def some_slots(levels_per_slot=1):
    keys = jax.random.split(jax.random.key(0), (N, levels_per_slot))
    return new_slots(jax.vmap(jax.vmap(ENV.sample_level))(keys), ())


def in_a_row(student, num_updates, slots, fresh=None):
    """Run a few updates and return the states, outcomes and metrics, stacked."""
    state = student.init(jax.random.key(1), N)
    fresh = jnp.arange(num_updates) % student.updates_per_level == 0 if fresh is None else fresh

    def update(state, xs):
        key, fresh = xs
        state, outcome, metrics = student.run(key, state, slots, jnp.broadcast_to(fresh, (N,)))
        return state, (state, outcome, metrics)

    keys = jax.random.split(jax.random.key(2), num_updates)
    return jax.jit(lambda: jax.lax.scan(update, state, (keys, fresh)))()[1]


@pytest.fixture(scope="module")
def two_tenancies():
    return in_a_row(
        OnPolicy(ENV, Clock(), T, updates_per_level=TENANCY), 2 * TENANCY, some_slots(2)
    )


@pytest.mark.thorough
def test_a_tenancy_ends_after_its_updates(two_tenancies):
    done = np.asarray(two_tenancies[1].done)
    ends = np.arange(1, 2 * TENANCY + 1) % TENANCY == 0
    np.testing.assert_array_equal(done, np.tile(ends[:, None], (1, N)))


def test_whole_episodes_are_reported_also_those_that_began_before(two_tenancies):
    """Episodes are tracked by hand through the updates of each tenancy."""
    _, outcome, metrics = two_tenancies
    rollouts = jax.tree.map(lambda x: x[:, 0], outcome.rollout)
    reward, turn, done = (
        np.asarray(x) for x in (rollouts.reward, rollouts.level_index, rollouts.done)
    )
    num, total = np.zeros((2 * TENANCY, N, 2)), np.zeros((2 * TENANCY, N, 2))
    best, length = np.full((2 * TENANCY, N, 2), -np.inf), np.zeros((2 * TENANCY, N, 2))
    for n in range(N):
        paid, steps = 0.0, 0
        for u in range(2 * TENANCY):
            paid, steps = (0.0, 0) if u % TENANCY == 0 else (paid, steps)
            for t in range(T):
                paid, steps = paid + reward[u, t, n], steps + 1
                if not done[u, t, n]:
                    continue
                at = (u, n, turn[u, t, n])
                num[at], total[at] = num[at] + 1, total[at] + paid
                length[at], best[at] = length[at] + steps, max(best[at], paid)
                paid, steps = 0.0, 0
    found = outcome.episodes
    np.testing.assert_array_equal(found.num, num)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN where no episode ended
        mean_return, mean_length = total / num, length / num
    np.testing.assert_allclose(found.mean_return, mean_return, atol=1e-6)
    np.testing.assert_allclose(found.max_return, best, atol=1e-6)
    np.testing.assert_allclose(found.mean_length, mean_length, atol=1e-6)
    ended = num.sum((1, 2)) > 0
    assert not ended[0] and ended.any(), "some updates must end no episode, and some must end one"
    np.testing.assert_array_equal(np.isfinite(metrics["episode_length"]), ended)
    np.testing.assert_allclose(np.asarray(metrics["episode_length"])[ended], 4.0)  # never 1 or 2


def test_episodes_continue_within_a_tenancy_and_restart_with_the_next(two_tenancies):
    """The learner's memory counts an episode's steps: 1 2 3 | 4 1 2 | 3 4 1 | 2 3 4."""
    value = np.asarray(two_tenancies[1].rollout.value)[:, 0]  # [update, T, N]
    count = np.tile(np.arange(TENANCY * T) % 4 + 1, 2).reshape(2 * TENANCY, T)
    np.testing.assert_array_equal(value, np.repeat(count[..., None], N, axis=2))


@pytest.mark.thorough
def test_a_tenancy_is_one_long_rollout():
    """With a constant learner it equals the steps of `reset_slots` and `continue_rollout`."""
    student, slots = OnPolicy(ENV, Clock(), T, updates_per_level=TENANCY), some_slots()
    keys = jax.random.split(jax.random.key(2), TENANCY)
    player = Clock(), jnp.int32(0)

    @jax.jit
    def by_hand():
        key_begin = jax.random.split(jax.random.split(jax.random.split(keys[0], 1)[0], 3)[0])[0]
        running, played = reset_slots(key_begin, ENV, Clock(), slots.level), []
        for i in range(TENANCY):
            key_member = jax.random.split(keys[i], 1)[0]
            key_roll = jax.random.split(jax.random.split(key_member, 3)[0])[1]
            part, running = continue_rollout(key_roll, ENV, player, slots.level, running, T)
            played.append(part)
        return jax.tree.map(lambda *x: jnp.stack(x), *played)

    found = in_a_row(student, TENANCY, slots)[1].rollout
    expected = by_hand()
    scored = expected._replace(first=expected.first.at[:, 0].set(True))
    assert_same(jax.tree.map(lambda x: x[:, 0], found), scored, "a tenancy differs from its steps")


def test_slots_may_be_fresh_at_different_times():
    fresh = jnp.asarray([[True] * N, [False, True, False, True], [False] * N])
    states, outcome, _ = in_a_row(
        OnPolicy(ENV, Clock(), T, updates_per_level=3), 3, some_slots(), fresh
    )
    np.testing.assert_array_equal(states.age[:, 0], [[1, 1, 1, 1], [2, 1, 2, 1], [3, 2, 3, 2]])
    np.testing.assert_array_equal(outcome.done[2], [True, False, True, False])
    value = np.asarray(outcome.rollout.value)[1, 0]  # 4 1 2 in slots that continue, else 1 2 3
    np.testing.assert_array_equal(value.T, [[4, 1, 2], [1, 2, 3]] * 2)


def test_members_of_a_population_have_their_own_episodes():
    student = OnPolicy(ENV, Clock(), T, population=2, updates_per_level=TENANCY)
    states, outcome, metrics = in_a_row(student, TENANCY, some_slots())
    assert states.running.level_index.shape == (TENANCY, 2, N)
    action = np.asarray(outcome.rollout.action)
    assert (action[:, 0] != action[:, 1]).any()
    assert np.isfinite(metrics["antagonist_episode_length"][1:]).all()
    np.testing.assert_array_equal(outcome.rollout.value[:, 0], outcome.rollout.value[:, 1])


@pytest.mark.thorough
def test_a_recurrent_learner_learns_across_updates():
    network = ActorCritic(core="gru", hidden_size=4, head_size=4)
    learner = PPO(ENV, network, learning_rate=0.01, num_epochs=1)
    states, _, metrics = in_a_row(OnPolicy(ENV, learner, T, updates_per_level=2), 4, some_slots())
    assert np.isfinite(metrics["loss"]).all() and states.learner.num_updates[-1] == 4
    carry = np.asarray(states.running.carry)
    assert carry.shape == (4, 1, N, 4) and carry.any()


def test_an_update_a_tenancy_leaves_the_state_as_it_was():
    state = OnPolicy(ENV, Clock(), T).init(jax.random.key(0), N)
    assert state.running == state.progress == state.age == ()
    assert len(jax.tree.leaves(state)) == 1


def test_a_tenancy_of_nothing_is_refused():
    with pytest.raises(ValueError, match="updates_per_level must be at least 1, got 0"):
        OnPolicy(ENV, Clock(), T, updates_per_level=0)


# With a sampler.


def samplers():
    plr = PLR(ENV, Random(ENV), capacity=8, decision=Alternate(0.5), train_on_new=False)
    return {"random": Random(ENV), "plr": plr}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["random", "plr"])
def test_levels_and_weights_stay_while_a_slot_is_busy(name):
    learner = A2C(ENV, Separate(MLP((4,))))
    student = OnPolicy(ENV, learner, T, updates_per_level=3)
    curriculum = Curriculum(student, samplers()[name], L1ValueLoss(), num_slots=8)
    num_updates, keys = 24, Keys(jax.random.key(5), jax.random.key(6))

    @jax.jit
    def train():
        ts = curriculum.init(jax.random.key(4))
        return curriculum.train_and_show(
            ts, keys, jnp.int32(0), num_updates, lambda met: (met.slots, met.score)
        )

    ts, metrics, (slots, score) = train()
    held = slots._replace(score_state=())
    for leaf in jax.tree.leaves(held):
        each = np.asarray(leaf).reshape(num_updates // 3, 3, -1)
        np.testing.assert_array_equal(each, np.repeat(each[:, :1], 3, axis=1))
    cue = np.asarray(slots.level.cue).reshape(num_updates, -1)[::3]
    assert (cue[1:] != cue[:-1]).any(), "new tenancies must bring new levels"
    judged = np.isfinite(score).reshape(num_updates // 3, 3, -1)
    assert judged[:, 2].all(), "a level whose tenancy ended was not scored"
    assert not judged[:, :2].any(), "a level was scored before its tenancy ended"
    if name == "plr":
        trained = np.asarray(slots.weight)[::3].any(1)
        assert trained.any() and not trained.all(), "both kinds of tenancy must occur"
        np.testing.assert_array_equal(np.isfinite(metrics["loss"])[::3], trained)
    assert ts.free.all()


@pytest.mark.thorough
def test_progress_from_before_is_added_to_the_first_episode_alone():
    whole = random_rollout(3, 12, N, 1)
    total, length = episode_progress(whole)
    head, tail = (jax.tree.map(lambda x, s=s: x[s], whole) for s in (slice(5), slice(5, 12)))
    before = jax.tree.map(lambda x: x[-1], episode_progress(head))
    found = episode_progress(tail, before)
    np.testing.assert_allclose(found[0], total[5:], atol=1e-6)
    np.testing.assert_array_equal(found[1], length[5:])
