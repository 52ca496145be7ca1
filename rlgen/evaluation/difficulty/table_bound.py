"""Bits of generalisation of a lookup table, which memorises training observations.

A table guesses the answer to a new observation. The bits are minus the logarithm (base 2) of the
probability that enough guesses are right. A table is the baseline for kernels and networks, which
give similar answers to similar observations.
"""

import math

import numpy as np
from jaxtyping import Float


def table_bits(right_prob: Float[np.ndarray, " U"], num_tests: int, error: float) -> float:
    """Bits needed to answer at most a fraction `error` of the tests wrongly.

    The number of bits is -log₂ P(Σ Bernoulli(q_x) >= U - ⌊ε N⌋). The sum has a Poisson binomial
    distribution, which is computed by convolution in log space. If at most ⌊ε N⌋ tests are unseen,
    no bits are needed.

    Args:
        right_prob: Probability q_x that a guess is right, for each of the U unseen tests.
        num_tests: Number N of all tests. A test whose observation was memorised is always answered
            correctly.
        error: Fraction ε of the tests that may be wrong.

    Raises:
        ValueError: There are more unseen tests than tests, or a probability or the fraction ε is
            outside 0 .. 1.
    """
    unseen = len(right_prob)
    if unseen > num_tests:
        raise ValueError(f"right_prob has {unseen} unseen tests, more than all {num_tests} tests")
    if not (0 <= error <= 1 and ((right_prob >= 0) & (right_prob <= 1)).all()):
        raise ValueError(f"probabilities and the error, {error}, must be in 0 .. 1")
    # 1e-9 is added because a product such as 0.29 * 100 can lie just below the whole number.
    needed = unseen - math.floor(error * num_tests + 1e-9)
    if needed <= 0:
        return 0.0
    law = _log_law(right_prob)
    return max(0.0, float(-np.logaddexp.reduce(law[needed:]) / math.log(2)))


def _log_law(prob: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U+1"]:
    """Logarithm of the probability of k right guesses, for each k from 0 to U."""
    law = np.full(len(prob) + 1, -np.inf)
    law[0] = 0.0
    with np.errstate(divide="ignore"):  # ln 0 = -inf is the correct value
        log_right, log_wrong = np.log(prob), np.log1p(-prob)
    for right, wrong in zip(log_right, log_wrong, strict=True):
        # After this guess, k guesses are right in two cases: k were right before and this guess is
        # wrong, or k - 1 were right before and this guess is right.
        law[1:] = np.logaddexp(law[1:] + wrong, law[:-1] + right)
        law[0] += wrong
    return law
