"""DRED's sampling distribution: a finite set grounds it, and generated levels come in by degrees.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.buffer import LevelBuffer, rank_weights, staleness_weights


@dataclass(frozen=True)
class Mixture:
    """P = (1 − ρ) [(1 − η) P_S + η P_S'] + ρ P_R, of which P_S and P_R know the data alone.

    P_S and P_S' are by rank: of the score among the levels of the set, and of the score, 0 where a
    level was never solved, among all. P_R is by staleness. η grows linearly over the run.

    Attributes:
        temperature: β of P_S; at 0.1 its best level has 0.999 of it.
        secondary_temperature: β of P_S'.
        staleness_coef: ρ.
        share_start: η in the first update.
        share_end: η in the last update.
        num_updates: over which η goes from the one to the other; the length of the run, unless set.
        stale: whether P_R is over the `data` or over `all` levels.

    Raises:
        ValueError: a field outside its range.
    """

    temperature: float = 0.1
    secondary_temperature: float = 1.0
    staleness_coef: float = 0.3
    share_start: float = 0.0
    share_end: float = 1.0
    num_updates: int = 1000
    stale: Literal["data", "all"] = "data"

    def __post_init__(self):
        for name in ("temperature", "secondary_temperature"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name} must be positive, got {getattr(self, name)}; for the greediest "
                    "choice use a small one, such as 0.05"
                )
        for name in ("staleness_coef", "share_start", "share_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.num_updates < 1:
            raise ValueError(f"num_updates must be at least 1, got {self.num_updates}")
        if self.stale not in ("data", "all"):
            raise ValueError(f"stale must be 'data' or 'all', got {self.stale!r}")

    def share(self, num_updates: Int[Array, ""]) -> Float[Array, ""]:
        """η, that many updates being done."""
        done = jnp.clip(num_updates / self.num_updates, 0.0, 1.0)
        return self.share_start + (self.share_end - self.share_start) * done

    def at(
        self, num_updates: Int[Array, ""], data: Bool[Array, " K"], solved: Bool[Array, " K"]
    ) -> "MixtureNow":
        """The distribution at some point of the run, of which row is of the set, which solved."""
        return MixtureNow(self, self.share(num_updates), data, solved)


class MixtureNow(NamedTuple):
    """P at one moment, of a buffer whose scores are the primary ones (`rlgen.buffer.Weighting`)."""

    mixture: Mixture
    share: Float[Array, ""]
    data: Bool[Array, " K"]
    solved: Bool[Array, " K"]

    def __call__(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """P, 0 outside `rows`."""
        return self.with_staleness(self.by_score(buffer, rows), buffer, rows)

    def by_score(self, buffer: LevelBuffer, rows: Bool[Array, " K"]) -> Float[Array, " K"]:
        """(1 − η) P_S + η P_S'."""
        own = self.mixture
        primary = rank_weights(buffer.score, rows & self.data, own.temperature)
        grounded = jnp.where(self.solved, buffer.score, 0.0)
        secondary = rank_weights(grounded, rows, own.secondary_temperature)
        return (1 - self.share) * primary + self.share * secondary

    def with_staleness(
        self, by_score: Float[Array, " K"], buffer: LevelBuffer, rows: Bool[Array, " K"]
    ) -> Float[Array, " K"]:
        """P, of what `by_score` gave and the staleness of the moment."""
        own = self.mixture
        stale = staleness_weights(buffer, rows & self.data if own.stale == "data" else rows)
        return (1 - own.staleness_coef) * by_score + own.staleness_coef * stale
