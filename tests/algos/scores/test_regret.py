"""Regret and negative return, against slow loops over synthetic rollouts and by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import testing
from rlgen.algos.scores.negative_return import NegativeReturn
from rlgen.algos.scores.regret import Regret
from rlgen.types import Outcome, Rollout

N = 6
KEY = jax.random.key(0)


def evidence(num_members, levels_per_slot, seed=0, num_steps=20):
    members = [
        testing.random_rollout(seed + i, num_steps, N, levels_per_slot) for i in range(num_members)
    ]
    rollouts = jax.tree.map(lambda *x: jnp.stack(x), *members)
    slots = testing.new_slots(jnp.zeros((N, levels_per_slot)), ())
    return slots, Outcome(jnp.ones(N, bool), rollouts)


def by_hand(rewards, lasts):
    """Build evidence for one slot and level from rewards, [P][T], and last steps, [P]."""
    reward = np.asarray(rewards, np.float32)[..., None]
    done = np.zeros(reward.shape, bool)
    for member, ends in enumerate(lasts):
        done[member, list(ends), 0] = True
    begins = np.concatenate([np.ones_like(done[:, :1]), done[:, :-1]], 1)
    zero, whole = np.zeros_like(reward), np.zeros(reward.shape, np.int32)
    columns: dict[str, Any] = dict.fromkeys(("log_prob", "value", "next_value", "bonus"), zero)
    columns |= {"action": whole, "level_index": whole, "reward": reward, "first": begins}
    columns |= {"terminated": done, "truncated": np.zeros_like(done)}
    rollout = Rollout(obs=(), carry=(), **columns)
    rollout = jax.tree.map(jnp.asarray, rollout)
    return testing.new_slots(jnp.zeros((1, 1)), ()), Outcome(jnp.ones(1, bool), rollout)


def slow_returns(rollout, member, slot, turn, completed_only):
    """Return the returns of the episodes that count, by the definition."""
    r = jax.tree.map(lambda x: np.asarray(x[member, :, slot], np.float64), rollout._replace(obs=()))
    complete, total, ended = [], 0.0, False
    for t in range(len(r.reward)):
        total = r.reward[t] if r.first[t] else total + r.reward[t]
        ended = r.terminated[t] or r.truncated[t]
        if ended and r.level_index[t] == turn:
            complete.append(total)
    if not complete and not completed_only and not ended and r.level_index[-1] == turn:
        return [total]
    return complete


def slow(judge, outcome, levels_per_slot, completed_only):
    num_members = outcome.rollout.reward.shape[0]
    score = np.full((N, levels_per_slot), -np.inf)
    for n, r in np.ndindex(N, levels_per_slot):
        returns = [
            slow_returns(outcome.rollout, p, n, r, completed_only) for p in range(num_members)
        ]
        if all(returns):
            score[n, r] = judge(returns)
    return score


JUDGES = {
    "max-mean": lambda x: max(x[1]) - np.mean(x[0]),
    "mean-mean": lambda x: np.mean(x[1]) - np.mean(x[0]),
    "population": lambda x: max(map(np.mean, x)) - np.mean([np.mean(y) for y in x]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("completed_only", [True, False])
@pytest.mark.parametrize("levels_per_slot", [1, 3])
@pytest.mark.parametrize("kind", list(JUDGES))
def test_regret_is_its_definition(kind, levels_per_slot, completed_only):
    slots, outcome = evidence(3 if kind == "population" else 2, levels_per_slot)
    expected = slow(JUDGES[kind], outcome, levels_per_slot, completed_only)
    for non_negative in (True, False):
        score = Regret(kind, non_negative, completed_only)(KEY, slots, outcome)[0]
        least = 0.0 if non_negative else -np.inf
        right = np.where(np.isfinite(expected), np.maximum(expected, least), -np.inf)
        np.testing.assert_allclose(score, right, atol=1e-5)
    assert np.isfinite(expected).any() and (kind == "population" or (expected < 0).any())


@pytest.mark.thorough
@pytest.mark.parametrize("completed_only", [True, False])
@pytest.mark.parametrize("levels_per_slot", [1, 3])
def test_negative_return_is_its_definition(levels_per_slot, completed_only):
    slots, outcome = evidence(1, levels_per_slot)
    expected = slow(lambda x: -np.mean(x[0]), outcome, levels_per_slot, completed_only)
    score, memory = NegativeReturn(completed_only)(KEY, slots, outcome)
    np.testing.assert_allclose(score, expected, atol=1e-5)
    assert memory == ()


# Returns: 1 and 2 (protagonist), 3 and 5 (antagonist, plus one unfinished episode).
TWO = by_hand([[1, 0, 2, 0, 0], [3, 1, 4, 9, 9]], [(1, 4), (0, 2)])


@pytest.mark.parametrize(
    ("kind", "worth"), [("max-mean", 3.5), ("mean-mean", 2.5), ("population", 1.25)]
)
def test_regret_by_hand(kind, worth):
    np.testing.assert_allclose(Regret(kind)(KEY, *TWO)[0], [[worth]])


def test_regret_is_the_antagonists_return_minus_the_protagonists_and_turns_round_with_them():
    slots, outcome = TWO
    rollouts: Any = outcome.rollout
    turned = outcome._replace(rollout=jax.tree.map(lambda x: x[::-1], rollouts))
    there = Regret("mean-mean", non_negative=False)(KEY, slots, outcome)[0]
    back = Regret("mean-mean", non_negative=False)(KEY, slots, turned)[0]
    np.testing.assert_array_equal(there, -back)
    assert Regret("mean-mean")(KEY, slots, turned)[0] == 0.0
    equal = outcome._replace(rollout=jax.tree.map(lambda x: x[jnp.array([1, 1])], rollouts))
    assert Regret("mean-mean")(KEY, slots, equal)[0] == 0.0


@pytest.mark.thorough
def test_a_protagonist_that_never_finishes_has_what_it_gathered_so_far():
    slots, outcome = by_hand([[0, 1, 0], [0, 5, 0]], [(), (1,)])
    assert Regret()(KEY, slots, outcome)[0] == 4.0
    assert Regret(completed_only=True)(KEY, slots, outcome)[0] == -jnp.inf
    assert NegativeReturn()(KEY, slots, outcome)[0] == -1.0


def test_only_regret_that_can_be_negative_says_so():
    assert not Regret().may_be_negative
    assert Regret(non_negative=False).may_be_negative
    assert not Regret("population", non_negative=False).may_be_negative


@pytest.mark.parametrize(("kind", "size"), [("max-mean", 1), ("population", 1), ("mean-mean", 3)])
def test_a_population_of_the_wrong_size_is_refused_with_the_way_out(kind, size):
    slots, outcome = evidence(size, 1)
    with pytest.raises(ValueError, match=rf"the student has {size}; set student.population=2"):
        Regret(kind)(KEY, slots, outcome)


def test_an_unknown_kind_is_refused():
    unknown: Any = "max-max"
    with pytest.raises((ValueError, TypeError), match="max-max"):
        Regret(unknown)
