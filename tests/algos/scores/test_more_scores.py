"""Scores that store best or optimal returns, against slow loops and numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.scores.grounded_l1_value_loss import GroundedL1ValueLoss
from rlgen.algos.scores.grounded_positive_value_loss import GroundedPositiveValueLoss
from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.algos.scores.oracle_regret import NO_WAY, UNASKED, OracleRegret
from rlgen.envs.maze import Maze
from rlgen.registry import load
from rlgen.types import Outcome, Rollout, Solution
from tests.algos.scores.test_scores import (
    CASES,
    KEY,
    Discounting,
    Family,
    N,
    Slow,
    evidence,
    worked_by_hand,
)

FOREVER = jnp.inf  # optimal return of a stub level that cannot be solved


class Solved(Family):
    """Family whose levels are their own optimal returns; it counts the solver's runs."""

    def __init__(self):
        self.num_solved = 0

    def solve(self, level):
        def count():
            self.num_solved += 1

        jax.debug.callback(count)
        solvable = level != FOREVER
        return Solution(solvable, jnp.int32(1), jnp.where(solvable, level, 0.0))


class Negative(Family):
    """Family in which every step has a negative reward."""

    lowest_return = -200.0


def slow_best(slow, memory):
    now = slow.per_level(lambda n, r: max(slow.returns(n, r), default=-np.inf))
    return np.maximum(now, memory)


@pytest.mark.thorough
@pytest.mark.parametrize("completed_only", [True, False])
def test_grounded_positive_value_loss_is_the_mean_of_what_the_critic_misses(completed_only):
    for seed, levels_per_slot in CASES:
        slots, outcome = evidence(seed, levels_per_slot)
        score, memory = GroundedPositiveValueLoss(completed_only)(KEY, slots, outcome)
        slow = Slow(outcome, levels_per_slot)
        best = slow_best(slow, slots.score_state)
        np.testing.assert_allclose(memory, best, rtol=1e-5)

        def judge(n, r, slow=slow, best=best):
            kept = slow.episodes(n, r, completed_only)
            missed = [np.maximum(best[n, r] - slow.rollout.value[s, n], 0).mean() for s in kept]
            return np.mean(missed) if missed else -np.inf

        np.testing.assert_allclose(score, slow.per_level(judge), rtol=1e-4, atol=1e-5)
        signed, _ = MaxMC(completed_only)(KEY, slots, outcome)
        assert (score >= signed - 1e-5).all()
        assert (score > signed + 0.01).any()


@pytest.mark.parametrize("completed_only", [True, False])
@pytest.mark.parametrize("floor", [0.0, 1.5])
def test_grounded_l1_value_loss_is_zero_where_nothing_was_achieved(completed_only, floor):
    kinds = set()
    for seed, levels_per_slot in CASES:
        slots, outcome = evidence(seed, levels_per_slot)
        score, memory = GroundedL1ValueLoss(0.9, 0.8, True, completed_only, floor)(
            KEY, slots, outcome
        )
        slow = Slow(outcome, levels_per_slot)
        best = slow_best(slow, slots.score_state)
        np.testing.assert_allclose(memory, best, rtol=1e-5)
        loss = slow.mean(np.abs(slow.advantage(0.9, 0.8, True)), completed_only)
        expected = np.where(np.isfinite(loss) & (best <= floor), 0.0, loss)
        np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)
        kinds |= set(np.sign(expected).ravel().tolist())
    assert kinds >= {0.0, 1.0}


def test_numbers_worked_by_hand():
    slots, outcome = worked_by_hand()
    # Best returns 1 and .125; values (.5, .75), (1) on the first level, (.25, .5) on the second.
    score, memory = GroundedPositiveValueLoss()(KEY, slots, outcome)
    np.testing.assert_allclose(memory, [[1.0, 0.125]])
    np.testing.assert_allclose(score, [[((0.5 + 0.25) / 2 + 0) / 2, 0.0]])
    # Equal to L1, except that a return of .125 does not exceed a floor of .125.
    score, _ = GroundedL1ValueLoss(0.5, 0.5)(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[(0.3125 / 2 + 0.5) / 2, 0.3125]])
    score, _ = GroundedL1ValueLoss(0.5, 0.5, floor=0.125)(KEY, slots, outcome)
    np.testing.assert_allclose(score, [[(0.3125 / 2 + 0.5) / 2, 0.0]])
    # Mean returns .75 and 0.
    known = slots._replace(score_state=jnp.asarray([[2.0, 0.5]]), level=jnp.zeros((1, 2)))
    score, _ = OracleRegret(Solved())(KEY, known, outcome)
    np.testing.assert_allclose(score, [[1.25, 0.5]])


def test_l1_value_loss_without_a_trace_is_the_one_step_td_error():
    slots, outcome = evidence(3, 2)
    slow, r = Slow(outcome, 2), jax.tree.map(lambda x: x[0], outcome.rollout)
    delta = np.asarray(r.reward + 0.9 * r.next_value - r.value)
    score, _ = L1ValueLoss(0.9, 0.0)(KEY, slots, outcome)
    np.testing.assert_allclose(score, slow.mean(np.abs(delta), False), rtol=1e-4, atol=1e-5)


def unsolved(seed, levels_per_slot):
    """Return evidence on levels not yet given to the solver; about a third are unsolvable."""
    slots, outcome = evidence(seed, levels_per_slot)
    rng = np.random.default_rng(seed + 99)
    best = np.where(
        rng.random((N, levels_per_slot)) < 0.3, FOREVER, rng.normal(size=(N, levels_per_slot))
    )
    level, memory = jnp.asarray(best, jnp.float32), jnp.full((N, levels_per_slot), UNASKED)
    return slots._replace(level=level, score_state=memory), outcome


def test_oracle_regret_is_the_optimum_minus_the_mean_return():
    kinds = set()
    for seed, levels_per_slot in CASES:
        slots, outcome = unsolved(seed, levels_per_slot)
        score, memory = OracleRegret(Solved())(KEY, slots, outcome)
        slow, best = Slow(outcome, levels_per_slot), np.asarray(slots.level)
        np.testing.assert_array_equal(memory, np.where(best == FOREVER, NO_WAY, best))

        def judge(n, r, slow=slow, best=best):
            totals = slow.returns(n, r)
            if not totals:
                return -np.inf
            return 0.0 if best[n, r] == FOREVER else max(best[n, r] - np.mean(totals), 0.0)

        expected = slow.per_level(judge)
        np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-5)
        kinds |= set(np.sign(expected).ravel().tolist()) | set(expected[expected < 0].tolist())
    assert kinds >= {0.0, 1.0, -np.inf}


def test_a_level_is_solved_once():
    env = Solved()
    score = jax.jit(OracleRegret(env).__call__)
    slots, outcome = unsolved(0, 2)
    first, memory = score(KEY, slots, outcome)
    jax.effects_barrier()
    assert env.num_solved == 1
    # Same memories, other levels: if the solver ran again, the score would change.
    seen = slots._replace(level=slots.level + 5.0, score_state=memory)
    again, kept = score(KEY, seen, outcome)
    jax.effects_barrier()
    assert env.num_solved == 1
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(kept, memory)
    # One new level among known ones: all are solved, but only its memory changes.
    _, new = score(KEY, seen._replace(score_state=memory.at[1, 0].set(UNASKED)), outcome)
    expected = np.asarray(memory).copy()
    expected[1, 0] = NO_WAY if slots.level[1, 0] == FOREVER else slots.level[1, 0] + 5.0
    np.testing.assert_array_equal(new, expected)


def test_the_solver_stays_in_a_branch_when_seeds_are_an_axis():
    env = Maze(height=3, width=3, num_walls=1)
    score = OracleRegret(env)
    slots, outcome = evidence(0, 2)
    keys = jax.random.split(KEY, (N, 2))
    level = jax.vmap(jax.vmap(env.sample_level))(keys)
    slots = slots._replace(level=level, score_state=jnp.full((N, 2), UNASKED))
    seeds = jax.tree.map(lambda x: jnp.stack([x, x]), (slots, outcome))
    one = jax.make_jaxpr(score)(KEY, slots, outcome)
    two = jax.make_jaxpr(jax.vmap(score, in_axes=(None, 0, 0)))(KEY, *seeds)
    for program in (one, two):
        names = [str(eqn.primitive) for eqn in program.eqns]
        assert "cond" in names
        assert "while" not in names
        assert "while" in str(program)
    batched = jax.jit(jax.vmap(score, in_axes=(None, 0, 0)))(KEY, *seeds)
    single = jax.jit(score)(KEY, slots, outcome)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x[1], y, rtol=1e-6), batched, single)


def test_an_environment_without_a_solver_is_refused():
    with pytest.raises(ValueError, match=r"oracle-regret needs .*solve.*Family has no solve"):
        OracleRegret(Family())


FLOORED = ("max-mc", "grounded-positive-value-loss", "grounded-l1-value-loss")


@pytest.mark.parametrize("name", FLOORED)
def test_the_floor_is_the_environments_lowest_return(name):
    build = load("scores", name).build
    for env, floor in ((Family(), 0.0), (Negative(), -200.0)):
        score = build(env, Discounting())
        assert score.floor == floor
        assert float(score.initial_state()) == floor
        assert getattr(score, "discount", 0.7) == 0.7
    assert build(Negative(), Discounting(), floor=-3.0).floor == -3.0


def test_a_negative_floor_lets_negative_returns_count():
    slots, outcome = evidence(1, 1)
    rollout = outcome.rollout
    assert isinstance(rollout, Rollout)
    costly = Outcome(outcome.done, rollout._replace(reward=-jnp.abs(rollout.reward) - 1.0))
    unseen = jnp.full((N, 1), -200.0)
    best = slow_best(Slow(costly, 1), unseen)
    assert ((best > -200) & (best < 0)).any()
    for score in (MaxMC(floor=-200.0), GroundedPositiveValueLoss(floor=-200.0)):
        memory = score(KEY, slots._replace(score_state=unseen), costly)[1]
        np.testing.assert_allclose(memory, best, rtol=1e-5)
    grounded = GroundedL1ValueLoss(floor=-200.0)
    judged = grounded(KEY, slots._replace(score_state=unseen), costly)[0]
    np.testing.assert_array_equal(np.asarray(judged) > 0, best > -200)


def test_an_unknown_best_return_is_no_score():
    slots, outcome = evidence(0, 1)
    unseen = slots._replace(score_state=jnp.full((N, 1), -jnp.inf))
    score, _ = GroundedPositiveValueLoss(floor=-np.inf)(KEY, unseen, outcome)
    assert score[0, 0] == -np.inf  # the slot without a completed episode
    assert np.isfinite(score[1:]).all()
