"""E3B: how far a step reaches out of the ellipse of features that its episode has seen.

    b = φᵀ C⁻¹ φ,   C = λ I + Σ φᵢ φᵢᵀ over what the episode has seen before

The features φ tell which action led from one observation to the next. With one-hot features it is
an episodic count, 1 / (n + λ).

Source: Henaff et al., 2022, "Exploration via Elliptical Episodic Bonuses"; the LayerNorm that keeps
‖φ‖² at d, and so P in the range of float32, as in its later port to Sample Factory. There the
bonus of an action is that of the observation before it; here, by default, that of the observation
it led to, like all other bonuses, so that a product judges one state, and the 1/λ-sized bonus of
an episode's first observation, for which no action can be thanked, is not paid. `credit="current"`
is the published one. Inverse dynamics are not learned across the ends of episodes.
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
    """The features' networks, shared, and what each slot's episode has seen."""

    networks: Fit | tuple[()]  # () for positions
    inverse: Float[Array, "N d *d"]  # P; its diagonal alone for positions


@dataclass(frozen=True)
class E3B(Bonus):
    """An ellipse for each slot's running episode.

    What is not finite, once features grow without bound, is paid as 0; that slot forgets its
    episode, which the metric `e3b_resets` counts.

    Attributes:
        dynamics: the features and how they are learned; not used for positions.
        embedding: φ: `inverse`, learned by inverse dynamics; `random`, the same networks untrained;
            or `position`, one-hot.
        ridge: λ.
        credit: whether a step is paid for the `successor` that it led to, or for the `current`
            observation.
        zero_first: whether an episode's first step is paid 0, with `current` credit.
        form: how P is followed through time: `dual`, some steps at once by a factorisation, or
            `scan`, step by step, which is slower at every size that was measured.
        chunk: steps that `dual` takes at once.

    Raises:
        ValueError: a field outside its range, or positions that the environment does not tell.
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
                raise ValueError(f"e3b: {name}={value!r} is none of {', '.join(allowed)}")
        if not self.ridge > 0:
            raise ValueError(f"e3b: ridge must be above 0, got {self.ridge}; 0.1 is usual")
        if self.chunk < 1:
            raise ValueError(f"e3b: chunk must be at least 1, got {self.chunk}; 16 is usual")
        if self.zero_first and self.credit != "current":
            raise ValueError(
                "e3b: zero_first=True needs credit='current': the first observation of an episode "
                "is not paid in any case where a step is paid for its successor"
            )
        for feature in self.features:
            registry.require_all(
                self.dynamics.env, FEATURES[feature], "e3b with embedding=position"
            )

    @property
    def features(self) -> tuple[str, ...]:
        """The position, if it is what φ tells."""
        return ("position",) if self.embedding == "position" else ()

    @property
    def pairs(self) -> bool:
        """Whether it judges the observation that a step led to."""
        return self.credit == "successor" and not self.features

    def init(self, key: Key, num_slots: int) -> E3BState:
        """Untrained networks, and nothing seen."""
        if self.features:
            num = self.dynamics.env.num_positions()
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
        phi = seen.phi.reshape(-1, num_slots, seen.phi.shape[-1])
        if self.credit == "successor":
            steps = ellipse.Steps(phi[1:], phi[:-1], rollout.first, ~rollout.done)
        else:
            always = jnp.ones_like(rollout.first)
            steps = ellipse.Steps(phi[:num_steps], (), rollout.first, always)
        found = ellipse.follow(state.inverse, steps, self.ridge, self.form, self.chunk)
        if self.embedding == "inverse":
            fit, metrics = self.dynamics.learn(key, fit, seen, weight)
        resets = jnp.where(weight > 0, found.resets, 0).sum().astype(jnp.float32)
        bonus = self._first_too(found.bonus, rollout)
        return E3BState(fit, found.inverse), bonus, metrics | {"e3b_resets": resets}

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """What a user should hear of the metrics of an update: memories that had to be dropped."""
        resets = float(metrics.get("e3b_resets", 0.0))
        if not resets > 0:
            return []
        return [
            f"e3b: numbers were not finite {resets:g} times an update, and what an episode had met "
            f"was forgotten; raise ridge from {self.ridge:g}"
        ]

    def _of_positions(
        self, state: E3BState, rollout: Rollout
    ) -> tuple[E3BState, Float[Array, "T N"], Metrics]:
        assert isinstance(rollout.visits, dict)
        visit: Visit = rollout.visits["position"]
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
    """E3B for an environment.

    Args:
        env: the environment.
        embedding, ridge, credit, zero_first: as in `E3B`.
        fields: those of the dynamics, such as `num_features`.
    """
    own = {"encoder": encoders.encoder_for(env), "normalize": True}
    return E3B(Dynamics(env, **{**own, **fields}), embedding, ridge, credit, zero_first)


def tiny(env: LevelEnv) -> E3B:
    """Return the smallest instance, for the law tests."""
    training = Training(share=0.5, num_minibatches=2)
    encoder = encoders.encoder_for(env, 8)
    return build(env, encoder=encoder, num_features=4, hidden=8, training=training)
