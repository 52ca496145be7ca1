"""Networks of learned rules, and the encoding of an agent's lifetime.

`Rule` computes the targets of an agent's policy and predictions; `Drift` computes a PPO agent's
penalty for deviating from the policy that collected the data.

In mirror learning a policy maximises the mean of ρ A - drift(ρ, A), where ρ = π/π_old and A is the
advantage. Policy improvement is guaranteed for any drift that is never negative and that is 0, with
zero gradient, at ρ = 1. PPO's clipping is one such drift; `Drift` is a learned one.

Sources of the rule: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), section
3. Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial
Environment Design" (GROOVE), uses a GRU in the released code and no discount input. Jackson et al.,
2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms" (TA-LPG), adds the clock.
Sources of the drift: Kuba et al., 2022, "Mirror Learning: A Unifying Framework of Policy
Optimisation"; Lu et al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024
(TA-LPO).

Sign convention: the agent *ascends* π̂ log π, as in the papers. The code of GROOVE descends it, so
a π̂ trained there has the opposite sign.
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
    """Inputs of the rule for T steps of B workers; the workers of an agent are adjacent in B."""

    reward: Float[Array, "T B"]
    done: Bool[Array, "T B"]  # the episode ended with this step, by termination or truncation
    action_prob: Float[Array, "T B"]  # π(a|s) of the action taken, under the current policy
    prediction: Float[Array, "T B m"]  # y(s), probabilities
    next_prediction: Float[Array, "T B m"]  # y(s'); ignored where done
    discount: Float[Array, "T B"]  # γ of the agent
    life_used: Float[Array, "T B"] | tuple[()] = ()  # n/N, the share of the lifetime that is used
    log_horizon: Float[Array, "T B"] | tuple[()] = ()  # encoded N; see the function `log_horizon`


class Targets(NamedTuple):
    """Targets of the rule for T steps of B workers."""

    policy: Float[Array, "T B"]  # π̂, unbounded: positive makes the action likelier
    # Logarithms, so that KL(y ‖ ŷ) never takes the logarithm of a probability that rounds to 0.
    log_prediction: Float[Array, "T B m"]  # log ŷ, normalised


@dataclass(frozen=True)
class Rule(RuleNet):
    """Sizes of the network U_η; its parameters are passed separately.

    A recurrent core reads the steps from last to first. Its state is reset before every step that
    ended an episode, so steps after the end of an episode do not influence the targets within it.
    A small embedding maps each prediction to a scalar, y → φ(y).

    Attributes:
        core: Recurrent core: `gru`, as in GROOVE's code, or `lstm`, as in the papers.
        hidden_size: Units of the core.
        num_predictions: Categories m of the agents' prediction y; 30 in LPG, 8 in GROOVE's code.
        embedding_size: Hidden units of the embedding φ.
        discount_input: Whether the agent's discount is an input.
        clock: Whether the used share n/N of the agent's lifetime and the encoded log N are inputs;
            both are constant over a rollout.

    Raises:
        ValueError: If the core is unknown or a size is out of range.
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
        """Return the parameters of an untrained rule.

        A GRU of 256 units with 8 predictions and no discount input has 203,946 parameters, as in
        GROOVE. There are 204,714 by default, and 206,250 with the clock.
        """
        key_hidden, key_out, key_inputs, key_recurrent, key_heads = jax.random.split(key, 5)
        size, num_gates = self.hidden_size, 3 if self.core == "gru" else 4
        # r, d, π(a|s), φ(y) and φ(y'), then the optional ones.
        num_inputs = 5 + self.discount_input + 2 * self.clock
        # One orthogonal matrix per gate, as in flax's cells.
        gates = [orthogonal()(k, (size, size)) for k in jax.random.split(key_recurrent, num_gates)]
        core = {
            "inputs": _lecun(key_inputs, num_inputs, num_gates * size),
            "recurrent": jnp.concatenate(gates, axis=-1),
            "bias": jnp.zeros(num_gates * size),
        }
        if self.core == "gru":
            # Only the candidate state has a bias that the reset gate multiplies.
            core["recurrent_bias"] = jnp.zeros(size)
        return {
            "embed_hidden": _dense(key_hidden, self.num_predictions, self.embedding_size),
            "embed_out": _dense(key_out, self.embedding_size, 1),
            "core": core,
            "heads": _dense(key_heads, size, 1 + self.num_predictions),  # π̂, then the logits of ŷ
        }

    def __call__(self, params: PyTree, inputs: RuleInputs) -> Targets:
        """Compute the targets of every step.

        Workers are independent of each other, so the agents of a whole population can be passed as
        one batch; the gradient of each weight is then a single product over all of them. A `vmap`
        over agents computes equal targets, but a separate gradient per agent.

        Args:
            params: Parameters from `init`.
            inputs: Inputs [T, B].
        """
        # Both time axes are flipped: the core scans backwards, and `done` resets its state first.
        x = self._features(params, inputs)
        if self.core == "gru":
            start = gru_zeros(x.shape[1], self.hidden_size)
            _, hidden = gru(GRUWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        else:
            start = lstm_zeros(x.shape[1], self.hidden_size)
            _, hidden = lstm(LSTMWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        # The core stores its hidden states for the backward pass. Storing their rectified copy too
        # would take a fifth of all memory and save very little arithmetic, hence the checkpoint.
        out = jax.checkpoint(_heads)(params["heads"], hidden)[::-1]
        return Targets(out[..., 0], jax.nn.log_softmax(out[..., 1:]))

    def _features(self, params: PyTree, inputs: RuleInputs) -> Float[Array, "T B I"]:
        def embed(y: Float[Array, "T B m"]) -> Float[Array, "T B"]:
            hidden = jax.nn.relu(_affine(params["embed_hidden"], y))
            return _affine(params["embed_out"], hidden)[..., 0]

        # Masked after the embedding, whose biases would turn a masked y(s') into another number.
        following = jnp.where(inputs.done, 0.0, embed(inputs.next_prediction))
        # Reward and probability enter unscaled, as in LPG.
        features = [inputs.reward, inputs.done.astype(jnp.float32)]
        features += [inputs.discount] if self.discount_input else []
        features += [inputs.action_prob, embed(inputs.prediction), following]
        # The order of the features is part of the file format of rules.
        clock: Any = [inputs.life_used, inputs.log_horizon]  # () without a clock
        return jnp.stack(features + (clock if self.clock else []), axis=-1)


MARGIN = 1e-4
"""Network outputs within this distance of 0 are set to 0, so the drift is 0 near a ratio of 1."""


@dataclass(frozen=True)
class Drift(RuleNet):
    """Sizes of the drift network, which has no biases; its parameters are passed separately.

    The features are l = log ρ, l², 1 - ρ, (1 - ρ)², and A times each of them; all are 0 at ρ = 1.
    With a clock, the same eight features multiplied by n/N are added. log N is not an input because
    it would not vanish at ρ = 1.

    Attributes:
        hidden_size: Units of the hidden layer.
        on_clipping: Whether PPO's clipping drift is added to the network's output, and the output
            layer is initialised to 0, so that the search starts from PPO.
        clip: Clipping range ε of that drift.
        clock: Whether the drift depends on the used share n/N of the agent's lifetime.

    Raises:
        ValueError: If `hidden_size` is below 1 or `clip` is not above 0.

    Differs from the released code, which subtracts the margin from the sum of the network's output
    and PPO's drift, so that the drift is smaller than PPO's. Here the margin shrinks the network's
    output towards 0 on both sides, before the sum.
    """

    hidden_size: int = 128
    on_clipping: bool = True
    clip: float = 0.2
    clock: bool = False

    is_even = True
    """Parameters p and -p define the same drift, because tanh is odd and no layer has a bias."""

    def __post_init__(self):
        if self.hidden_size < 1:
            raise ValueError(f"a drift's hidden_size must be at least 1, got {self.hidden_size}")
        if not self.clip > 0:
            raise ValueError(f"a drift's clip must be above 0, got {self.clip}")

    def init(self, key: Key) -> PyTree:
        """Return initial parameters: 1,152 by default, 2,176 with a clock, as in the papers."""
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
        """Compute the drift of every step, which is at least 0.

        Args:
            params: Parameters from `init`.
            log_ratio: Logarithm of the importance ratio, log ρ.
            advantage: Normalised advantage A.
            life_used: Used share n/N of the agent's lifetime; ignored without a clock.
        """
        ratio = jnp.exp(log_ratio)
        own = [log_ratio, log_ratio**2, 1 - ratio, (1 - ratio) ** 2]
        features = jnp.stack([*own, *(advantage * x for x in own)], axis=-1)
        if self.clock:
            features = jnp.concatenate([features, life_used * features], axis=-1)
        # The last axis is removed before the sum below, since [B, 1] + [B] would be [B, B].
        out = (jnp.tanh(features @ params["hidden"]) @ params["out"])[..., 0]
        # At ρ = 1 the output is 0 but its slope is not; the dead zone makes the gradient 0 as well.
        out = jnp.sign(out) * jax.nn.relu(jnp.abs(out) - MARGIN)
        if self.on_clipping:
            # Where the network lowers PPO's drift below 0, the last ReLU returns 0.
            out += clipping_drift(ratio, advantage, self.clip)
        return jax.nn.relu(out)


def clipping_drift(
    ratio: Float[Array, "*B"], advantage: Float[Array, "*B"], clip: float
) -> Float[Array, "*B"]:
    """PPO's drift: the amount by which ρ A exceeds its clipped value, or 0.

    Source: Schulman et al., 2017, "Proximal Policy Optimization Algorithms", equation 7, written as
    a drift.
    """
    # ρ A - min(ρ A, clip(ρ) A) = relu((ρ - clip(ρ)) A).
    return jax.nn.relu((ratio - jnp.clip(ratio, 1 - clip, 1 + clip)) * advantage)


MIDDLE_HORIZON, HORIZON_SPREAD = 50.0, 5.0
"""Constants by which lifetimes of 10, 50 and 250 updates are encoded as -1, 0 and 1."""


def log_horizon(lifetime: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Encode a lifetime N, in updates, as a rule's input: log(N / 50) / log 5.

    The value ranges from -1 to 1 for 10 to 250 updates, the lifetimes in TA-LPG's training, and is
    2.4 for 2,500. Differs from the released code, where the inputs are named relative and
    logarithmic but are raw counts.
    """
    # Independent of n: unlike n/N, it distinguishes short lifetimes from long ones.
    return jnp.log(lifetime / MIDDLE_HORIZON) / jnp.log(HORIZON_SPREAD)


def known_lifetime(clock: bool, num_updates: int) -> int:
    """Return the lifetime given by a learner's field `num_updates`, at least 1.

    Raises:
        ValueError: If `num_updates` is 0 and the rule has a clock.
    """
    if clock and not num_updates:
        raise ValueError(
            "the rule has a clock, which needs the agent's lifetime: set num_updates to the number "
            "of updates in the lifetime"
        )
    # Without a clock the value is irrelevant, but n/N must not divide by 0.
    return max(num_updates, 1)


def _heads(layer: dict[str, Array], hidden: Float[Array, "T B H"]) -> Float[Array, "T B O"]:
    return _affine(layer, jax.nn.relu(hidden))


def _dense(key: Key, num_inputs: int, num_outputs: int) -> dict[str, Array]:
    return {"kernel": _lecun(key, num_inputs, num_outputs), "bias": jnp.zeros(num_outputs)}


def _lecun(key: Key, num_inputs: int, num_outputs: int) -> Float[Array, "I O"]:
    return jax.nn.initializers.lecun_normal()(key, (num_inputs, num_outputs), jnp.float32)


def _affine(layer: dict[str, Array], x: Float[Array, "T B I"]) -> Float[Array, "T B O"]:
    return x @ layer["kernel"] + layer["bias"][None, None]
