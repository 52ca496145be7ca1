"""Base class of bonuses that multiply a learned bonus by an episodic count-based bonus."""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from rlgen.protocols import Bonus
from rlgen.types import Key, Metrics, PyTree, Rollout


class TimesCountsState(NamedTuple):
    """Networks of the learned bonus, and state of the count-based bonus (`()` if unused)."""

    networks: PyTree
    counts: PyTree


class TimesCounts(Bonus, abstract=True):
    """Base class of bonuses that are learned and optionally multiplied by a count-based bonus.

    The learned bonus of a step depends on the next observation.
    """

    @property
    @abc.abstractmethod
    def counts(self) -> Bonus | tuple[()]:
        """Bonus that multiplies the learned bonus, usually count-based; `()` stands for 1."""

    @abc.abstractmethod
    def init_networks(self, key: Key, num_slots: int) -> PyTree:
        """Return the untrained networks of the learned bonus."""

    @abc.abstractmethod
    def judge(
        self, key: Key, networks: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """Return the updated networks, the learned bonus of each step, and metrics."""

    @property
    def features(self) -> tuple[str, ...]:
        """Features that `counts` reads; empty if `counts` is `()`."""
        return () if isinstance(self.counts, tuple) else self.counts.features

    @property
    def pairs(self) -> bool:
        """True: the bonus of a step depends on the next observation."""
        return True

    def init(self, key: Key, num_slots: int) -> TimesCountsState:
        """Return untrained networks and the initial state of `counts`."""
        # The key is split even if `counts` is `()`, so that the initial networks do not depend on
        # `counts`.
        key_networks, key_counts = jax.random.split(key)
        networks = self.init_networks(key_networks, num_slots)
        if isinstance(self.counts, tuple):
            return TimesCountsState(networks, ())
        return TimesCountsState(networks, self.counts.init(key_counts, num_slots))

    def apply(
        self, key: Key, state: TimesCountsState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[TimesCountsState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        key_networks, key_counts = jax.random.split(key)
        networks, bonus, metrics = self.judge(key_networks, state.networks, rollout, weight)
        if isinstance(self.counts, tuple):
            return TimesCountsState(networks, ()), bonus, metrics
        counts, share, told = self.counts.apply(key_counts, state.counts, rollout, weight)
        return TimesCountsState(networks, counts), bonus * share, told | metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return the warnings of `counts`."""
        return [] if isinstance(self.counts, tuple) else self.counts.warnings(metrics)
