"""Combinations of bonuses (products, sums, gates, scales), and the wrapper that normalises them.

A bonus is *raw* until `Shaped` divides it by a running statistic and multiplies it by a
coefficient. Combinations are built from raw bonuses, so a combination is normalised only once, at
the end. On the command line, bonuses are written as expressions of names: `e3b*rnd`,
`episodic+0.5*rnd`, `rnd|episodic` (see `parse`).

Source of the combinations: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic
Bonuses for Exploration in Contextual MDPs". An episodic bonus measures novelty within the episode,
and a global bonus measures novelty over the whole run. Only the global bonus shrinks during
training. In the product of the two, steps of equal episodic novelty therefore stay ranked by global
novelty. In the sum, the episodic bonus dominates late in training.
"""

import abc
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen import registry
from rlgen.nn.normalization import Normalizer
from rlgen.protocols import Bonus, LevelEnv
from rlgen.types import Key, Metrics, PyTree, Rollout

WAYS = ("product", "sum", "gate")
RIGHT = "_right"
"""Suffix that marks the right bonus's metric if both bonuses report a metric of the same name."""


class Pair(NamedTuple):
    """The states of two bonuses."""

    left: PyTree
    right: PyTree


@dataclass(frozen=True)
class Combined(Bonus):
    """Combination of two bonuses; see `product`, `weighted_sum` and `gate`.

    Attributes:
        how: `product`, `sum` or `gate`.
        right_weight: β, factor of the right bonus in a sum.
        threshold: threshold of a gate. The result is the left bonus where the right bonus is above
            the threshold, and 0 elsewhere.

    Raises:
        ValueError: unknown `how`.
    """

    left: Bonus
    right: Bonus
    how: Literal["product", "sum", "gate"] = "product"
    right_weight: float = 1.0
    threshold: float = 0.5

    def __post_init__(self):
        if self.how not in WAYS:
            raise ValueError(f"how must be one of {', '.join(WAYS)}, got {self.how!r}")

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the state features that the two bonuses read."""
        return _features(self.left, self.right)

    @property
    def pairs(self) -> bool:
        """True if at least one of the two bonuses depends on the next observation."""
        return _pairs(self.left, self.right)

    def init(self, key: Key, num_slots: int) -> Pair:
        """Initial states of both bonuses."""
        key_left, key_right = jax.random.split(key)
        return Pair(self.left.init(key_left, num_slots), self.right.init(key_right, num_slots))

    def apply(
        self, key: Key, state: Pair, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[Pair, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        key_left, key_right = jax.random.split(key)
        left_state, left, metrics = self.left.apply(key_left, state.left, rollout, weight)
        right_state, right, others = self.right.apply(key_right, state.right, rollout, weight)
        # Bonuses of one class report metrics of the same names, so those of the right bonus get a
        # suffix.
        others = {name + RIGHT if name in metrics else name: x for name, x in others.items()}
        return Pair(left_state, right_state), self._together(left, right), others | metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of both bonuses about the metrics of an update."""
        # A bonus looks up its metrics by names without the suffix, so the suffix is removed from
        # the right bonus's metrics.
        of_right = {name.removesuffix(RIGHT): x for name, x in metrics.items() if RIGHT in name}
        return self.left.warnings(metrics) + self.right.warnings({**metrics, **of_right})

    def _together(self, left: Float[Array, "T N"], right: Float[Array, "T N"]) -> Array:
        if self.how == "product":
            return left * right
        if self.how == "sum":
            return left + self.right_weight * right
        # In a gate the right bonus is only compared with the threshold; it is not a factor.
        return jnp.where(right > self.threshold, left, 0.0)


def product(left: Bonus, right: Bonus) -> Combined:
    """`left` times `right`: high where both are high."""
    return Combined(left, right, "product")


def weighted_sum(left: Bonus, right: Bonus, right_weight: float = 1.0) -> Combined:
    """`left` plus `right_weight` times `right`."""
    return Combined(left, right, "sum", right_weight=right_weight)


def gate(left: Bonus, right: Bonus, threshold: float = 0.5) -> Combined:
    """`left` where `right` is above a threshold, and 0 elsewhere.

    `right` is typically an episodic bonus that is 1 at the first visit in an episode and 0 at later
    visits.
    """
    return Combined(left, right, "gate", threshold=threshold)


class Wrapper(Bonus, abstract=True):
    """Base class of bonuses that rescale another bonus."""

    @property
    @abc.abstractmethod
    def inner(self) -> Bonus:
        """The wrapped bonus."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the state features that the wrapped bonus reads."""
        return self.inner.features

    @property
    def pairs(self) -> bool:
        """True if the wrapped bonus depends on the next observation."""
        return self.inner.pairs

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of the wrapped bonus about the metrics of an update."""
        return self.inner.warnings(metrics)


@dataclass(frozen=True)
class Scale(Wrapper):
    """A bonus times a constant.

    Attributes:
        factor: the constant.
    """

    bonus: Bonus
    factor: float = 1.0

    @property
    def inner(self) -> Bonus:
        """The wrapped bonus."""
        return self.bonus

    def init(self, key: Key, num_slots: int) -> PyTree:
        """Initial state of the wrapped bonus."""
        return self.bonus.init(key, num_slots)

    def apply(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        state, bonus, metrics = self.bonus.apply(key, state, rollout, weight)
        return state, self.factor * bonus, metrics


class ShapedState(NamedTuple):
    """State of a bonus and of its normaliser."""

    novelty: PyTree
    statistics: PyTree


@dataclass(frozen=True)
class Shaped(Wrapper):
    """Bonus that is added to the reward: a raw bonus, normalised and multiplied by a coefficient.

    Raw values that are not finite are replaced by 0 and counted in the metric `bonus_nonfinite`.

    Attributes:
        novelty: the raw bonus.
        normalizer: running statistic by which the raw bonus is divided.
        coef: α, factor of the normalised bonus. The default is small compared with a reward of 1,
            because the learned values adapt only slowly to large sums of bonuses
            (docs/exploration.md).
        clip: bound of the scaled bonus, which is clipped to [-clip, clip]; 0 disables clipping.

    Raises:
        ValueError: negative `clip`.
    """

    novelty: Bonus
    normalizer: Normalizer = field(default_factory=Normalizer)
    coef: float = 0.02
    clip: float = 0.0

    def __post_init__(self):
        if not self.clip >= 0:
            raise ValueError(f"the bonus's clip must be 0 or more, got {self.clip}")

    @property
    def inner(self) -> Bonus:
        """The raw bonus."""
        return self.novelty

    def init(self, key: Key, num_slots: int) -> ShapedState:
        """Initial states of the raw bonus and of the normaliser."""
        return ShapedState(self.novelty.init(key, num_slots), self.normalizer.init(num_slots))

    def apply(
        self, key: Key, state: ShapedState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[ShapedState, Float[Array, "T N"], Metrics]:
        """Return the scaled bonus of each step; see `rlgen.protocols.Bonus`."""
        novelty, raw, metrics = self.novelty.apply(key, state.novelty, rollout, weight)
        # Values that are not finite are replaced before the statistics are updated, because a
        # single NaN would stay in the running moments for the rest of the run.
        finite = jnp.isfinite(raw)
        metrics["bonus_nonfinite"] = (~finite).sum().astype(jnp.float32)
        raw = jnp.where(finite, raw, 0.0)
        # A slot of weight 0 must not influence the other slots, so the slot's bonuses are left out
        # of the statistics.
        counted = jnp.broadcast_to((weight > 0)[None], raw.shape)
        if self.pairs:
            # The observation after the last step of an episode is not stored, so the bonus of this
            # step is always 0. The step is left out of the statistics.
            counted &= ~rollout.done
        statistics, divisor = self.normalizer.update(state.statistics, raw, counted)
        # [T, N] / [T, 1]: the divisor of step t is computed from all steps up to and including t.
        paid = self.coef * raw / divisor
        if self.clip > 0:
            paid = jnp.clip(paid, -self.clip, self.clip)
        num = jnp.maximum(counted.sum(), 1)  # at least 1, since 0 / 0 would give NaN
        means = {"bonus": paid, "bonus_raw": raw}
        metrics |= {name: jnp.where(counted, x, 0.0).sum() / num for name, x in means.items()}
        metrics["bonus_divisor"] = divisor[-1].mean()  # the divisor of the last step
        return ShapedState(novelty, statistics), paid, metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of the raw bonus, and a warning if some of its values were not finite."""
        told, bad = super().warnings(metrics), float(metrics.get("bonus_nonfinite", 0.0))
        if bad > 0:
            told.append(f"the bonus was not finite in {bad:g} steps of an update and was set to 0")
        return told


COMBINATORS = {
    "*": "product: high where both are high",
    "+": "sum",
    "|": "gate: the left bonus where the right one (such as an episodic count) is high, else 0",
}
"""Operators between names in an expression, with a description of each."""


def parse(text: str, env: LevelEnv) -> Bonus:
    """Build the raw bonus that an expression describes, for an environment.

    `*` binds more tightly than `|`, and `|` more tightly than `+`. A factor of a product may be a
    number: `e3b+0.5*rnd`. `rlgen list bonuses` lists the names. A name may end in a variant
    (`counts/event`). A bonus outside rlgen is named by the dotted path of its module.

    Raises:
        ValueError: unknown name or combinator, or a bonus that the environment does not support.
    """
    unknown = re.sub(r"[\w./*+| -]", "", text)
    if unknown:
        raise ValueError(
            f"unknown combinator {unknown[0]!r} in the bonus {text!r}; the combinators are "
            + ", ".join(f"{sign} ({what})" for sign, what in COMBINATORS.items())
        )
    # The text is split at the loosest operator first: at `+` here, at `|` in `_parse_gated` and at
    # `*` in `_parse_product`.
    terms = [_parse_gated(term, text, env) for term in text.split("+")]
    # The numeric factor of the first term scales that term. The factor of a later term is the
    # weight of that term in the sum.
    whole = terms[0]
    for term in terms[1:]:
        part, factor = (term.bonus, term.factor) if isinstance(term, Scale) else (term, 1.0)
        whole = weighted_sum(whole, part, factor)
    return whole


def _parse_gated(term: str, text: str, env: LevelEnv) -> Bonus:
    first, *gates = (_parse_product(part, text, env) for part in term.split("|"))
    for other in gates:
        first = gate(first, other)
    return first


def _parse_product(term: str, text: str, env: LevelEnv) -> Bonus:
    factor, whole = 1.0, None
    for written in term.split("*"):
        name = written.strip()
        if not name:
            raise ValueError(
                f"the bonus {text!r} lacks a name next to a combinator; write a name on both "
                "sides, as in 'e3b*rnd'"
            )
        # The pattern allows no `+` in the exponent, because `parse` has split the text at every
        # `+`.
        if re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", name):
            factor *= float(name)
            continue
        built = registry.make_bonus(name, env)
        whole = built if whole is None else product(whole, built)
    if whole is None:
        raise ValueError(
            f"the bonus {text!r} has a number in place of a name; a number must multiply a name, "
            "as in '0.5*rnd'"
        )
    return whole if factor == 1.0 else Scale(whole, factor)


def _features(*bonuses: Bonus) -> tuple[str, ...]:
    # The names without duplicates, in the order of first use.
    every = [name for bonus in bonuses for name in bonus.features]
    return tuple(dict.fromkeys(every))


def _pairs(*bonuses: Bonus) -> bool:
    return any(bonus.pairs for bonus in bonuses)
