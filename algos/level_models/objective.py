"""Weights of the terms in the loss of a level model, by kind of part (see `rlgen.codec`)."""

from dataclasses import dataclass

from rlgen.codec import Cells, Choice, Flags, Part, Place


@dataclass(frozen=True)
class Objective:
    """Weights of the terms of the evidence lower bound (ELBO).

    Attributes:
        cells_coef: Weight of the mean log-likelihood of a grid's cells.
        place_coef: Weight of the log-likelihood of each place.
        choice_coef: Weight of the log-likelihood of each choice.
        numbers_coef: Weight of the mean log-likelihood of a vector of numbers.
        flags_coef: Weight of the mean log-likelihood of a vector of flags.
        kl_coef: Weight of the Kullback-Leibler divergence of the latent from a standard normal
            distribution; the divergence is the *mean* over the latent dimensions.
        number_scale: Standard deviation of all numbers, used if `learn_scale` is False.
        learn_scale: Let the decoder predict the standard deviation of each number.

    Source: Garcin et al., 2024, "DRED", for the weights of cells, places and divergence.
    """

    cells_coef: float = 0.04
    place_coef: float = 0.013
    choice_coef: float = 0.013
    numbers_coef: float = 0.04
    flags_coef: float = 0.04
    kl_coef: float = 0.0448
    number_scale: float = 0.05
    learn_scale: bool = False

    def __post_init__(self):
        """Check that no weight is negative and that the scale is positive."""
        for name, value in vars(self).items():
            if name.endswith("_coef") and value < 0:
                raise ValueError(f"Objective: {name}={value} must not be negative")
        if self.number_scale <= 0:
            raise ValueError(f"Objective: number_scale={self.number_scale} must be above 0")

    def coef(self, part: Part) -> float:
        """Return the weight of one part."""
        if isinstance(part, Cells):
            return self.cells_coef
        if isinstance(part, Place):
            return self.place_coef
        if isinstance(part, Choice):
            return self.choice_coef
        return self.flags_coef if isinstance(part, Flags) else self.numbers_coef
