"""Observation features learned by an inverse dynamics model, with an optional forward model.

From the features of two consecutive observations, the inverse model predicts the action between
them. From the features of an observation and the action, the forward model predicts the features of
the next observation.

Source: Pathak et al., 2017, "Curiosity-driven Exploration by Self-supervised Prediction", 2.2. The
forward error is a norm that is not squared, as in the code of Henaff et al., 2022, "Exploration via
Elliptical Episodic Bonuses". That code also trains on pairs that consist of the last observation of
one episode and the first observation of the next. Here, such pairs are excluded.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.bonuses import encoders
from rlgen.algos.bonuses.training import Fit, Training
from rlgen.protocols import Approximator, LevelEnv, check_numbers
from rlgen.types import Key, Metrics, PyTree, Rollout


class Seen(NamedTuple):
    """Observations of a rollout and their features φ, as M rows.

    Rows are ordered by time. The next observation of the same slot, after row i, is row i + N.
    """

    obs: PyTree  # [M, ...], M = (T + 1) N, or T N without the observation after the last step
    phi: Float[Array, "M d"]
    action: Int[Array, "T N"]
    done: Bool[Array, "T N"]

    @property
    def num_pairs(self) -> int:
        """Number of steps whose next observation is recorded, even if it starts a new episode."""
        return self.phi.shape[0] - self.action.shape[1]


@dataclass(frozen=True)
class Dynamics:
    """An encoder φ, an inverse model (φ, φ') → action and a forward model (φ, action) → φ'.

    φ are the features of an observation, and φ' those of the next observation.

    Attributes:
        encoder: Network that computes φ.
        num_features: Dimension d of φ.
        hidden: Units in the hidden layer of the inverse and the forward model.
        normalize: Whether a LayerNorm without parameters normalises φ to mean 0 and squared norm d.
        inverse_coef: Weight of the inverse model's cross-entropy.
        forward_coef: Weight of the forward model's error, which is an unsquared norm; 0 removes
            the forward model.
        train_through: Whether the forward model's error also trains the encoder.
        training: Training of all networks. Each sampled step needs two encoded observations, so
            `share=0.125` costs as much here as `share=0.25` in `rnd`.

    Raises:
        ValueError: If a field is out of range, or the encoder does not fit the observations.
    """

    env: LevelEnv
    encoder: Approximator
    num_features: int = 64
    hidden: int = 256
    normalize: bool = False
    inverse_coef: float = 1.0
    forward_coef: float = 0.0
    train_through: bool = True
    training: Training = field(default_factory=lambda: Training(share=0.125))

    def __post_init__(self):
        check_numbers(self, "num_features", "hidden", least=1, owner="dynamics.")
        check_numbers(self, "inverse_coef", "forward_coef", least=0, owner="dynamics.")
        self.encoder.check(self.env)

    def init(self, key: Key) -> Fit:
        """Return untrained networks."""
        key_encoder, key_inverse, key_forward = jax.random.split(key, 3)
        num_actions, d = self.env.num_actions, self.num_features
        params = {
            "encoder": self.encoder.init(key_encoder, self.env, d),
            "inverse": encoders.head(key_inverse, (2 * d, self.hidden, num_actions)),
        }
        if self.forward_coef > 0:
            sizes = (d + num_actions, self.hidden, d)
            params["forward"] = encoders.head(key_forward, sizes)
        return self.training.begin(params)

    def encode(self, params: PyTree, obs: PyTree) -> Float[Array, "B d"]:
        """Return φ of observations [B, ...]."""
        phi = self.encoder.apply(self.env, params["encoder"], obs)
        return encoders.layer_norm(phi) if self.normalize else phi

    def look(self, params: PyTree, rollout: Rollout) -> Seen:
        """Encode all observations of a rollout in one call."""
        obs = encoders.every_obs(rollout)
        return Seen(obs, self.encode(params, obs), rollout.action, rollout.done)

    def forward_error(
        self, params: PyTree, phi: Float[Array, "B d"], after: Float[Array, "B d"], action: Array
    ) -> Float[Array, " B"]:
        """Return the forward model's prediction error, ‖φ̂' − φ'‖."""
        taken = jax.nn.one_hot(action, self.env.num_actions)
        # F(φ, a) of Pathak et al., with the action as a one-hot vector.
        guess = encoders.apply_head(params["forward"], jnp.concatenate([phi, taken], 1))
        return encoders.length(guess - after)

    def learn(
        self, key: Key, fit: Fit, seen: Seen, weight: Float[Array, " N"]
    ) -> tuple[Fit, Metrics]:
        """Train on random steps with a known next observation, in slots with weight above 0."""
        num = seen.num_pairs
        # Without `last_obs`, the observations after the last step are not recorded, so `num`
        # excludes the N rows of that step.
        valid = (~seen.done & (weight > 0)[None]).reshape(-1)[:num]
        action = seen.action.reshape(-1)

        def loss(params: PyTree, rows: Array) -> tuple[Array, dict[str, Array]]:
            return self._loss(params, seen, rows, action[rows])

        return self.training.run(key, fit, loss, valid)

    def _loss(
        self, params: PyTree, seen: Seen, rows: Int[Array, " B"], action: Int[Array, " B"]
    ) -> tuple[Float[Array, " B"], dict[str, Array]]:
        # One encoder call computes φ(s) and φ(s'). The next observation of row i is row i + N.
        # `seen.phi` cannot be used here, because every gradient step changes `params`, on which
        # `seen.phi` does not depend.
        both = jnp.concatenate([rows, rows + seen.action.shape[1]])
        phi, after = jnp.split(self.encode(params, encoders.take(seen.obs, both)), 2)
        logits = encoders.apply_head(params["inverse"], jnp.concatenate([phi, after], 1))
        # -log p(a | φ(s), φ(s')), which trains φ to encode what actions change.
        inverse = optax.softmax_cross_entropy_with_integer_labels(logits, action)
        told = {
            "inverse_loss": inverse,
            "inverse_accuracy": (logits.argmax(1) == action).astype(jnp.float32),
        }
        if self.forward_coef == 0:
            return self.inverse_coef * inverse, told
        # Without a gradient through φ and φ', only the inverse model trains the encoder.
        if not self.train_through:
            phi, after = jax.lax.stop_gradient((phi, after))
        forward = self.forward_error(params, phi, after, action)
        told["forward_loss"] = forward
        return self.inverse_coef * inverse + self.forward_coef * forward, told
