"""ICM curiosity bonus: error in predicting the learned features of the next observation.

    b = ‖F(φ(s), a) − φ(s')‖

The features φ are learned by an inverse dynamics model: from the features of two consecutive
observations, it predicts the action between them. The forward model F predicts the features of the
next observation. A step that ends an episode has bonus 0.

Source: Pathak et al., 2017, "Curiosity-driven Exploration by Self-supervised Prediction". The norm
is not squared, and the weights of the losses are 1 (forward) and 0.1 (inverse), as in the code of
Henaff et al., 2022, "Exploration via Elliptical Episodic Bonuses".
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.bonuses import encoders
from rlgen.algos.bonuses.dynamics import Dynamics
from rlgen.algos.bonuses.training import Fit, Training
from rlgen.protocols import Bonus, LevelEnv
from rlgen.types import Key, Metrics, Rollout

__all__ = ["ICM", "build", "tiny"]


@dataclass(frozen=True)
class ICM(Bonus):
    """Bonus from the error of a forward model, trained over the whole run and shared by all slots.

    Attributes:
        dynamics: Feature encoder, inverse model and forward model.

    Raises:
        ValueError: If `dynamics` has no forward model.
    """

    dynamics: Dynamics

    def __post_init__(self):
        if self.dynamics.forward_coef == 0:
            raise ValueError("icm: dynamics.forward_coef must be above 0; 1 is usual")

    @property
    def pairs(self) -> bool:
        """True: the bonus of a step depends on the next observation."""
        return True

    def init(self, key: Key, num_slots: int) -> Fit:
        """Return untrained networks; there is no state per slot."""
        del num_slots
        return self.dynamics.init(key)

    def apply(
        self, key: Key, state: Fit, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[Fit, Float[Array, "T N"], Metrics]:
        """See `rlgen.protocols.Bonus`."""
        seen = self.dynamics.look(state.params, rollout)
        num_slots = rollout.first.shape[1]
        # Rows are ordered by time. All rows but the last N are features before a step, and all rows
        # but the first N are features after a step.
        error = self.dynamics.forward_error(
            state.params, seen.phi[:-num_slots], seen.phi[num_slots:], seen.action.reshape(-1)
        )
        # If a step ended an episode, row i + N is the first observation of the next episode.
        bonus = jnp.where(rollout.done, 0.0, error.reshape(rollout.done.shape))
        # The models are trained after the error was measured. If the models were trained first, the
        # observations of this rollout would look familiar.
        state, metrics = self.dynamics.learn(key, state, seen, weight)
        return state, bonus, metrics


def build(env: LevelEnv, inverse_coef: float = 0.1, forward_coef: float = 1.0, **fields) -> ICM:
    """Return ICM with networks for an environment; `fields` are those of `Dynamics`."""
    encoder = fields.pop("encoder", None) or encoders.encoder_for(env)
    coefs = {"inverse_coef": inverse_coef, "forward_coef": forward_coef}
    return ICM(Dynamics(env, encoder, **coefs, **fields))


def tiny(env: LevelEnv) -> ICM:
    """Return the smallest instance, for the tests in `tests/laws`."""
    training = Training(share=0.5, num_minibatches=2)
    encoder = encoders.encoder_for(env, 8)
    return build(env, encoder=encoder, num_features=4, hidden=8, training=training)
