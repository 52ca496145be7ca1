"""Bits that a learner without any idea of likeness needs: it knows what it saw, and guesses.

A table of observations and answers generalises to a new observation only by luck. The bits are
minus the logarithm of the chance that its guesses are right often enough; they are what kernels
and networks, which answer alike where observations are alike, are to be compared with.
"""

import math

import numpy as np
from jaxtyping import Float


def table_bits(right_prob: Float[np.ndarray, " U"], num_tests: int, error: float) -> float:
    """Bits to answer at most a share `error` of the tests wrongly; 0 if what was seen suffices.

    -log₂ P(Σ Bernoulli(q_x) >= U - ⌊ε N⌋), a Poisson binomial law, by convolution of logarithms.

    Args:
        right_prob: q_x, chance that a guess is right, for each of the U tests that were not seen.
        num_tests: N, all tests; those that were seen are answered rightly.
        error: ε, the share of tests that may be wrong.

    Raises:
        ValueError: more unseen tests than tests, or a chance or share outside 0 .. 1.
    """
    unseen = len(right_prob)
    if unseen > num_tests:
        raise ValueError(f"{unseen} of only {num_tests} tests cannot be unseen")
    if not (0 <= error <= 1 and ((right_prob >= 0) & (right_prob <= 1)).all()):
        raise ValueError(f"chances and the error, {error}, must be in 0 .. 1")
    needed = unseen - math.floor(error * num_tests + 1e-9)  # 0.1 * 30 is a little below 3
    if needed <= 0:
        return 0.0
    law = _log_law(right_prob)
    return max(0.0, float(-np.logaddexp.reduce(law[needed:]) / math.log(2)))


def _log_law(prob: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U+1"]:
    """Ln of the chance of each number of successes, 0 to U."""
    law = np.full(len(prob) + 1, -np.inf)
    law[0] = 0.0
    with np.errstate(divide="ignore"):  # ln 0 is right
        log_right, log_wrong = np.log(prob), np.log1p(-prob)
    for right, wrong in zip(log_right, log_wrong, strict=True):
        law[1:] = np.logaddexp(law[1:] + wrong, law[:-1] + right)
        law[0] += wrong
    return law
