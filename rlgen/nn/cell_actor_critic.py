"""Small convolutional actor-critic for boards on which every action is a cell.

A teacher that edits levels observes the whole board and chooses a cell. A recurrent layer on the
flattened board would be the most expensive part of a run. The network in this module shares its
weights between cells instead.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlgen.nn import layers as parts
from rlgen.protocols import LevelEnv, Network, check_numbers
from rlgen.types import Key, PyTree


@dataclass(frozen=True)
class CellActorCritic(Network):
    """Convolutional network over a board, with global features and a logit for each cell.

    Unpacked observations contain one image [H, W, C], the board, and any number of vectors (time,
    noise). Each layer is a 3×3 convolution, to whose output maps two terms are added. The first
    term is a learned map, which distinguishes the cells. The second term is the same at every cell:
    a dense layer applied to the vectors and to the spatial means of the input maps. The network is
    feed-forward, because the board shows all previous actions.

    Attributes:
        features: number of maps of each convolution.
        num_layers: number of convolutions. The logit of a cell depends on the cells up to this
            distance in each direction, and on the spatial means.
        head_size: number of hidden units of the critic, whose inputs are the means and the vectors.

    Raises:
        ValueError: a size is below 1. The method `init` also raises this error if the observation
            does not contain exactly one image, or if the number of actions differs from the number
            of cells.
    Source: replaces the teacher of Dennis et al., 2020, "Emergent Complexity and Zero-shot
    Transfer via Unsupervised Environment Design" (appendix), which flattens 128 maps into an LSTM.
    """

    features: int = 8
    num_layers: int = 2
    head_size: int = 32

    def __post_init__(self):
        check_numbers(self, "features", "num_layers", "head_size", least=1, owner="network.")

    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Initial parameters for an environment's observations and cells."""
        key_level, key_reset, key_params = jax.random.split(key, 3)
        obs = parts.first_obs(key_level, key_reset, env)
        _refuse_other_boards(env, jax.eval_shape(env.unpack, obs))
        return self._module(env).init(key_params, obs, jnp.ones(1, bool))["params"]

    def initial_carry(self, num_slots: int) -> PyTree:
        """`()`, because the network is feed-forward."""
        del num_slots
        return ()

    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """Return the empty carry, logits and value of one step."""
        return carry, *self._apply(env, params, obs, first)

    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """Return the empty carry, logits and values of a sequence."""
        return carry, *self._apply(env, params, obs, first)

    def _apply(self, env: LevelEnv, params: PyTree, obs: PyTree, first: Array) -> PyTree:
        return self._module(env).apply({"params": params}, obs, first)

    def _module(self, env: LevelEnv) -> "_Cells":
        return _Cells(self, env.unpack)


class _Cells(nn.Module):
    """Flax module of `CellActorCritic`."""

    sizes: CellActorCritic
    unpack: Callable[[PyTree], PyTree]

    @nn.compact
    def __call__(self, obs: PyTree, first: Array) -> tuple[Array, Array]:
        """Apply the network to one step (`first` is [N]) or to a sequence (`first` is [T, N])."""
        image, vectors = _split(self.unpack(obs), first.ndim)
        x = image.reshape(-1, *image.shape[-3:])  # [B, H, W, C], B = N or T · N
        seen = [leaf.reshape(x.shape[0], -1) for leaf in vectors]
        for i in range(self.sizes.num_layers):
            x = self._layer(i, x, jnp.concatenate([*seen, x.mean((1, 2))], axis=-1))
        logits = parts.dense(1, 0.01, "actor")(x)  # [B, H, W, 1]; action = row · W + column
        # The value depends on the whole board, so the critic reads spatial means, not single cells.
        pooled = jnp.concatenate([*seen, x.mean((1, 2))], axis=-1)
        critic = nn.relu(parts.dense(self.sizes.head_size, 2**0.5, "critic_hidden")(pooled))
        value = parts.dense(1, 1.0, "critic")(critic)
        return logits.reshape(*first.shape, -1), value.reshape(first.shape)

    def _layer(self, i: int, x: Array, everywhere: Array) -> Float[Array, "B H W F"]:
        """Apply one layer; `everywhere` [B, ...] holds features that all cells of a board share."""
        height, width, channels = x.shape[1:]
        size = self.sizes.features
        lecun, normal = nn.initializers.lecun_normal(), nn.initializers.normal(1.0)
        kernel = self.param(f"conv_{i}", lecun, (3, 3, channels, size))
        place = self.param(f"place_{i}", normal, (height, width, size))
        # Padded by one cell, so that every cell keeps an output.
        maps = parts.convolve(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel)
        heard = parts.dense(size, 2**0.5, f"everywhere_{i}")(everywhere)
        # [B, H, W, F] + [1, H, W, F] + [B, 1, 1, F].
        return nn.relu(maps + place[None] + heard[:, None, None])


def _split(features: PyTree, num_axes: int) -> tuple[Array, list[Array]]:
    leaves = [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(features)]
    images = [leaf for leaf in leaves if leaf.ndim - num_axes == 3]
    return images[0], [leaf for leaf in leaves if leaf.ndim - num_axes != 3]


def _refuse_other_boards(env: LevelEnv, features: PyTree) -> None:
    shapes = [leaf.shape[1:] for leaf in jax.tree.leaves(features)]
    boards = [shape for shape in shapes if len(shape) == 3]
    name = type(env).__name__
    if len(boards) != 1:
        raise ValueError(
            f"CellActorCritic needs observations with one image [H, W, C], but {name} has "
            f"{len(boards)} among the shapes {shapes}; use ActorCritic"
        )
    height, width, _ = boards[0]
    if env.num_actions != height * width:
        raise ValueError(
            f"CellActorCritic needs one action for each cell, but {name} has {env.num_actions} for "
            f"{height}x{width} = {height * width} cells; use ActorCritic"
        )
