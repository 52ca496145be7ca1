"""MLP VAE: encodes any levels as flat vectors and proposes levels between known levels.

This level model is intended for levels that are not grids, such as the parameters of a physical
system. It also accepts grids, but treats their cells as unrelated inputs.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", for the proposals. The encoder and the sizes are specific to
rlgen.
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

    The other fields are described in `rlgen.algos.level_models.vae.VAEModel`.

    Attributes:
        hidden_size: Size of the two hidden layers before the latent and of the two after it.
        num_latents: Dimension of the latent, L.
        num_points: Number of interpolation points per pair of levels, including both ends.
        noise: Add noise with the interpolated standard deviation to the interpolated latents.
        objective: Weight of each part of a level in the loss.
    """

    hidden_size: int = 64
    num_latents: int = 8
    num_points: int = 6
    noise: bool = True
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        """Check that all sizes are positive."""
        self.check_sizes("num_epochs", "hidden_size", "num_latents")

    def vae(self) -> VAE:
        """Return the networks and the distributions that they parametrise."""
        heads = Heads(self.codec.parts, self.objective)
        encoder = FlatEncoder(heads.parts, self.hidden_size, self.num_latents)
        decoder = Decoder(heads.num_outputs, self.hidden_size, normalize=False)
        return VAE(self.codec, encoder, decoder, heads, self.settings)


class FlatEncoder(nn.Module):
    """Encoder that flattens the parts of each level to one vector and maps it to a latent.

    Attributes:
        parts: Parts of a level.
        hidden_size: Size of the two hidden layers.
        num_latents: Dimension of the latent, L.
    """

    parts: tuple[Part, ...]
    hidden_size: int
    num_latents: int

    @nn.compact
    def __call__(
        self, values: Values, training: bool
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Return mean and standard deviation of the latents of B levels."""
        x = jax.vmap(lambda one: flat(self.parts, one))(values)
        for _ in range(2):
            x = nn.relu(Linear(self.hidden_size)(x))
        return Posterior(self.num_latents)(x)


def flat(parts: tuple[Part, ...], values: Values) -> Float[Array, " D"]:
    """Flatten the parts of one level to a vector.

    The kinds of cells, places and choices become one-hot vectors. Flags become ±1. A number x
    becomes 2x − 1.
    """
    # Number of cells of each grid, which is the size of the one-hot vector of a place on the grid.
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
    """Build the model for an environment's levels.

    Raises:
        ValueError: If the environment has no codec.
    """
    require(env, LevelEnv.codec, "the level model mlp-vae")
    return MLPVAE(env.codec(), **fields)


def tiny(env: LevelEnv) -> MLPVAE:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return build(env, num_epochs=2, batch_size=4, hidden_size=8, num_latents=2)
