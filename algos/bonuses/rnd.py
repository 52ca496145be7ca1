"""Random network distillation: how badly a network predicts a random one on what a step led to.

Source: Burda et al., 2019, "Exploration by Random Network Distillation"; as one factor of a
product, Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration
in Contextual MDPs", whose code pays the unsquared norm. That code also trains on it; here the
squared norm is trained on, as the source has it, since the gradient of the other does not shrink
with the error. It also pays a step that ends an episode for the next one's first state; here, 0.
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
    """The predictor, which learns, and its target, which never does."""

    fit: Fit
    target: PyTree


class Judged(NamedTuple):
    """How new each observation of a rollout is, and what it takes to learn from them."""

    novelty: Float[Array, "T+1 N"]
    target: Float[Array, "(T+1)*N K"]  # outputs of the target network
    obs: PyTree  # [(T + 1) N, ...]


@dataclass(frozen=True)
class RND(Bonus):
    """Novelty over a whole run, shared by all slots.

    Observations are not whitened: those of grids are bits. All that are acted on are learned from,
    first ones of episodes included.

    Attributes:
        net: the kind of both networks.
        num_outputs: K, their outputs.
        norm: what is paid, `l2`, the norm of the error, or `sq`, its square.
        training: how the predictor learns.

    Raises:
        ValueError: an unknown norm, less than one output, or a net that the observations do not
            fit.
    """

    env: LevelEnv
    net: Approximator
    num_outputs: int = 64
    norm: Literal["l2", "sq"] = "l2"
    training: Training = field(default_factory=Training)

    def __post_init__(self):
        if self.norm not in NORMS:
            raise ValueError(f"rnd: norm={self.norm!r} is none of {', '.join(NORMS)}")
        if self.num_outputs < 1:
            raise ValueError(f"rnd: num_outputs must be at least 1, got {self.num_outputs}")
        self.net.check(self.env)

    @property
    def pairs(self) -> bool:
        """It judges what a step led to."""
        return True

    def init(self, key: Key, num_slots: int) -> RNDState:
        """Two networks apart; slots have nothing of their own."""
        del num_slots
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
        """How new each observation is, the one after the last step included."""
        obs = encoders.every_obs(rollout)
        target = self.net.apply(self.env, state.target, obs)
        error = ((self.net.apply(self.env, state.fit.params, obs) - target) ** 2).sum(1)
        novelty = error if self.norm == "sq" else jnp.sqrt(error)
        return Judged(novelty.reshape(-1, rollout.first.shape[1]), target, obs)

    def learn(
        self, key: Key, state: RNDState, judged: Judged, weight: Float[Array, " N"]
    ) -> tuple[RNDState, Metrics]:
        """Bring the predictor nearer to its target, on what was acted on in slots with weight."""

        def loss(params: PyTree, rows: Array) -> tuple[Array, dict[str, Array]]:
            found = self.net.apply(self.env, params, encoders.take(judged.obs, rows))
            error = ((found - judged.target[rows]) ** 2).mean(1)
            return error, {"rnd_loss": error}

        num_steps = judged.novelty.shape[0] - 1
        valid = jnp.tile(weight > 0, num_steps)
        fit, metrics = self.training.run(key, state.fit, loss, valid)
        return state._replace(fit=fit), metrics


def build(env: LevelEnv, **fields) -> RND:
    """Networks that suit an environment."""
    return RND(env, **{"net": encoders.encoder_for(env), **fields})


def tiny(env: LevelEnv) -> RND:
    """Return the smallest instance, for the law tests."""
    training = Training(share=0.5, num_minibatches=2)
    return RND(env, encoders.encoder_for(env, 8), num_outputs=4, training=training)
