"""Random numbers for held-out levels, equal on all machines and with all NumPy versions."""

import numpy as np
from jaxtyping import Float


class Stream:
    """Stream of uniform numbers in [0, 1) that is determined by its name.

    The numbers are computed from the raw output of PCG64, which NumPy guarantees not to change.
    """

    def __init__(self, name: str):
        self._bits = np.random.PCG64(np.random.SeedSequence(list(name.encode())))

    def uniform(self, *shape: int) -> Float[np.ndarray, "..."]:
        """Return the next numbers of the stream as an array of the given shape."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        # The upper 53 bits fill the mantissa of a float64 exactly.
        return (raw >> np.uint64(11)).reshape(shape) * 2.0**-53


def rounded(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Round to four significant digits, so that rounding differences between machines vanish."""
    return np.vectorize(lambda x: float(f"{x:.4g}"))(values).astype(np.float32)
