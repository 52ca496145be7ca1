"""Scores of levels, against slow loops over synthetic rollouts and numbers worked by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.algos.scores.learnability import Learnability
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.none import NoScore
from rlgen.algos.scores.positive_value_loss import PositiveValueLoss
from rlgen.registry import load
from rlgen.types import Outcome, Rollout, Slots
from tests.standins.stubs import Unplayed, Untaught

T, N = 24, 5
KEY = jax.random.key(0)


class Family(Unplayed, abstract=True):
    """Environment used only for its name; an episode with a positive return is solved."""


class Strict(Family):
    """Family in which an episode is solved if it terminated with a return above 3/4."""

    def success(self, episode_return, terminated):
        return (episode_return > 0.75) & terminated


def evidence(seed, levels_per_slot, end_prob=0.25):
    """Return slots and the outcome of two learners; scores must ignore member 1."""
    rng = np.random.default_rng(seed)
    done = rng.random((T, N)) < end_prob
    done[:, 0] = False  # one slot never finishes
    terminated = done & (rng.random((T, N)) < 0.6)
    first = np.concatenate([np.ones((1, N), bool), done[:-1]])
    turn = np.concatenate([np.zeros((1, N)), np.cumsum(done[:-1], 0)]) % levels_per_slot
    value, after, reward, bonus = rng.normal(size=(4, T, N)).astype(np.float32)
    columns: dict[str, Any] = {
        "action": np.zeros((T, N), np.int32),
        "log_prob": np.zeros((T, N), np.float32),
        "value": value,
        "next_value": np.where(terminated, 0.0, after).astype(np.float32),
        "first": first,
        "terminated": terminated,
        "truncated": done & ~terminated,
        "level_index": turn.astype(np.int32),
        "reward": reward,
        "bonus": bonus,
    }
    member = Rollout(obs=(), carry=(), **columns)
    other = member._replace(reward=-reward, value=-value, terminated=~terminated)
    population = jax.tree.map(lambda *x: jnp.stack(x), member, other)
    slots = Slots(
        level=(),
        score_state=jnp.asarray(rng.normal(size=(N, levels_per_slot)), jnp.float32),
        buffer_index=jnp.full((N, levels_per_slot), -1, jnp.int32),
        origin=jnp.zeros(N, jnp.int32),
        weight=jnp.ones(N),
    )
    return slots, Outcome(jnp.ones(N, bool), population)


class Slow:
    """The scores' definitions, computed episode by episode."""

    def __init__(self, outcome, levels_per_slot):
        self.rollout = jax.tree.map(lambda x: np.asarray(x[0], np.float64), outcome.rollout)
        self.levels_per_slot = levels_per_slot

    def episodes(self, slot, turn, completed_only):
        r, steps = self.rollout, []
        for t in range(T):
            steps = [t] if r.first[t, slot] else [*steps, t]
            complete = bool(r.terminated[t, slot] or r.truncated[t, slot])
            cut_off = t == T - 1 and not complete
            if (complete or (cut_off and not completed_only)) and r.level_index[t, slot] == turn:
                yield steps

    def per_level(self, judge):
        pairs = [[judge(n, r) for r in range(self.levels_per_slot)] for n in range(N)]
        return np.asarray(pairs)

    def mean(self, x, completed_only):
        def judge(n, r):
            means = [np.mean(x[steps, n]) for steps in self.episodes(n, r, completed_only)]
            return np.mean(means) if means else -np.inf

        return self.per_level(judge)

    def returns(self, n, r):
        return [self.rollout.reward[steps, n].sum() for steps in self.episodes(n, r, True)]

    def advantage(self, discount, gae_lambda, bootstrap):
        r, out = self.rollout, np.zeros((T, N))
        for n in range(N):
            carried = 0.0
            for t in reversed(range(T)):
                done = bool(r.terminated[t, n] or r.truncated[t, n])
                ended = bool(r.terminated[t, n]) or (done and not bootstrap)
                after = 0.0 if ended else r.next_value[t, n]
                delta = r.reward[t, n] + discount * after - r.value[t, n]
                carried = delta + discount * gae_lambda * (0.0 if done else carried)
                out[t, n] = carried
        return out


CASES = [(seed, levels_per_slot) for seed in range(2) for levels_per_slot in (1, 3)]


@pytest.mark.thorough
@pytest.mark.parametrize("completed_only", [True, False])
def test_max_mc_is_the_best_return_minus_the_mean_value(completed_only):
    for seed, levels_per_slot in CASES:
        slots, outcome = evidence(seed, levels_per_slot)
        score, memory = MaxMC(completed_only)(KEY, slots, outcome)
        slow = Slow(outcome, levels_per_slot)
        best = slow.per_level(lambda n, r, slow=slow: max(slow.returns(n, r), default=-np.inf))
        best = np.maximum(best, slots.score_state)
        value = slow.mean(slow.rollout.value, completed_only)
        np.testing.assert_allclose(memory, best, rtol=1e-5)
        expected = np.where(np.isfinite(value), best - value, -np.inf)
        np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)
        assert not completed_only or (score[0] == -np.inf).all()


@pytest.mark.thorough
@pytest.mark.parametrize("completed_only", [True, False])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_value_losses_are_mean_advantages(completed_only, bootstrap):
    for seed, levels_per_slot in CASES:
        slots, outcome = evidence(seed, levels_per_slot)
        slow = Slow(outcome, levels_per_slot)
        advantage = slow.advantage(0.9, 0.8, bootstrap)
        for build, part in (
            (PositiveValueLoss, np.maximum(advantage, 0)),
            (L1ValueLoss, np.abs(advantage)),
        ):
            score, _ = build(0.9, 0.8, bootstrap, completed_only)(KEY, slots, outcome)
            expected = slow.mean(part, completed_only)
            np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("unbiased", [True, False])
def test_learnability_is_the_variance_of_success(unbiased):
    for seed, levels_per_slot in CASES:
        slots, outcome = evidence(seed, levels_per_slot)
        slow = Slow(outcome, levels_per_slot)

        def judge(n, r, slow=slow):
            wins = [total > 0 for total in slow.returns(n, r)]
            if len(wins) < 1 + unbiased:
                return -np.inf
            return np.var(
                wins, ddof=int(unbiased)
            )  # variance of zeros and ones: p (1 − p), or n/(n−1) times that

        score, _ = Learnability(Family(), unbiased)(KEY, slots, outcome)
        np.testing.assert_allclose(score, slow.per_level(judge), rtol=1e-5, atol=1e-6)


def test_learnability_asks_the_environment_what_success_is():
    slots, outcome = evidence(0, 1, end_prob=0.5)
    own, _ = Learnability(Strict())(KEY, slots, outcome)
    slow = Slow(outcome, 1)
    for n in range(1, N):
        ends = [steps[-1] for steps in slow.episodes(n, 0, True)]
        terminated = slow.rollout.terminated[ends, n] > 0
        p = np.mean((np.asarray(slow.returns(n, 0)) > 0.75) & terminated)
        np.testing.assert_allclose(own[n, 0], p * (1 - p), rtol=1e-5, atol=1e-6)
    assert not np.allclose(own[1:], Learnability(Family())(KEY, slots, outcome)[0][1:])


def worked_by_hand():
    """Return two episodes of level 0 (steps 0-1, 4) and one of level 1 (2-3), all complete."""
    columns = {
        "reward": [0.0, 1.0, 0.0, 0.0, 0.5],
        "value": [0.5, 0.75, 0.25, 0.5, 1.0],
        "next_value": [0.75, 0.0, 0.5, 2.0, 0.0],
        "terminated": [False, True, False, False, True],
        "truncated": [False, False, False, True, False],
        "first": [True, False, True, False, True],
        "level_index": [0, 0, 1, 1, 0],
        "action": [0] * 5,
        "log_prob": [0.0] * 5,
        "bonus": [9.0] * 5,
    }
    rollout = Rollout(
        obs=(), carry=(), **{k: jnp.asarray(v)[None, :, None] for k, v in columns.items()}
    )
    slots = Slots(
        level=(),
        score_state=jnp.asarray([[0.25, 0.125]]),
        buffer_index=jnp.full((1, 2), -1, jnp.int32),
        origin=jnp.zeros(1, jnp.int32),
        weight=jnp.ones(1),
    )
    return slots, Outcome(jnp.ones(1, bool), rollout)


@pytest.mark.thorough
def test_numbers_worked_by_hand():
    slots, outcome = worked_by_hand()
    # Returns 1, .5 | 0. Mean values ((.5 + .75)/2 + 1)/2 = .8125 | .375.
    score, memory = MaxMC()(KEY, slots, outcome)
    np.testing.assert_allclose(memory, [[1.0, 0.125]])
    np.testing.assert_allclose(score, [[1 - 0.8125, 0.125 - 0.375]])
    # γ = λ = 1/2: δ = (-.125, .25, 0, .5, -.5), A = (-.0625, .25, .125, .5, -.5)
    score, _ = PositiveValueLoss(0.5, 0.5)(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[(0.25 / 2 + 0) / 2, 0.3125]])
    score, _ = L1ValueLoss(0.5, 0.5)(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[(0.3125 / 2 + 0.5) / 2, 0.3125]])
    # One of two episodes exceeds 3/4; the level played once has no unbiased estimate.
    score, _ = Learnability(Strict())(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[0.25, 0.0]])
    score, _ = Learnability(Strict(), unbiased=True)(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[0.5, -np.inf]])


SCORES = {
    "max-mc": MaxMC(),
    "positive-value-loss": PositiveValueLoss(),
    "l1-value-loss": L1ValueLoss(),
    "learnability": Learnability(Family()),
    "none": NoScore(),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SCORES)
def test_scores_follow_the_slots_and_see_neither_bonus_nor_other_learners(name):
    score = SCORES[name]
    slots, outcome = evidence(7, 3)
    before = score(KEY, slots, outcome)
    order = np.asarray([3, 0, 4, 1, 2])
    moved = jax.tree.map(lambda x: x[:, :, order], outcome.rollout)
    after = score(KEY, jax.tree.map(lambda x: x[order], slots), Outcome(outcome.done, moved))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[order], y, rtol=1e-6), before, after)
    rollout = outcome.rollout
    assert isinstance(rollout, Rollout)
    noise = rollout.bonus + 100.0
    changed = rollout._replace(
        bonus=noise,
        value=rollout.value.at[1].set(5.0),
        reward=rollout.reward.at[1].set(5.0),
    )
    blind = score(KEY, slots, Outcome(outcome.done, changed))
    jax.tree.map(np.testing.assert_array_equal, before, blind)


class Discounting(Untaught):
    """Learner whose discounting differs from every score's default."""

    def discounting(self):
        return {"discount": 0.7, "gae_lambda": 0.6, "bootstrap_truncation": False}


@pytest.mark.parametrize("name", SCORES)
def test_a_score_is_registered_and_takes_its_discounting_from_the_learner(name):
    score = load("scores", name).build(Family(), Discounting())
    assert type(score) is type(SCORES[name])
    for field, value in Discounting().discounting().items():
        if hasattr(score, field):
            assert getattr(score, field) == value
    assert type(load("scores", name).tiny(Family())) is type(score)


def test_the_memory_of_max_mc_starts_at_its_floor():
    assert float(MaxMC().initial_state()) == 0.0
    slots, outcome = evidence(0, 1)
    unseen = slots._replace(score_state=jnp.full((N, 1), MaxMC(floor=-np.inf).initial_state()))
    score, memory = MaxMC(floor=-np.inf)(KEY, unseen, outcome)
    assert memory[0, 0] == -np.inf  # the slot without a completed episode
    assert score[0, 0] == -np.inf
    assert np.isfinite(score[1:]).all()


def test_no_score_says_nothing():
    slots, outcome = evidence(0, 3)
    score, memory = NoScore()(KEY, slots, outcome)
    assert (score == -np.inf).all()
    assert memory is slots.score_state
