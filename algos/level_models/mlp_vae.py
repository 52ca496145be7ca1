"""MLP VAE: an autoencoder of any levels as flat vectors, and levels between known ones.

For levels that are no grids, such as the parameters of a physical system; it takes grids too, whose
cells it sees one by one.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", of which the proposals are; encoder and sizes are rlgen's own.
"""

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlgen.algos.level_models.heads import Heads, Values
from rlgen.algos.level_models.layers import Decoder, Linear, Posterior
from rlgen.algos.level_models.objective import Objective
from rlgen.algos.level_models.vae import VAE, VAEModel
from rlgen.codec import Cells, Choice, Flags, Numbers, Part, Place
from rlgen.protocols import LevelEnv
from rlgen.registry import require

__all__ = ["MLPVAE", "FlatEncoder", "build", "tiny"]


@dataclass(frozen=True)
class MLPVAE(VAEModel):
    """A variational autoencoder of levels as flat vectors.

    Other fields as in `rlgen.algos.level_models.vae.VAEModel`.

    Attributes:
        hidden_size: of the two layers before the latent, and the two after it.
        num_latents: dimensions of the latent.
        num_points: proposals in a row between two levels, both ends included.
        noise: draw proposals about the points between two latents; else they are the points.
        objective: how much each part of a level counts.
    """

    hidden_size: int = 64
    num_latents: int = 8
    num_points: int = 6
    noise: bool = True
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        """Refuse sizes that make no network."""
        self.check_sizes("num_epochs", "hidden_size", "num_latents")

    def vae(self) -> VAE:
        """The model's networks with what they learn."""
        heads = Heads(self.codec.parts, self.objective)
        encoder = FlatEncoder(heads.parts, self.hidden_size, self.num_latents)
        decoder = Decoder(heads.num_outputs, self.hidden_size, normalize=False)
        return VAE(self.codec, encoder, decoder, heads, self.settings)


class FlatEncoder(nn.Module):
    """From the parts of levels, laid out as one vector each, to their latents.

    Attributes:
        parts: of a level.
        hidden_size: of two layers.
        num_latents: L.
    """

    parts: tuple[Part, ...]
    hidden_size: int
    num_latents: int

    @nn.compact
    def __call__(
        self, values: Values, training: bool
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Mean and standard deviation of the latents of B levels."""
        x = jax.vmap(lambda one: flat(self.parts, one))(values)
        for _ in range(2):
            x = nn.relu(Linear(self.hidden_size)(x))
        return Posterior(self.num_latents)(x)


def flat(parts: tuple[Part, ...], values: Values) -> Float[Array, " D"]:
    """One level as a vector: kinds, places and choices one-hot, numbers about 0, flags ±1."""
    sizes = {part.name: int(np.prod(part.shape)) for part in parts if isinstance(part, Cells)}
    found = []
    for part in parts:
        value = values[part.name]
        if isinstance(part, Cells):
            found.append(jax.nn.one_hot(value, len(part.kinds)).reshape(-1))
        elif isinstance(part, Place):
            found.append(jax.nn.one_hot(value, sizes[part.on]))
        elif isinstance(part, Choice):
            found.append(jax.nn.one_hot(value, part.num))
        elif isinstance(part, Flags | Numbers):
            found.append(2.0 * value - 1.0)
    return jnp.concatenate(found)


def build(env: LevelEnv, **fields: Any) -> MLPVAE:
    """The model of an environment's levels.

    Raises:
        ValueError: the environment has no codec.
    """
    require(env, LevelEnv.codec, "the level model mlp-vae")
    return MLPVAE(env.codec(), **fields)


def tiny(env: LevelEnv) -> MLPVAE:
    """Return the smallest instance, for property tests."""
    return build(env, num_epochs=2, batch_size=4, hidden_size=8, num_latents=2)
