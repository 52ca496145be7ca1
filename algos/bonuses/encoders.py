"""What learned bonuses see with: encoders of observations, and dense heads on their features."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen import registry
from rlgen.nn.approximators import MLP, Conv, approximator_for
from rlgen.protocols import Approximator, LevelEnv
from rlgen.types import Key, PyTree, Rollout


@dataclass(frozen=True)
class Embedding(Approximator):
    """A row of numbers for every state, random at first; the observation is the row's number.

    A `rlgen.nn.approximators.Table` begins with zeros, by which no two states could be told apart.
    """

    def check(self, env: LevelEnv) -> None:
        """Refuse an environment that does not enumerate its observations.

        Raises:
            ValueError: it has no `num_states`.
        """
        registry.require(env, LevelEnv.num_states, "an embedding")

    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> Float[Array, "S K"]:
        """Standard normal numbers."""
        self.check(env)
        return jax.random.normal(key, (env.num_states(), num_outputs))

    def apply(self, env: LevelEnv, params: Float[Array, "S K"], obs: Array) -> Float[Array, "B K"]:
        """The rows of the states `obs` [B]."""
        del env
        return params[obs]


def encoder_for(env: LevelEnv, hidden: int = 256) -> Approximator:
    """What suits an environment, with a hidden layer: embedding, convolution or perceptron."""
    chosen = approximator_for(env)
    if isinstance(chosen, Conv | MLP):
        return replace(chosen, hidden=(hidden,))
    return Embedding()


def every_obs(rollout: Rollout) -> PyTree:
    """All observations in a row, [(T + 1) N, ...], or [T N, ...] without the last ones.

    What follows row i is row i + N; where that step ended an episode, it is another one's start.
    """
    obs = rollout.obs
    if not _absent(rollout.last_obs):
        obs = jax.tree.map(lambda x, last: jnp.concatenate([x, last]), obs, rollout.last_obs)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), obs)


def take(obs: PyTree, rows: Int[Array, " B"]) -> PyTree:
    """Some rows of `every_obs`."""
    return jax.tree.map(lambda x: x[rows], obs)


def layer_norm(x: Float[Array, "B d"]) -> Float[Array, "B d"]:
    """Mean 0 and squared norm d in each row; without parameters, so that it stays so."""
    centred = x - x.mean(1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(1, keepdims=True) + 1e-6)


def length(x: Float[Array, "*B d"]) -> Float[Array, "*B"]:
    """Euclidean norm of each row, of finite derivative at 0."""
    return jnp.sqrt((x**2).sum(-1) + 1e-12)


def head(key: Key, sizes: tuple[int, int, int]) -> dict[str, Array]:
    """Parameters of one hidden layer and a linear one, from inputs, hidden units and outputs."""
    key_hidden, key_out = jax.random.split(key)
    weights = jax.nn.initializers.lecun_normal()
    num_inputs, hidden, num_outputs = sizes
    return {
        "hidden": weights(key_hidden, (num_inputs, hidden), jnp.float32),
        "hidden_bias": jnp.zeros(hidden),
        "out": weights(key_out, (hidden, num_outputs), jnp.float32),
        "out_bias": jnp.zeros(num_outputs),
    }


def apply_head(params: dict[str, Array], x: Float[Array, "B F"]) -> Float[Array, "B K"]:
    """The head's outputs; ReLU between the layers."""
    hidden = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"][None])
    return hidden @ params["out"] + params["out_bias"][None]


def _absent(tree: PyTree) -> bool:
    return isinstance(tree, tuple) and not tree
