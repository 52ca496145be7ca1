"""Random network distillation (RND): error in predicting a random network's output.

A predictor network is trained to reproduce the outputs of a fixed, randomly initialised target
network. The bonus of a step is the predictor's error on the next observation.

Source: Burda et al., 2019, "Exploration by Random Network Distillation"; as a factor in a product
of bonuses: Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for
Exploration in Contextual MDPs". The bonus is the unsquared norm of the error, as in the code of
Henaff, Jiang and Raileanu. Differs from that code in two ways. In that code, the predictor
minimises the unsquared norm; here, it minimises the squared norm, as in Burda et al., because the
gradient of the unsquared norm does not shrink with the error. In that code, a step that ends an
episode is rewarded for the first state of the next episode; here, such a step has bonus 0.
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
    """Predictor with its optimiser state, and the fixed random target network."""

    fit: Fit
    target: PyTree


class Judged(NamedTuple):
    """Novelty of a rollout's observations, and the data on which the predictor is trained."""

    novelty: Float[Array, "T+1 N"]
    target: Float[Array, "(T+1)*N K"]  # outputs of the target network
    obs: PyTree  # [(T + 1) N, ...]


@dataclass(frozen=True)
class RND(Bonus):
    """Bonus for observations that are novel in the whole run; all slots share one predictor.

    Observations are not whitened, because the observations of grids are binary. The predictor is
    trained on all observations in which the agent acted, including the first of each episode.

    Attributes:
        net: Architecture of the predictor and of the target network.
        num_outputs: Number K of outputs of each network.
        norm: Kind of bonus. `l2`: norm of the prediction error. `sq`: squared norm.
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
        # Independent keys, because with equal networks every error would be 0.
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
        """Train the predictor on the observations before each step, in slots of weight above 0."""

        def loss(params: PyTree, rows: Array) -> tuple[Array, dict[str, Array]]:
            found = self.net.apply(self.env, params, encoders.take(judged.obs, rows))
            # The loss is a mean over the K outputs, so that its scale does not depend on K. The
            # bonus is computed from a sum over the outputs.
            error = ((found - judged.target[rows]) ** 2).mean(1)
            return error, {"rnd_loss": error}

        # The first T N rows are the observations before each step. The last N rows are the
        # observations after the last step. They are also the first observations of the next
        # rollout, which trains on them.
        num_steps = judged.novelty.shape[0] - 1
        valid = jnp.tile(weight > 0, num_steps)
        fit, metrics = self.training.run(key, state.fit, loss, valid)
        return state._replace(fit=fit), metrics


def build(env: LevelEnv, **fields) -> RND:
    """Return RND with networks for an environment."""
    return RND(env, **{"net": encoders.encoder_for(env), **fields})


def tiny(env: LevelEnv) -> RND:
    """Return the smallest instance, for the tests in `tests/laws`."""
    training = Training(share=0.5, num_minibatches=2)
    return RND(env, encoders.encoder_for(env, 8), num_outputs=4, training=training)
