"""What bonuses have in common that networks judge and that a count's bonus then multiplies."""

import abc
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from rlgen.protocols import Bonus
from rlgen.types import Key, Metrics, PyTree, Rollout


class TimesCountsState(NamedTuple):
    """The networks and the episodic counts; `()` without them."""

    networks: PyTree
    counts: PyTree


class TimesCounts(Bonus, abstract=True):
    """Base of bonuses of what a step led to, times another bonus, or by themselves."""

    @property
    @abc.abstractmethod
    def counts(self) -> Bonus | tuple[()]:
        """What the bonus is multiplied by, such as an episodic count; `()` is 1."""

    @abc.abstractmethod
    def init_networks(self, key: Key, num_slots: int) -> PyTree:
        """The networks before any data."""

    @abc.abstractmethod
    def judge(
        self, key: Key, networks: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """The networks after an update, the bonus by itself, and metrics."""

    @property
    def features(self) -> tuple[str, ...]:
        """What is counted."""
        return () if isinstance(self.counts, tuple) else self.counts.features

    @property
    def pairs(self) -> bool:
        """It judges what a step led to."""
        return True

    def init(self, key: Key, num_slots: int) -> TimesCountsState:
        """Untrained networks, and nothing counted."""
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
        """What the counts have to say of the metrics of an update."""
        return [] if isinstance(self.counts, tuple) else self.counts.warnings(metrics)
