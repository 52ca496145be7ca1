"""Random network distillation (RND): error in predicting a random network on the next observation.

Source: Burda et al., 2019, "Exploration by Random Network Distillation"; as one factor of a
product: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration
in Contextual MDPs", whose code uses the unsquared norm as the bonus. Differs from that code in two
ways. The predictor there minimises the unsquared norm; here it minimises the squared norm, as in
the first source, because the gradient of the unsquared norm does not shrink with the error. A step
that ends an episode is rewarded there for the first state of the next one; here its bonus is 0.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import encoders
from rlgen.algos.bonuses.training import Fit, Training
from rlgen.protocols import Approximator, Bonus, LevelEnv
from rlgen.types import Key, Metrics, PyTree, Rollout

__all__ = ["RND", "VARIANTS", "Judged", "RNDState", "build", "tiny"]

NORMS = ("l2", "sq")
VARIANTS: dict[str, dict] = {"squared": {"norm": "sq"}}


class RNDState(NamedTuple):
    """Predictor, which is trained, and random target network, which is fixed."""

    fit: Fit
    target: PyTree


class Judged(NamedTuple):
    """Novelty of a rollout's observations, and the data on which the predictor is trained."""

    novelty: Float[Array, "T+1 N"]
    target: Float[Array, "(T+1)*N K"]  # outputs of the target network
    obs: PyTree  # [(T + 1) N, ...]


@dataclass(frozen=True)
class RND(Bonus):
    """Novelty with respect to the whole run; the predictor is shared by all slots.

    Observations are not whitened, because those of grids are binary. The predictor is trained on
    all observations that were acted on, including the first ones of episodes.

    Attributes:
        net: Architecture of the predictor and the target.
        num_outputs: Number K of outputs of both networks.
        norm: Bonus: `l2`, the norm of the prediction error, or `sq`, its square.
        training: Training of the predictor.

    Raises:
        ValueError: If `norm` is unknown, `num_outputs` is below 1, or `net` does not fit the
            observations.
    """

    env: LevelEnv
    net: Approximator
    num_outputs: int = 64
    norm: Literal["l2", "sq"] = "l2"
    training: Training = field(default_factory=Training)

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"rnd: norm={self.norm!r} is not one of {', '.join(NORMS)}")
        if self.num_outputs < 1:
            raise ValueError(f"rnd: num_outputs must be at least 1, got {self.num_outputs}")
        self.net.check(self.env)

    @property
    def pairs(self) -> bool:
        """True: the bonus of a step depends on the next observation."""
        return True

    def init(self, key: Key, num_slots: int) -> RNDState:
        """Return two independently initialised networks; there is no state per slot."""
        del num_slots
        # Independent keys: with equal networks every error would be 0.
        params, target = (
            self.net.init(key, self.env, self.num_outputs) for key in jax.random.split(key)
        )
        return RNDState(self.training.begin(params), target)

    def apply(
        self, key: Key, state: RNDState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[RNDState, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        judged = self.judge(state, rollout)
        state, metrics = self.learn(key, state, judged, weight)
        return state, jnp.where(rollout.done, 0.0, judged.novelty[1:]), metrics

    def judge(self, state: RNDState, rollout: Rollout) -> Judged:
        """Return the novelty of each observation, including the one after the last step."""
        obs = encoders.every_obs(rollout)
        target = self.net.apply(self.env, state.target, obs)
        error = ((self.net.apply(self.env, state.fit.params, obs) - target) ** 2).sum(1)
        # No gradient passes here, so sqrt needs no guard at 0.
        novelty = error if self.norm == "sq" else jnp.sqrt(error)
        return Judged(novelty.reshape(-1, rollout.first.shape[1]), target, obs)

    def learn(
        self, key: Key, state: RNDState, judged: Judged, weight: Float[Array, " N"]
    ) -> tuple[RNDState, Metrics]:
        """Train the predictor on the observations acted on in slots of positive weight."""

        def loss(params: PyTree, rows: Array) -> tuple[Array, dict[str, Array]]:
            found = self.net.apply(self.env, params, encoders.take(judged.obs, rows))
            # A mean over K, whereas the bonus is a sum: the scale of the loss does not depend on K.
            error = ((found - judged.target[rows]) ** 2).mean(1)
            return error, {"rnd_loss": error}

        # Rows beyond these T N, the observations after the last step, open the next rollout and
        # are trained on then.
        num_steps = judged.novelty.shape[0] - 1
        valid = jnp.tile(weight > 0, num_steps)
        fit, metrics = self.training.run(key, state.fit, loss, valid)
        return state._replace(fit=fit), metrics


def build(env: LevelEnv, **fields) -> RND:
    """Return RND with networks for an environment."""
    return RND(env, **{"net": encoders.encoder_for(env), **fields})


def tiny(env: LevelEnv) -> RND:
    """Return the smallest instance, for the law tests."""
    training = Training(share=0.5, num_minibatches=2)
    return RND(env, encoders.encoder_for(env, 8), num_outputs=4, training=training)
