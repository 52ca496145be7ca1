"""Random numbers for held-out levels, the same on every machine and in every version of numpy."""

import numpy as np
from jaxtyping import Float


class Stream:
    """Uniform numbers in [0, 1) that follow from a name alone.

    They are made of the raw words of PCG64, which numpy promises never to change.
    """

    def __init__(self, name: str):
        self._bits = np.random.PCG64(np.random.SeedSequence(list(name.encode())))

    def uniform(self, *shape: int) -> Float[np.ndarray, "..."]:
        """The next numbers, in an array of some shape."""
        raw = self._bits.random_raw(int(np.prod(shape)))
        return (raw >> np.uint64(11)).reshape(shape) * 2.0**-53


def rounded(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Values with four significant digits, so that no machine's rounding tells them apart."""
    return np.vectorize(lambda x: float(f"{x:.4g}"))(values).astype(np.float32)
