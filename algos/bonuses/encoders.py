"""Networks of learned bonuses: encoders of observations, and dense heads on the features."""

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
    """A randomly initialised embedding vector for each state, with state indices as observations.

    `rlgen.nn.approximators.Table` cannot be used instead: its entries are initialised to 0, which
    would not distinguish states.
    """

    def check(self, env: LevelEnv) -> None:
        """Check that the environment enumerates its observations.

        Raises:
            ValueError: If the environment has no `num_states`.
        """
        registry.require(env, LevelEnv.num_states, "an embedding")

    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> Float[Array, "S K"]:
        """Return standard normal embeddings."""
        self.check(env)
        return jax.random.normal(key, (env.num_states(), num_outputs))

    def apply(self, env: LevelEnv, params: Float[Array, "S K"], obs: Array) -> Float[Array, "B K"]:
        """Return the embeddings of the states `obs` [B]."""
        del env
        return params[obs]


def encoder_for(env: LevelEnv, hidden: int = 256) -> Approximator:
    """Return an encoder for an environment's observations.

    If the observations are enumerable, the encoder is an `Embedding`. Otherwise it is a
    convolutional network for images and a multilayer perceptron for other observations, with one
    hidden layer of `hidden` units.
    """
    chosen = approximator_for(env)
    if isinstance(chosen, Conv | MLP):
        return replace(chosen, hidden=(hidden,))
    return Embedding()


def every_obs(rollout: Rollout) -> PyTree:
    """Return all observations as rows, [(T + 1) N, ...], or [T N, ...] without `last_obs`.

    Row i + N is the observation after row i in the same slot. If the step between these two
    observations ended an episode, row i + N starts the next episode.
    """
    obs = rollout.obs
    if not _absent(rollout.last_obs):
        obs = jax.tree.map(lambda x, last: jnp.concatenate([x, last]), obs, rollout.last_obs)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), obs)


def take(obs: PyTree, rows: Int[Array, " B"]) -> PyTree:
    """Select rows of the observations returned by `every_obs`."""
    return jax.tree.map(lambda x: x[rows], obs)


def layer_norm(x: Float[Array, "B d"]) -> Float[Array, "B d"]:
    """Normalise each row to mean 0 and squared norm d.

    There is no learned scale or offset, so training cannot change the norm.
    """
    centred = x - x.mean(1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(1, keepdims=True) + 1e-6)


def length(x: Float[Array, "*B d"]) -> Float[Array, "*B"]:
    """Euclidean norm of each row, with a finite derivative at 0."""
    # The derivative of sqrt is infinite at 0; the added constant keeps it finite.
    return jnp.sqrt((x**2).sum(-1) + 1e-12)


def head(key: Key, sizes: tuple[int, int, int]) -> dict[str, Array]:
    """Initialise a head with one hidden layer; `sizes` counts inputs, hidden units and outputs."""
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
    """Apply the head, with a ReLU between its two layers."""
    hidden = jax.nn.relu(x @ params["hidden"] + params["hidden_bias"][None])
    return hidden @ params["out"] + params["out_bias"][None]


def _absent(tree: PyTree) -> bool:
    # Only an empty tuple means absent. The type is tested first because arrays have no truth value.
    return isinstance(tree, tuple) and not tree
