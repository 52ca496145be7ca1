"""E3B elliptical episodic bonus: novelty relative to the covariance of the episode's features.

    b = φᵀ C⁻¹ φ,   C = λ I + Σ φᵢ φᵢᵀ over the earlier observations of the episode

The features φ are learned by an inverse dynamics model: from the features of two consecutive
observations, it predicts the action between them. With one-hot features the bonus is 1 / (n + λ)
after n earlier visits to the same state in the episode. It is then an episodic count-based bonus.

Source: Henaff et al., 2022, "Exploration via Elliptical Episodic Bonuses". The features are
normalised by a LayerNorm, as in the later port of their code to Sample Factory. It keeps ‖φ‖² equal
to the number of features d, and thereby keeps P = C⁻¹ in the range of float32. Differs from the
code of Henaff et al. in two ways. (1) In that code an action is rewarded for the observation before
it; `credit="current"` selects this behaviour. By default, an action is rewarded here for the
observation that it led to, as in all other bonuses of rlgen. If bonuses are multiplied, all factors
then refer to the same state. No action led to the first observation of an episode, so the bonus of
this observation, which is of size 1/λ, is not added by default. (2) The inverse dynamics model is
not trained on pairs of observations from two different episodes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen import registry
from rlgen.algos.bonuses import ellipse, encoders
from rlgen.algos.bonuses.dynamics import Dynamics
from rlgen.algos.bonuses.training import Fit, Training
from rlgen.protocols import FEATURES, Bonus, LevelEnv
from rlgen.types import Key, Metrics, Rollout, Visit

__all__ = ["E3B", "VARIANTS", "E3BState", "build", "tiny"]

EMBEDDINGS = ("inverse", "random", "position")
CREDITS = ("successor", "current")
VARIANTS: dict[str, dict] = {
    "random": {"embedding": "random"},
    "position": {"embedding": "position"},
    "current": {"credit": "current"},
    "published": {"credit": "current", "zero_first": True},
}


class E3BState(NamedTuple):
    """Feature networks, shared by all slots, and the inverse covariance of each slot's episode."""

    networks: Fit | tuple[()]  # () if the features are positions
    inverse: Float[Array, "N d *d"]  # P = C⁻¹; only its diagonal if the features are positions


@dataclass(frozen=True)
class E3B(Bonus):
    """Elliptical bonus with a separate feature covariance for each slot's running episode.

    If features grow without bound, a bonus may become infinite or NaN. Such a bonus is replaced by
    0, and the slot's covariance is reset to λ I. The metric `e3b_resets` counts these resets.

    Attributes:
        dynamics: Feature networks and their training; not used with `embedding="position"`.
        embedding: Features φ. `inverse`: learned by an inverse dynamics model. `random`: outputs of
            the untrained encoder. `position`: one-hot positions.
        ridge: Ridge coefficient λ.
        credit: Observation for which a step is rewarded: `successor` is the observation after the
            step, and `current` is the observation before it.
        zero_first: Whether the first step of an episode has bonus 0; requires `credit="current"`.
        form: Algorithm that updates the inverse covariance. `dual` processes several steps at once
            with a Cholesky factorisation. `scan` processes one step at a time; it was slower than
            `dual` with `chunk=16` at every measured size.
        chunk: Number of steps that `dual` processes at once.

    Raises:
        ValueError: If a field is out of range, or `position` is chosen for an environment that
            provides no positions.
    """

    dynamics: Dynamics
    embedding: Literal["inverse", "random", "position"] = "inverse"
    ridge: float = 0.1
    credit: Literal["successor", "current"] = "successor"
    zero_first: bool = False
    form: ellipse.Form = "dual"
    chunk: int = 16

    def __post_init__(self):
        known = {"embedding": EMBEDDINGS, "credit": CREDITS, "form": ellipse.FORMS}
        for name, allowed in known.items():
            value = getattr(self, name)
            if value not in allowed:
                raise ValueError(f"e3b: {name}={value!r} is not one of {', '.join(allowed)}")
        if not self.ridge > 0:
            raise ValueError(f"e3b: ridge must be above 0, got {self.ridge}; 0.1 is usual")
        if self.chunk < 1:
            raise ValueError(f"e3b: chunk must be at least 1, got {self.chunk}; 16 is usual")
        if self.zero_first and self.credit != "current":
            raise ValueError(
                "e3b: zero_first=True needs credit='current'; with credit='successor' the first "
                "observation of an episode is never rewarded"
            )
        for feature in self.features:
            registry.require_all(
                self.dynamics.env, FEATURES[feature], "e3b with embedding=position"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """`("position",)` if the embedding is `position`, else empty."""
        return ("position",) if self.embedding == "position" else ()

    @property
    def pairs(self) -> bool:
        """True if the bonus of a step depends on the next observation."""
        return self.credit == "successor" and not self.features

    def init(self, key: Key, num_slots: int) -> E3BState:
        """Return untrained networks and the inverse covariance I/λ for every slot."""
        if self.features:
            num = self.dynamics.env.num_positions()
            # One-hot features are orthogonal, so C and P stay diagonal and [N, d] suffices.
            return E3BState((), jnp.full((num_slots, num), 1 / self.ridge))
        inverse = ellipse.round_ellipse(num_slots, self.dynamics.num_features, self.ridge)
        return E3BState(self.dynamics.init(key), inverse)

    def apply(
        self, key: Key, state: E3BState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[E3BState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        fit, metrics = state.networks, {}
        if not isinstance(fit, Fit):
            return self._of_positions(state, rollout)
        seen = self.dynamics.look(fit.params, rollout)
        num_steps, num_slots = rollout.first.shape
        phi = seen.phi.reshape(-1, num_slots, seen.phi.shape[-1])  # [T + 1, N, d] or [T, N, d]
        if self.credit == "successor":
            # An episode's first observation is added to C without a bonus. A step that ends an
            # episode has no known successor.
            steps = ellipse.Steps(phi[1:], phi[:-1], rollout.first, ~rollout.done)
        else:
            always = jnp.ones_like(rollout.first)
            steps = ellipse.Steps(phi[:num_steps], (), rollout.first, always)
        # P may contain features of earlier rollouts, which were computed with older parameters.
        found = ellipse.follow(state.inverse, steps, self.ridge, self.form, self.chunk)
        # The networks are trained after the bonus was computed, so that training on these
        # observations does not affect their bonus.
        if self.embedding == "inverse":
            fit, metrics = self.dynamics.learn(key, fit, seen, weight)
        resets = jnp.where(weight > 0, found.resets, 0).sum().astype(jnp.float32)
        bonus = self._first_too(found.bonus, rollout)
        return E3BState(fit, found.inverse), bonus, metrics | {"e3b_resets": resets}

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Return a warning if the inverse covariance of any slot had to be reset."""
        resets = float(metrics.get("e3b_resets", 0.0))
        if not resets > 0:
            return []
        return [
            f"e3b: bonuses were not finite {resets:g} times per update, and the covariance of "
            f"these episodes was reset; raise ridge above its current value, {self.ridge:g}"
        ]

    def _of_positions(
        self, state: E3BState, rollout: Rollout
    ) -> tuple[E3BState, Float[Array, "T N"], Metrics]:
        assert isinstance(rollout.visits, dict)
        visit: Visit = rollout.visits["position"]
        # Positions are recorded before the environment resets, so the successor of every step is
        # known.
        places = ellipse.Places(visit.after, visit.before, rollout.first)
        if self.credit == "current":
            places = ellipse.Places(visit.before, (), rollout.first)
        inverse, bonus = ellipse.follow_places(state.inverse, places, self.ridge)
        return E3BState((), inverse), self._first_too(bonus, rollout), {}

    def _first_too(self, bonus: Float[Array, "T N"], rollout: Rollout) -> Float[Array, "T N"]:
        return jnp.where(rollout.first, 0.0, bonus) if self.zero_first else bonus


def build(
    env: LevelEnv,
    embedding: Literal["inverse", "random", "position"] = "inverse",
    ridge: float = 0.1,
    credit: Literal["successor", "current"] = "successor",
    zero_first: bool = False,
    **fields,
) -> E3B:
    """Return E3B for an environment.

    Args:
        env: The environment.
        embedding: As in `E3B`.
        ridge: As in `E3B`.
        credit: As in `E3B`.
        zero_first: As in `E3B`.
        fields: Fields of `Dynamics`, such as `num_features`.
    """
    own = {"encoder": encoders.encoder_for(env), "normalize": True}
    return E3B(Dynamics(env, **{**own, **fields}), embedding, ridge, credit, zero_first)


def tiny(env: LevelEnv) -> E3B:
    """Return the smallest instance, for the tests in `tests/laws`."""
    training = Training(share=0.5, num_minibatches=2)
    encoder = encoders.encoder_for(env, 8)
    return build(env, encoder=encoder, num_features=4, hidden=8, training=training)
