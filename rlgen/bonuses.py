"""Combinations of bonuses (products, sums, gates, scales), and the wrapper that learners use.

A bonus is raw novelty until `Shaped` normalises it and multiplies it by a coefficient. A
combination of bonuses is therefore normalised once, at the end. On the command line, bonuses are
written as expressions of names: `e3b*rnd`, `episodic+0.5*rnd`, `rnd|episodic` (see `parse`).

Source of the combinations: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic
Bonuses for Exploration in Contextual MDPs". A product keeps the ranking by global novelty at every
scale. In a sum the episodic part dominates in the end, since only the global part shrinks over
training.
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
"""Suffix of a metric of the right bonus if the left bonus has a metric of the same name."""


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
        threshold: a gate lets the left bonus through where the right one is above this value.

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
        """Features that either bonus reads."""
        return _features(self.left, self.right)

    @property
    def pairs(self) -> bool:
        """True if either bonus depends on the next observation."""
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
        # Two bonuses of one kind report the same names: those of the right one get a suffix.
        others = {name + RIGHT if name in metrics else name: x for name, x in others.items()}
        return Pair(left_state, right_state), self._together(left, right), others | metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of both bonuses about the metrics of an update."""
        # Each bonus looks up its metrics by their plain names, so those of the right one get theirs
        # back.
        of_right = {name.removesuffix(RIGHT): x for name, x in metrics.items() if RIGHT in name}
        return self.left.warnings(metrics) + self.right.warnings({**metrics, **of_right})

    def _together(self, left: Float[Array, "T N"], right: Float[Array, "T N"]) -> Array:
        if self.how == "product":
            return left * right
        if self.how == "sum":
            return left + self.right_weight * right
        # Unlike a product, a gate only compares the right bonus with the threshold.
        return jnp.where(right > self.threshold, left, 0.0)


def product(left: Bonus, right: Bonus) -> Combined:
    """`left` times `right`: high where both are high."""
    return Combined(left, right, "product")


def weighted_sum(left: Bonus, right: Bonus, right_weight: float = 1.0) -> Combined:
    """`left` plus β times `right`."""
    return Combined(left, right, "sum", right_weight=right_weight)


def gate(left: Bonus, right: Bonus, threshold: float = 0.5) -> Combined:
    """`left` where `right` is above a threshold, else 0.

    `right` is typically an episodic bonus, 1 at the first visit in the episode and 0 afterwards.
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
        """Features that the wrapped bonus reads."""
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
    """Bonus as added to the reward: normalised, then multiplied by a coefficient.

    Values that are not finite are replaced by 0 and counted in the metric `bonus_nonfinite`.

    Attributes:
        novelty: the raw bonus.
        normalizer: running statistic by which the raw bonus is divided.
        coef: α, factor of the normalised bonus. The default is small compared with a reward of 1,
            because values follow large sums of bonuses slowly (docs/exploration.md).
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
        """Initial states of the bonus and its normaliser."""
        return ShapedState(self.novelty.init(key, num_slots), self.normalizer.init(num_slots))

    def apply(
        self, key: Key, state: ShapedState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[ShapedState, Float[Array, "T N"], Metrics]:
        """Return the scaled bonus of each step; see `rlgen.protocols.Bonus`."""
        novelty, raw, metrics = self.novelty.apply(key, state.novelty, rollout, weight)
        # Before the statistics: a single NaN would stay in the running moments for the rest of the
        # run.
        finite = jnp.isfinite(raw)
        metrics["bonus_nonfinite"] = (~finite).sum().astype(jnp.float32)
        raw = jnp.where(finite, raw, 0.0)
        # A slot with weight 0 must not influence the other slots, so it does not enter the
        # statistics.
        counted = jnp.broadcast_to((weight > 0)[None], raw.shape)
        if self.pairs:
            # The last step of an episode has no next observation: its 0 is not a measurement.
            counted &= ~rollout.done
        statistics, divisor = self.normalizer.update(state.statistics, raw, counted)
        # [T, N] / [T, 1]: the divisor of step t comes from all steps up to and including t.
        paid = self.coef * raw / divisor
        if self.clip > 0:
            paid = jnp.clip(paid, -self.clip, self.clip)
        num = jnp.maximum(counted.sum(), 1)  # 1 if no step counts; the sums are then 0 as well
        means = {"bonus": paid, "bonus_raw": raw}
        metrics |= {name: jnp.where(counted, x, 0.0).sum() / num for name, x in means.items()}
        metrics["bonus_divisor"] = divisor[-1].mean()  # after the whole rollout
        return ShapedState(novelty, statistics), paid, metrics

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings of the raw bonus, plus a warning if the bonus was not finite."""
        told, bad = super().warnings(metrics), float(metrics.get("bonus_nonfinite", 0.0))
        if bad > 0:
            told.append(f"the bonus was not finite in {bad:g} steps of an update and was set to 0")
        return told


COMBINATORS = {
    "*": "product: high where both are high",
    "+": "sum",
    "|": "gate: the left one where the right one, such as an episodic count, is high",
}
"""Operators between names in an expression, with a description of each."""


def parse(text: str, env: LevelEnv) -> Bonus:
    """Build the raw bonus that an expression describes, for an environment.

    `*` binds more tightly than `|`, and `|` more tightly than `+`. A factor of a product may be a
    number: `e3b+0.5*rnd`. A name is one of `rlgen list bonuses`, with or without a variant
    (`counts/event`), or the dotted path of a module outside rlgen.

    Raises:
        ValueError: unknown name or combinator, or a bonus that the environment does not support.
    """
    unknown = re.sub(r"[\w./*+| -]", "", text)
    if unknown:
        raise ValueError(
            f"unknown combinator {unknown[0]!r} in the bonus {text!r}; the combinators are "
            + ", ".join(f"{sign} ({what})" for sign, what in COMBINATORS.items())
        )
    # From the loosest operator to the tightest: `+` here, `|` in `_parse_gated`, `*` in
    # `_parse_product`.
    terms = [_parse_gated(term, text, env) for term in text.split("+")]
    # A number before the first term scales it; elsewhere it is the weight of the sum.
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
            raise ValueError(f"the bonus {text!r} lacks a name next to a combinator")
        # No `+` in the exponent: `parse` has already split the text at every `+`.
        if re.fullmatch(r"[0-9.]+(e-?[0-9]+)?", name):
            factor *= float(name)
            continue
        built = registry.make_bonus(name, env)
        whole = built if whole is None else product(whole, built)
    if whole is None:
        raise ValueError(f"the bonus {text!r} has a number in place of a name")
    return whole if factor == 1.0 else Scale(whole, factor)


def _features(*bonuses: Bonus) -> tuple[str, ...]:
    # Without duplicates, in order of first use.
    every = [name for bonus in bonuses for name in bonus.features]
    return tuple(dict.fromkeys(every))


def _pairs(*bonuses: Bonus) -> bool:
    return any(bonus.pairs for bonus in bonuses)
