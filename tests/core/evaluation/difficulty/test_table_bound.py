"""Bits of a learner that only memorises."""

import itertools
import math

import numpy as np
import pytest

from rlgen.evaluation.difficulty.table_bound import table_bits


@pytest.mark.parametrize(
    ("actions", "error", "bits"), [(4, 0.0, 120.0), (4, 0.1, 67.9199), (5, 0.1, 83.1099)]
)
def test_sixty_unseen_of_a_hundred(actions, error, bits):
    assert table_bits(np.full(60, 1 / actions), 100, error) == pytest.approx(bits, abs=5e-5)


def test_all_outcomes_counted():
    prob, num = np.array([0.25, 0.5, 0.2, 1.0, 0.75, 0.1]), 9
    for error in (0.0, 0.12, 1 / 3, 0.5):
        needed = len(prob) - math.floor(error * num + 1e-9)
        chance = 0.0
        for outcome in itertools.product([0, 1], repeat=len(prob)):
            if sum(outcome) >= needed:
                chance += np.prod(np.where(outcome, prob, 1 - prob))
        assert table_bits(prob, num, error) == pytest.approx(-math.log2(chance))


def test_enough_seen_levels_leave_no_bits():
    assert table_bits(np.zeros(0), 50, 0.0) == 0.0
    assert table_bits(np.full(3, 0.25), 30, 0.1) == 0.0
    assert table_bits(np.full(3, 0.25), 30, 0.09) > 0


def test_very_unlikely_luck_does_not_underflow():
    assert table_bits(np.full(2000, 0.25), 2000, 0.0) == pytest.approx(4000.0)


def test_impossible_tests_are_refused():
    with pytest.raises(ValueError, match="4 unseen tests, more than all 3 tests"):
        table_bits(np.full(4, 0.5), 3, 0.1)
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 1"):
        table_bits(np.array([1.5]), 3, 0.1)
