"""The learned rule: a network that tells an agent what its policy and predictions should become.

Source: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms" (LPG), section 3. Jackson
et al., 2023, "Discovering General Reinforcement Learning Algorithms with Adversarial Environment
Design" (GROOVE), has a GRU in the released code, and no discount among the inputs. Jackson et al.,
2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms" (TA-LPG), adds the clock.

Sign: the agent *ascends* π̂ log π, as the papers write. The code of GROOVE descends it, so that a π̂
trained there has the opposite sign.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen import gru, lstm
from rlgen.initializers import orthogonal
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
    log_horizon: Float[Array, "T B"] | tuple[()] = ()  # of N, see `_clock.log_horizon`


class Targets(NamedTuple):
    """What the rule says to T steps of B workers."""

    policy: Float[Array, "T B"]  # π̂, unbounded: positive makes the action likelier
    log_prediction: Float[Array, "T B m"]  # log ŷ, normalised


@dataclass(frozen=True)
class Rule:
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
            start = gru.zeros(x.shape[1], self.hidden_size)
            _, hidden = gru.gru(gru.Weights(**params["core"]), start, x[::-1], inputs.done[::-1])
        else:
            start = lstm.zeros(x.shape[1], self.hidden_size)
            _, hidden = lstm.lstm(lstm.Weights(**params["core"]), start, x[::-1], inputs.done[::-1])
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
        features += [inputs.life_used, inputs.log_horizon] if self.clock else []
        return jnp.stack(features, axis=-1)


def _heads(layer: dict[str, Array], hidden: Float[Array, "T B H"]) -> Float[Array, "T B O"]:
    return _affine(layer, jax.nn.relu(hidden))


def _dense(key: Key, num_inputs: int, num_outputs: int) -> dict[str, Array]:
    return {"kernel": _lecun(key, num_inputs, num_outputs), "bias": jnp.zeros(num_outputs)}


def _lecun(key: Key, num_inputs: int, num_outputs: int) -> Float[Array, "I O"]:
    return jax.nn.initializers.lecun_normal()(key, (num_inputs, num_outputs), jnp.float32)


def _affine(layer: dict[str, Array], x: Float[Array, "T B I"]) -> Float[Array, "T B O"]:
    return x @ layer["kernel"] + layer["bias"][None, None]
