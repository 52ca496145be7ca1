"""Selection bias of CVaR: closed forms, and estimates compared with the bias in simulations."""

import numpy as np
import pytest

from rlgen.evaluation.stats.cvar import worst_means
from rlgen.evaluation.stats.selection_bias import MOST_ATTEMPTS, TOLERANCE, estimate


def rolls(rng, rate, attempts):
    """Draw attempts, 1 if solved and 0 otherwise, for solve rates [S, M]."""
    return (rng.random((*rate.shape, attempts)) < rate[..., None]).astype(float)


def simulated(draw, rate, num_worst, reps=40):
    """Bias in simulations: selected levels' true mean minus the truly worst levels' mean."""
    chosen = [worst_means(draw().mean(axis=-1), rate, num_worst) for _ in range(reps)]
    return (np.mean(chosen, axis=0) - worst_means(rate, rate, num_worst)).mean(axis=0)


def test_levels_that_are_never_or_always_solved_have_no_bias():
    rate = np.tile(np.arange(50) < 40, (2, 1)).astype(float)
    found = estimate(rolls(np.random.default_rng(0), rate, 4), 2, np.array([0.1, 0.5, 1.0]))
    assert found.bias.tolist() == [0, 0, 0]
    assert found.needed.tolist() == [2, 2, 2]
    equal = estimate(np.ones((2, 50, 4)), 2, np.array([0.1]))
    assert (equal.bias.tolist(), equal.tolerance, equal.needed.tolist()) == ([0], 0, [2])


def test_the_bias_of_two_kinds_of_levels_is_that_of_the_closed_form():
    """A tenth of the levels is never solved; the others are solved half of the time.

    Two attempts fail on a quarter of the other levels. The worst tenth is chosen at random among
    0.1 + 0.9 / 4 of the levels. Its true mean is 0, and a fraction 0.225 / 0.325 of the chosen
    levels has a solve rate of 0.5.
    """
    rate = np.tile(np.where(np.arange(20_000) < 2000, 0.0, 0.5), (1, 1))
    found = estimate(rolls(np.random.default_rng(1), rate, 40), 2, np.array([0.1, 1.0]))
    np.testing.assert_allclose(found.bias, [0.5 * 0.225 / 0.325, 0], atol=0.01)
    # N attempts all fail on 0.9 * 2^-N of the levels: the bias is below 0.02 from N = 8.
    # The numbers that are tried are 2, 3, 4, 5, 7, 9, …
    assert found.needed.tolist() == [9, 2]


def test_the_scale_and_the_offset_of_the_scores_do_not_matter():
    rng = np.random.default_rng(2)
    attempts, share = rolls(rng, rng.random((2, 300)), 12), np.array([0.01, 0.1])
    one, other = estimate(attempts, 6, share), estimate(40 * attempts - 90, 6, share)
    np.testing.assert_allclose(other.bias, 40 * one.bias)
    assert other.tolerance == pytest.approx(40 * one.tolerance) == 40 * TOLERANCE
    assert other.needed.tolist() == one.needed.tolist()


def test_scores_that_vary_less_need_fewer_attempts():
    rng = np.random.default_rng(3)
    rate, share = rng.random((2, 1000)), np.array([0.01])
    noise = 0.1 * rng.uniform(-1, 1, (2, 1000, 20)) * np.minimum(rate, 1 - rate)[..., None]
    steady = estimate(rate[..., None] + noise, 10, share)
    wild = estimate(rolls(rng, rate, 20), 10, share)
    assert steady.bias[0] < steady.tolerance < wild.bias[0]
    assert steady.needed[0] == 10 < wild.needed[0]


def test_the_number_of_attempts_has_a_largest_value():
    rng = np.random.default_rng(4)
    rate = rng.uniform(0.49999, 0.50001, (1, 100))
    found = estimate(rolls(rng, rate, 4), 2, np.array([0.01]))
    assert 2 < found.needed[0] <= MOST_ATTEMPTS


def distributions(rng, num):
    """Solve rates [5, num] of several kinds of suites."""

    def part(share, values):
        return values(round(share * num))

    tail = [part(0.9, lambda n: rng.beta(20, 1, n)), part(0.1, lambda n: rng.beta(1, 1, n))]
    some = [part(0.005, np.zeros), part(0.995, lambda n: rng.beta(10, 1, n))]
    two = [part(0.02, np.zeros), part(0.98, lambda n: np.full(n, 0.98))]
    kinds = {
        "hard tail": np.concatenate(tail),
        "unsolvable levels": np.concatenate(some),
        "two kinds": np.concatenate(two),
        "mostly easy": rng.beta(2, 0.3, num),
        "similar": rng.beta(20, 1, num),
        "uniform": rng.random(num),
        "hard": rng.beta(0.5, 5, num),
    }
    return {name: np.tile(rate, (5, 1)) for name, rate in kinds.items()}


@pytest.mark.thorough
@pytest.mark.parametrize("num_attempts", [5, 10, 40])
def test_a_warning_appears_where_the_bias_is_large_and_not_where_it_is_small(num_attempts):
    """The bias of simulations is compared with the estimate from one pair of evaluations.

    Between a third of the tolerance and three times the tolerance, either answer is accepted.
    """
    rng, share = np.random.default_rng(5), np.array([0.001, 0.01, 0.1, 0.5])
    large = small = 0
    for name, rate in distributions(rng, 2000).items():
        num_worst = (share * 2000).astype(int)
        true = simulated(lambda r=rate: rolls(rng, r, num_attempts), rate, num_worst)
        found = estimate(rolls(rng, rate, 2 * num_attempts), num_attempts, share)
        for k, bias in enumerate(true):
            warned = found.bias[k] > found.tolerance
            if bias > 3 * TOLERANCE:
                assert warned, (name, share[k], bias, found.bias[k])
                assert found.needed[k] > num_attempts
                large += 1
            elif bias < TOLERANCE / 3:
                assert not warned, (name, share[k], bias, found.bias[k])
                small += 1
            assert bias / 2 - 0.01 < found.bias[k] < 1.5 * bias + 0.015, (name, share[k], bias)
    assert small >= 4
    assert large >= 4 or num_attempts == 40


@pytest.mark.thorough
def test_the_needed_number_of_attempts_is_enough():
    rng, share = np.random.default_rng(6), np.array([0.01, 0.1])
    for name, rate in distributions(rng, 2000).items():
        num_worst = (share * 2000).astype(int)
        found = estimate(rolls(rng, rate, 20), 10, share)
        for k, num in enumerate(found.needed):
            left = simulated(lambda n=num, r=rate: rolls(rng, r, n), rate, num_worst, 20)[k]
            assert left < 2 * TOLERANCE, (name, share[k], num, left)


@pytest.mark.thorough
def test_ten_attempts_make_the_worst_percent_look_better():
    """On levels with a hard tail, 10 attempts give 0.1 too much, and 100 attempts 0.01."""
    rng = np.random.default_rng(7)
    rate, num_worst = np.tile(rng.beta(5, 0.7, 10_000), (1, 1)), np.array([100])
    true = [simulated(lambda n=n: rolls(rng, rate, n), rate, num_worst)[0] for n in (10, 100)]
    assert 0.08 < true[0] < 0.12
    assert 0.005 < true[1] < 0.02
    few = estimate(rolls(rng, rate, 20), 10, np.array([0.01]))
    many = estimate(rolls(rng, rate, 200), 100, np.array([0.01]))
    assert few.bias[0] == pytest.approx(true[0], rel=0.3)
    assert few.bias[0] > TOLERANCE > many.bias[0]
    assert 30 <= few.needed[0] <= 100 and many.needed[0] == 100
