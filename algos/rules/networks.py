"""Networks of learned rules, and the encoding of an agent's lifetime.

`Rule` computes a target π̂ for an agent's policy π and a target ŷ for the agent's prediction y. The
prediction is a vector of m probabilities that the agent outputs for each observation. The parallel
environments in which an agent plays are its workers. `Drift` computes a PPO agent's penalty for
deviating from the policy that collected the data. A clock consists of additional inputs: the used
fraction n/N of an agent's lifetime after n of N updates and, in a `Rule`, a scaled log N.

In mirror learning, a policy maximises the mean of ρ A - drift(ρ, A), where ρ = π/π_old and A is the
advantage. A drift guarantees policy improvement if it is never negative, is 0 at ρ = 1, and has
gradient 0 at ρ = 1. PPO's clipping is an example of a drift; `Drift` is a learned drift.

Sources of the rule: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), section
3; Jackson et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial
Environment Design" (GROOVE), whose code has a GRU and no discount input; Jackson et al., 2024,
"Discovering Temporally-Aware Reinforcement Learning Algorithms" (TA-LPG), for the clock.
Sources of the drift: Kuba et al., 2022, "Mirror Learning: A Unifying Framework of Policy
Optimisation"; Lu et al., 2022, "Discovered Policy Optimisation" (LPO); Jackson et al., 2024
(TA-LPO).

Sign convention: agents *maximise* π̂ log π, as in the papers. In the code released with GROOVE,
agents minimise π̂ log π, so a π̂ trained with that code has the opposite sign.
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
    """Inputs of the rule for T steps of B workers; on axis B, an agent's workers are adjacent."""

    reward: Float[Array, "T B"]
    done: Bool[Array, "T B"]  # whether the step terminated or truncated the episode
    action_prob: Float[Array, "T B"]  # π(a|s) of the chosen action, under the current policy
    prediction: Float[Array, "T B m"]  # y(s), probabilities
    next_prediction: Float[Array, "T B m"]  # y(s'); ignored where `done`
    discount: Float[Array, "T B"]  # γ of the agent
    life_used: Float[Array, "T B"] | tuple[()] = ()  # n/N, the used fraction of the lifetime
    log_horizon: Float[Array, "T B"] | tuple[()] = ()  # encoded N; see the function `log_horizon`


class Targets(NamedTuple):
    """Targets of the rule for T steps of B workers."""

    policy: Float[Array, "T B"]  # π̂, unbounded; a positive value makes the action likelier
    # Logarithms are stored because a probability may round to 0, which KL(y ‖ ŷ) cannot use.
    log_prediction: Float[Array, "T B m"]  # log ŷ, normalised


@dataclass(frozen=True)
class Rule(RuleNet):
    """Sizes of the rule's network U_η; the parameters η are passed separately.

    A recurrent core reads the steps from last to first. The state of the core is reset before the
    core reads a step that ended an episode. Steps after the end of an episode therefore do not
    influence the targets of the episode. A small embedding φ maps each prediction y to a scalar.

    Attributes:
        core: Recurrent core: `gru`, as in the code released with GROOVE, or `lstm`, as in the
            papers on LPG and GROOVE.
        hidden_size: Number of units of the core.
        num_predictions: Size m of the agents' prediction y; 30 in LPG, and 8 in the code released
            with GROOVE.
        embedding_size: Number of hidden units of the embedding φ.
        discount_input: Whether the agent's discount is an input.
        clock: Whether the used fraction n/N of the agent's lifetime and the encoded log N are
            inputs. Both inputs are constant over a rollout.

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

        The default rule has 204,714 parameters, and 206,250 with the clock. Without the discount
        input, it has 203,946 parameters, as in the code released with GROOVE.
        """
        key_hidden, key_out, key_inputs, key_recurrent, key_heads = jax.random.split(key, 5)
        size, num_gates = self.hidden_size, 3 if self.core == "gru" else 4
        # The inputs r, d, π(a|s), φ(y) and φ(y'), plus the optional inputs.
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
        one batch. The gradient of each weight is then a single product over all agents. A `vmap`
        over agents would compute equal targets, but a separate gradient for each agent.

        Args:
            params: Parameters from `init`.
            inputs: Inputs [T, B].
        """
        # Features and `done` are reversed in time, so the core reads the steps from last to first.
        # Where `done` is set, the core resets its state before it reads the step.
        x = self._features(params, inputs)
        if self.core == "gru":
            start = gru_zeros(x.shape[1], self.hidden_size)
            _, hidden = gru(GRUWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        else:
            start = lstm_zeros(x.shape[1], self.hidden_size)
            _, hidden = lstm(LSTMWeights(**params["core"]), start, x[::-1], inputs.done[::-1])
        # The core stores its hidden states for the backward pass. The checkpoint avoids also
        # storing relu(hidden), which would take a fifth of all memory and save very little
        # arithmetic.
        out = jax.checkpoint(_heads)(params["heads"], hidden)[::-1]
        return Targets(out[..., 0], jax.nn.log_softmax(out[..., 1:]))

    def _features(self, params: PyTree, inputs: RuleInputs) -> Float[Array, "T B I"]:
        def embed(y: Float[Array, "T B m"]) -> Float[Array, "T B"]:
            hidden = jax.nn.relu(_affine(params["embed_hidden"], y))
            return _affine(params["embed_out"], hidden)[..., 0]

        # The mask is applied after the embedding, because the embedding of 0 is not 0.
        following = jnp.where(inputs.done, 0.0, embed(inputs.next_prediction))
        # Reward and probability are not scaled, as in LPG.
        features = [inputs.reward, inputs.done.astype(jnp.float32)]
        features += [inputs.discount] if self.discount_input else []
        features += [inputs.action_prob, embed(inputs.prediction), following]
        # The order of the features is part of the file format of rules.
        clock: Any = [inputs.life_used, inputs.log_horizon]  # [(), ()] without a clock
        return jnp.stack(features + (clock if self.clock else []), axis=-1)


MARGIN = 1e-4
"""Distance by which the drift network's output is moved towards 0, so that small outputs become 0.

The network's contribution to the drift is then exactly 0 near a ratio of 1.
"""


@dataclass(frozen=True)
class Drift(RuleNet):
    """Sizes of the drift network, which has no biases; the parameters are passed separately.

    For importance ratio ρ and advantage A, the features are log ρ, (log ρ)², 1 - ρ, (1 - ρ)², and
    the products of these four with A. All eight features are 0 at ρ = 1. With a clock, the network
    has eight more features, which are the eight features multiplied by n/N. log N is not a feature,
    because it is not 0 at ρ = 1.

    Attributes:
        hidden_size: Number of units of the hidden layer.
        on_clipping: Whether the drift that corresponds to PPO's clipping is added to the network's
            output. If so, the output layer is initialised to 0, so that the search starts from PPO.
        clip: Clipping range ε of PPO's drift.
        clock: Whether the drift depends on the used fraction n/N of the agent's lifetime.

    Raises:
        ValueError: If `hidden_size` is below 1 or `clip` is not above 0.

    Differs from the code of Jackson et al., which subtracts a margin of 1e-4 from the sum of the
    network's output and PPO's drift. In that code, the drift is smaller than PPO's even if the
    output is 0. Here, the margin moves a positive or negative output of the network towards 0,
    before PPO's drift is added.
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
        """Return the 1,152 initial parameters (as in LPO), or 2,176 with a clock (as in TA-LPO)."""
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
            life_used: Used fraction n/N of the agent's lifetime; ignored without a clock.
        """
        ratio = jnp.exp(log_ratio)
        own = [log_ratio, log_ratio**2, 1 - ratio, (1 - ratio) ** 2]
        features = jnp.stack([*own, *(advantage * x for x in own)], axis=-1)
        if self.clock:
            features = jnp.concatenate([features, life_used * features], axis=-1)
        # The last axis is removed before PPO's drift is added, as [B, 1] + [B] would be [B, B].
        out = (jnp.tanh(features @ params["hidden"]) @ params["out"])[..., 0]
        # At ρ = 1 the output is 0, but its gradient is not 0. The margin also makes the gradient 0.
        out = jnp.sign(out) * jax.nn.relu(jnp.abs(out) - MARGIN)
        if self.on_clipping:
            # If a negative output makes the sum negative, the last ReLU returns 0.
            out += clipping_drift(ratio, advantage, self.clip)
        return jax.nn.relu(out)


def clipping_drift(
    ratio: Float[Array, "*B"], advantage: Float[Array, "*B"], clip: float
) -> Float[Array, "*B"]:
    """Compute PPO's drift: the amount by which ρ A exceeds clip(ρ) A, or 0 if ρ A is smaller.

    Source: Schulman et al., 2017, "Proximal Policy Optimization Algorithms", equation 7, written as
    a drift.
    """
    # ρ A - min(ρ A, clip(ρ) A) = relu((ρ - clip(ρ)) A).
    return jax.nn.relu((ratio - jnp.clip(ratio, 1 - clip, 1 + clip)) * advantage)


MIDDLE_HORIZON, HORIZON_SPREAD = 50.0, 5.0
"""Constants of `log_horizon`, which encodes lifetimes of 10, 50 and 250 updates as -1, 0 and 1."""


def log_horizon(lifetime: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Encode a lifetime N, in updates, as a rule's input: log(N / 50) / log 5.

    For lifetimes of 10 to 250 updates, as in the training of TA-LPG, the value lies between -1 and
    1. For 2,500 updates, it is 2.4. Differs from the code of Jackson et al., 2024, in which the
    inputs are named relative and logarithmic, but are raw counts.
    """
    # The value does not depend on n. Unlike n/N, it distinguishes short lifetimes from long ones.
    return jnp.log(lifetime / MIDDLE_HORIZON) / jnp.log(HORIZON_SPREAD)


def known_lifetime(clock: bool, num_updates: int) -> int:
    """Return the lifetime given by a learner's field `num_updates`, at least 1.

    Raises:
        ValueError: If `num_updates` is 0 and the rule has a clock.
    """
    if clock and not num_updates:
        raise ValueError(
            "the rule has the agent's lifetime as an input, but the lifetime is not known; set "
            "num_updates to the number of updates in the lifetime"
        )
    # Without a clock the value has no effect, but n/N must not divide by 0.
    return max(num_updates, 1)


def _heads(layer: dict[str, Array], hidden: Float[Array, "T B H"]) -> Float[Array, "T B O"]:
    return _affine(layer, jax.nn.relu(hidden))


def _dense(key: Key, num_inputs: int, num_outputs: int) -> dict[str, Array]:
    return {"kernel": _lecun(key, num_inputs, num_outputs), "bias": jnp.zeros(num_outputs)}


def _lecun(key: Key, num_inputs: int, num_outputs: int) -> Float[Array, "I O"]:
    return jax.nn.initializers.lecun_normal()(key, (num_inputs, num_outputs), jnp.float32)


def _affine(layer: dict[str, Array], x: Float[Array, "T B I"]) -> Float[Array, "T B O"]:
    return x @ layer["kernel"] + layer["bias"][None, None]
