"""Actor-critic networks for arbitrary observations, feed-forward or recurrent.

`ActorCriticLearner` is the base class of policy-gradient learners that act with such a network.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.nn import distributions, linear_recurrence
from rlgen.nn import layers as parts
from rlgen.nn.layers import Recurrent, gru_zeros, lstm_zeros
from rlgen.nn.linear_recurrence import Linear
from rlgen.protocols import Learner, LevelEnv, Network
from rlgen.types import Key, PyTree

ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh}
CORES = ("lstm", "gru", "linear", "none")


@dataclass(frozen=True)
class ActorCritic(Network):
    """Encoder, core and two heads; the defaults are JaxUED's maze network.

    Observations are pytrees. Images (leaves of rank 3) are encoded by a convolution. If the
    observation contains an image, each other leaf is encoded by a small dense layer; otherwise the
    leaves are passed on unchanged. All encodings are concatenated.

    Attributes:
        core: `lstm`, `gru`, `linear` (blocks with a minGRU, trained in parallel over time) or
            `none` (dense layers, a feed-forward policy).
        hidden_size: number of units of the core.
        num_layers: number of stacked layers of the core. 0 selects the default: 2 for `linear`,
            whose gates depend only on the layer below, and 1 for the other cores.
        head_size: number of hidden units in the actor's head and in each critic's head.
        conv_features: number of filters of the 3×3 convolution over images.
        vector_features: number of units of the dense layers for vectors and flags that accompany an
            image.
        activation: activation function of the actor's head and of the feed-forward core.
        num_values: number of critic heads. The first head gives the value; the method `values`
            returns the outputs of all heads.

    Raises:
        ValueError: unknown core or activation, or a size out of range.
    Source: network sizes as in Coward et al., 2024, "JaxUED: A simple and useable UED library in
    Jax"; the sizes go back to Dennis et al., 2020. For the sources of the cores, see
    `rlgen.nn.layers` and `rlgen.nn.linear_recurrence`.
    """

    core: Literal["lstm", "gru", "linear", "none"] = "lstm"
    hidden_size: int = 256
    num_layers: int = 0
    head_size: int = 32
    conv_features: int = 16
    vector_features: int = 5
    activation: Literal["relu", "tanh"] = "relu"
    num_values: int = field(default=1, metadata={"config": False})

    def __post_init__(self):
        if self.core not in CORES:
            allowed = "'lstm', 'gru', 'linear' or 'none'"
            raise ValueError(f"core must be {allowed}, got {self.core!r}")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'tanh', got {self.activation!r}")
        sizes = ("hidden_size", "head_size", "conv_features", "vector_features", "num_values")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"network.{name} must be at least 1, got {getattr(self, name)}")
        if self.num_layers < 0:
            raise ValueError(
                f"network.num_layers must be at least 1, or 0 for the default of the core, "
                f"got {self.num_layers}"
            )

    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Initial parameters for an environment's observations and actions."""
        key_level, key_reset, key_params = jax.random.split(key, 3)
        obs = parts.first_obs(key_level, key_reset, env)
        carry, first = self.initial_carry(1), jnp.ones(1, bool)
        return self._module(env).init(key_params, carry, obs, first)["params"]

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]; `()` for the core `none`."""
        return _zeros(self.core, self._depth, num_slots, self.hidden_size)

    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """Return the new carry, logits and value of one step."""
        return self._first(*self.values(env, params, carry, obs, first))

    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """Return the new carry, logits and values of a sequence; equivalent to T steps."""
        return self._first(*self.values(env, params, carry, obs, first))

    def values(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "*B A"], Float[Array, "*B V"]]:
        """Return the new carry, the logits and the values of all critic heads.

        The inputs are one step, with `first` [N], or a sequence, with `first` [T, N].
        """
        return self._apply(env, params, carry, obs, first)

    @staticmethod
    def _first(carry: PyTree, logits: Array, values: Array) -> tuple[PyTree, Array, Array]:
        return carry, logits, values[..., 0]

    def trunk(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Return the new carry and the output of the core, which is the input of all heads."""
        return self._apply(env, params, carry, obs, first, False)

    @property
    def _depth(self) -> int:
        return self.num_layers or (2 if self.core == "linear" else 1)

    def _apply(self, env: LevelEnv, *arguments: PyTree) -> PyTree:
        params, *inputs = arguments
        return self._module(env).apply({"params": params}, *inputs)

    def _module(self, env: LevelEnv) -> "_Network":
        return _Network(self, self._depth, env.unpack, env.num_actions)


class ActorCriticLearner(Learner, abstract=True):
    """Base class of learners whose policy and value are one `Network`.

    The network's parameters are `state.params`. Subclasses are dataclasses that declare the fields
    `env` and `network`.
    """

    env: LevelEnv
    """Environment whose observations and actions the parameters fit."""
    network: Network
    """Network of the policy and the value."""

    @property
    def _network(self) -> Any:
        """The network used for acting."""
        return self.network

    def in_env(self, env: LevelEnv) -> "ActorCriticLearner":
        """Return a copy of this learner for `env`, or this learner if `env` is already its own."""
        fields: Any = self
        return self if env == self.env else replace(fields, env=env)

    def offers(self, capability: Callable) -> bool:
        """Return whether a capability is offered; `features` requires a network with `trunk`."""
        missing = capability is Learner.features and not self.network.offers(Network.trunk)
        return super().offers(capability) and not missing

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]."""
        return self._network.initial_carry(num_slots)

    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample an action; see `rlgen.protocols.Learner`."""
        carry, logits, value = self._network.step(self.env, state.params, carry, obs, first)
        action = distributions.sample(key, logits)
        return carry, action, distributions.log_prob(logits, action), value

    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of `obs`, for bootstrapping."""
        return self._network.step(self.env, state.params, carry, obs, first)[2]

    def features(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Return the new carry, and the features that are the input of both policy and value."""
        return self._network.trunk(self.env, state.params, carry, obs, first)


class _Network(nn.Module):
    """Flax module of `ActorCritic`."""

    sizes: ActorCritic
    depth: int
    unpack: Callable[[PyTree], PyTree]
    num_actions: int

    @nn.compact
    def __call__(self, carry: PyTree, obs: PyTree, first: Array, with_heads: bool = True) -> tuple:
        """Apply the network to one step (`first` is [N]) or to a sequence (`first` is [T, N]).

        The heads are applied only with `with_heads`.
        """
        sizes, act = self.sizes, ACTIVATIONS[self.sizes.activation]
        features = self.unpack(obs)
        # [N, F] or [T, N, F]: only the core below treats time differently from slots.
        x = parts.encode(features, first.ndim, sizes.conv_features, sizes.vector_features)
        carry, x = self._remember(carry, x, first)
        if not with_heads:
            return carry, x
        # The gains of the heads are JaxUED's: 2 for the hidden layers, 0.01 for the logits and 1
        # for the value. The small gain of the logits makes the initial policy nearly uniform.
        actor = act(parts.dense(sizes.head_size, 2.0, "actor_hidden")(x))
        logits = parts.dense(self.num_actions, 0.01, "actor")(actor)
        values = [self._value(x, i) for i in range(sizes.num_values)]
        return carry, logits, jnp.concatenate(values, -1)

    def _value(self, x: Array, i: int) -> Float[Array, "*B 1"]:
        # As in JaxUED, the critic uses ReLU even if the actor's head uses tanh.
        critic = nn.relu(parts.dense(self.sizes.head_size, 2.0, _numbered("critic_hidden", i))(x))
        return parts.dense(1, 1.0, _numbered("critic", i))(critic)

    def _remember(self, carry: PyTree, x: Array, first: Array) -> tuple[PyTree, Array]:
        core, size, depth = self.sizes.core, self.sizes.hidden_size, self.depth
        if core == "linear":
            # The carry of this core is one array [N, L, H] for all layers.
            return Linear(size, depth, name=core)(carry, x, first)
        if core == "none":
            for i in range(depth):
                # 2**0.5 is the gain for a ReLU, which zeroes half of its inputs.
                x = parts.dense(size, 2**0.5, _numbered("trunk", i))(x)
                x = ACTIVATIONS[self.sizes.activation](x)
            return carry, x
        ends = []
        # The carry of a single layer is not wrapped in a tuple, see `_zeros`.
        for i, start in enumerate((carry,) if depth == 1 else carry):
            end, x = Recurrent(core, size, name=_numbered(core, i))(start, x, first)
            ends.append(end)
        return ends[0] if depth == 1 else tuple(ends), x


def _numbered(name: str, i: int) -> str:
    """Name of layer i; the first layer has no number, so that a single layer has a plain name."""
    return f"{name}_{i}" if i else name


def _zeros(core: str, num_layers: int, num_slots: int, hidden_size: int) -> PyTree:
    """Recurrent state of a core at the start of an episode, [N, ...]; `()` for the core `none`."""
    if core == "none":
        return ()
    if core == "linear":
        return linear_recurrence.zeros(num_slots, num_layers, hidden_size)
    one = {"lstm": lstm_zeros, "gru": gru_zeros}[core](num_slots, hidden_size)
    return one if num_layers == 1 else (one,) * num_layers
