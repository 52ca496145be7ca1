"""The networks of learned rules, and how they see an agent's lifetime.

`Rule` gives an agent the targets of its policy and its predictions; `Drift` gives a PPO agent the
cost of moving away from the policy that collected the data.

In mirror learning a policy maximises the mean of ρ A - drift(ρ, A), where ρ = π/π_old and A is the
advantage. Any drift that is never negative and, at ρ = 1, is 0 with its gradient keeps the promise
that the policy improves. PPO's clipping is one such drift; `Drift` is a learned one.

Sources of the rule: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), section
3. Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial
Environment Design" (GROOVE), has a GRU in the released code, and no discount among the inputs.
Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms" (TA-LPG),
adds the clock. Sources of the drift: Kuba et al., 2022, "Mirror Learning: A Unifying Framework of
Policy Optimisation"; Lu et al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024
(TA-LPO).

Sign: the agent *ascends* π̂ log π, as the papers write. The code of GROOVE descends it, so that a
π̂ trained there has the opposite sign.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.nn.layers import (
    GRUWeights,
    LSTMWeights,
    gru,
    gru_zeros,
    lstm,
    lstm_zeros,
    orthogonal,
)
from rlgen.protocols import RuleNet
from rlgen.types import Key, PyTree

CORES = ("gru", "lstm")


class RuleInputs(NamedTuple):
    """What the rule sees of T steps of B workers; an agent's workers stand side by side in B."""

    reward: Float[Array, "T B"]
    done: Bool[Array, "T B"]  # the episode ended with this step, however it did
    action_prob: Float[Array, "T B"]  # π(a|s) of the action taken, under the present policy
    prediction: Float[Array, "T B m"]  # y(s), probabilities
    next_prediction: Float[Array, "T B m"]  # y(s'); not read where done
    discount: Float[Array, "T B"]  # γ, of the agent
    life_used: Float[Array, "T B"] | tuple[()] = ()  # n/N, updates done of those in the life
    log_horizon: Float[Array, "T B"] | tuple[()] = ()  # of N, see `log_horizon`


class Targets(NamedTuple):
    """What the rule says to T steps of B workers."""

    policy: Float[Array, "T B"]  # π̂, unbounded: positive makes the action likelier
    log_prediction: Float[Array, "T B m"]  # log ŷ, normalised


@dataclass(frozen=True)
class Rule(RuleNet):
    """The network U_η. Its parameters stand apart; these are its sizes.

    A recurrent core reads the steps from last to first and begins anew before every step that ended
    an episode, so that nothing after an episode's end says anything about it. Predictions are read
    through one small embedding, y → φ(y), a number.

    Attributes:
        core: `gru`, as in GROOVE's code, or `lstm`, as in the papers.
        hidden_size: units of the core.
        num_predictions: m, categories of the agents' prediction y; 30 in LPG, 8 in GROOVE's code.
        embedding_size: hidden units of φ.
        discount_input: whether the rule sees the agent's discount.
        clock: whether the rule sees which part of its life the agent has lived, n/N, and how long
            the life is, log N; both stay the same all through a rollout.

    Raises:
        ValueError: an unknown core, or a size out of range.
    """

    core: Literal["gru", "lstm"] = "gru"
    hidden_size: int = 256
    num_predictions: int = 8
    embedding_size: int = 16
    discount_input: bool = True
    clock: bool = False

    def __post_init__(self):
        if self.core not in CORES:
            raise ValueError(f"a rule's core must be 'gru' or 'lstm', got {self.core!r}")
        for name, least in (("hidden_size", 1), ("num_predictions", 2), ("embedding_size", 1)):
            if getattr(self, name) < least:
                value = getattr(self, name)
                raise ValueError(f"a rule's {name} must be at least {least}, got {value}")

    def init(self, key: Key) -> PyTree:
        """Parameters of an untrained rule.

        With a GRU of 256 units, 8 predictions and no discount there are 203,946 of them, as many
        as in GROOVE; 204,714 by default, and 206,250 with the clock.
        """
        key_hidden, key_out, key_inputs, key_recurrent, key_heads = jax.random.split(key, 5)
        size, num_gates = self.hidden_size, 3 if self.core == "gru" else 4
        num_inputs = 5 + self.discount_input + 2 * self.clock
        gates = [orthogonal()(k, (size, size)) for k in jax.random.split(key_recurrent, num_gates)]
        core = {
            "inputs": _lecun(key_inputs, num_inputs, num_gates * size),
            "recurrent": jnp.concatenate(gates, axis=-1),
            "bias": jnp.zeros(num_gates * size),
        }
        if self.core == "gru":
            core["recurrent_bias"] = jnp.zeros(size)
        return {
            "embed_hidden": _dense(key_hidden, self.num_predictions, self.embedding_size),
            "embed_out": _dense(key_out, self.embedding_size, 1),
            "core": core,
            "heads": _dense(key_heads, size, 1 + self.num_predictions),  # π̂, then the logits of ŷ
        }

    def __call__(self, params: PyTree, inputs: RuleInputs) -> Targets:
        """Targets of every step.

        Workers do not see each other, so the agents of a whole population go in as one batch: then
        the gradient of each weight is a single product over all of them. A `vmap` over agents gives
        the same targets, and with a gradient apiece.

        Args:
            params: from `init`.
            inputs: [T, B].
        """
        x = self._features(params, inputs)
        if self.core == "gru":
            start = gru_zeros(x.shape[1], self.hidden_size)
            _, hidden = gru(GRUWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        else:
            start = lstm_zeros(x.shape[1], self.hidden_size)
            _, hidden = lstm(LSTMWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        # The core keeps its hidden states for the backward pass. Keeping them rectified as well
        # would be a fifth of all memory, to save arithmetic that costs nothing.
        out = jax.checkpoint(_heads)(params["heads"], hidden)[::-1]
        return Targets(out[..., 0], jax.nn.log_softmax(out[..., 1:]))

    def _features(self, params: PyTree, inputs: RuleInputs) -> Float[Array, "T B I"]:
        def embed(y: Float[Array, "T B m"]) -> Float[Array, "T B"]:
            hidden = jax.nn.relu(_affine(params["embed_hidden"], y))
            return _affine(params["embed_out"], hidden)[..., 0]

        following = jnp.where(inputs.done, 0.0, embed(inputs.next_prediction))
        features = [inputs.reward, inputs.done.astype(jnp.float32)]
        features += [inputs.discount] if self.discount_input else []
        features += [inputs.action_prob, embed(inputs.prediction), following]
        clock: Any = [inputs.life_used, inputs.log_horizon]  # () where there is none
        return jnp.stack(features + (clock if self.clock else []), axis=-1)


MARGIN = 1e-4
"""Outputs of the network nearer to 0 than this count as 0: no drift around a ratio of 1."""


@dataclass(frozen=True)
class Drift(RuleNet):
    """A network without biases, of features that are all 0 at ρ = 1. Its parameters stand apart.

    The features are l = log ρ, l², 1 - ρ, (1 - ρ)², and A times each of them. With a clock there
    are the same eight times n/N as well; log N would not vanish at ρ = 1.

    Attributes:
        hidden_size: units of the one hidden layer.
        on_clipping: add PPO's clipping to the network's output, and begin with a network whose
            output is 0: the search begins at PPO.
        clip: ε of that clipping.
        clock: whether the drift depends on the part of its life that the agent has lived.

    Raises:
        ValueError: a size below 1, or a clip that is not above 0.
    Differs from released code: the margin is taken off the network's output on both sides, not off
    the sum with PPO's drift, which it made smaller than PPO's.
    """

    hidden_size: int = 128
    on_clipping: bool = True
    clip: float = 0.2
    clock: bool = False

    is_even = True
    """Parameters p and -p are the same drift, as tanh is odd and no layer has a bias."""

    def __post_init__(self):
        if self.hidden_size < 1:
            raise ValueError(f"a drift's hidden_size must be at least 1, got {self.hidden_size}")
        if not self.clip > 0:
            raise ValueError(f"a drift's clip must be above 0, got {self.clip}")

    def init(self, key: Key) -> PyTree:
        """Parameters: 1,152 by default, 2,176 with a clock, as in the papers."""
        key_hidden, key_out = jax.random.split(key)
        lecun = jax.nn.initializers.lecun_normal()
        num_inputs = 16 if self.clock else 8
        hidden = lecun(key_hidden, (num_inputs, self.hidden_size), jnp.float32)
        if self.on_clipping:
            return {"hidden": hidden, "out": jnp.zeros((self.hidden_size, 1))}
        return {"hidden": hidden, "out": lecun(key_out, (self.hidden_size, 1), jnp.float32)}

    def __call__(
        self,
        params: PyTree,
        log_ratio: Float[Array, "*B"],
        advantage: Float[Array, "*B"],
        life_used: float | Float[Array, ""] = 0.0,
    ) -> Float[Array, "*B"]:
        """The drift of every step, 0 or more.

        Args:
            params: from `init`.
            log_ratio: log ρ.
            advantage: A, normalised.
            life_used: n/N, of the one agent; read with a clock only.
        """
        ratio = jnp.exp(log_ratio)
        own = [log_ratio, log_ratio**2, 1 - ratio, (1 - ratio) ** 2]
        features = jnp.stack([*own, *(advantage * x for x in own)], axis=-1)
        if self.clock:
            features = jnp.concatenate([features, life_used * features], axis=-1)
        # The last axis goes before anything is added: [B, 1] + [B] would be [B, B].
        out = (jnp.tanh(features @ params["hidden"]) @ params["out"])[..., 0]
        out = jnp.sign(out) * jax.nn.relu(jnp.abs(out) - MARGIN)
        if self.on_clipping:
            out += clipping_drift(ratio, advantage, self.clip)
        return jax.nn.relu(out)


def clipping_drift(
    ratio: Float[Array, "*B"], advantage: Float[Array, "*B"], clip: float
) -> Float[Array, "*B"]:
    """PPO's: what ρ A exceeds its clipped value by.

    Source: Schulman et al., 2017, "Proximal Policy Optimization Algorithms", equation 7, as a
    drift.
    """
    return jax.nn.relu((ratio - jnp.clip(ratio, 1 - clip, 1 + clip)) * advantage)


MIDDLE_HORIZON, HORIZON_SPREAD = 50.0, 5.0
"""Lives of 10, 50 and 250 updates are seen as -1, 0 and 1."""


def log_horizon(lifetime: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """A lifetime N, in updates, as a rule sees it: log(N / 50) / log 5.

    From -1 to 1 for 10 to 250 updates, the lifetimes of TA-LPG's training, and 2.4 for 2,500.
    Differs from released code, where the inputs bear such names but are the raw counts.
    """
    return jnp.log(lifetime / MIDDLE_HORIZON) / jnp.log(HORIZON_SPREAD)


def known_lifetime(clock: bool, num_updates: int) -> int:
    """The length of a life that nobody stated but the learner's own field.

    Raises:
        ValueError: a rule with a clock needs it, and it is 0.
    """
    if clock and not num_updates:
        raise ValueError(
            "the rule sees how much of an agent's life is over: set num_updates to the number of "
            "updates that the agent will have"
        )
    return max(num_updates, 1)


def _heads(layer: dict[str, Array], hidden: Float[Array, "T B H"]) -> Float[Array, "T B O"]:
    return _affine(layer, jax.nn.relu(hidden))


def _dense(key: Key, num_inputs: int, num_outputs: int) -> dict[str, Array]:
    return {"kernel": _lecun(key, num_inputs, num_outputs), "bias": jnp.zeros(num_outputs)}


def _lecun(key: Key, num_inputs: int, num_outputs: int) -> Float[Array, "I O"]:
    return jax.nn.initializers.lecun_normal()(key, (num_inputs, num_outputs), jnp.float32)


def _affine(layer: dict[str, Array], x: Float[Array, "T B I"]) -> Float[Array, "T B O"]:
    return x @ layer["kernel"] + layer["bias"][None, None]
