"""Graph VAE: encodes grid levels as graphs and proposes levels between known levels.

The nodes of the graph are the cells of the level. Edges connect neighbouring cells, and also
landmarks (such as lava) with the hub (such as the goal). The encoder sums over neighbours in the
graph and keeps the position of each cell. The decoder does not use the graph. A proposal
interpolates between two levels of the set, and resembles these two levels in layout and in the
placement of landmarks.

Sources: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", with the sizes and weights of the code of these authors; Xu et
al., 2019, "How Powerful are Graph Neural Networks?", for the layers.
"""

from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.algos.level_models.heads import Heads, Values
from rlgen.algos.level_models.layers import Decoder, Linear, NormRelu, Posterior
from rlgen.algos.level_models.level_graph import Graph, features, graph_of, sum_neighbours
from rlgen.algos.level_models.objective import Objective
from rlgen.algos.level_models.vae import VAE, VAEModel
from rlgen.codec import Cells, Choice, Flags, Part, Place
from rlgen.protocols import LevelEnv
from rlgen.registry import require

__all__ = ["GraphEncoder", "GraphVAE", "build", "tiny"]


@dataclass(frozen=True)
class GraphVAE(VAEModel):
    """A variational autoencoder of levels with one grid of cells.

    Three points differ from the code of Garcin et al. All levels of the set are fitted, not 90 % of
    them. The last batch of an epoch is filled up instead of being smaller. The number of proposals
    is the number requested, not always six times `num_points`. The other fields are described in
    `rlgen.algos.level_models.vae.VAEModel`.

    Attributes:
        num_layers: Number of encoder layers that sum over neighbours.
        width: Number of features per node in each of these layers.
        hidden_size: Size of the hidden layers before and after the latent.
        num_latents: Dimension of the latent, L.
        num_points: Number of interpolation points per pair of levels, including both ends.
        noise: Add noise with the interpolated standard deviation to the interpolated latents.
        objective: Weight of each part of a level in the loss.
    """

    learning_rate: float = 3.976e-4
    holdout: float = 0.0  # Garcin et al. hold out 0.1 of the levels and do not use these levels
    num_layers: int = 3
    width: int = 12
    hidden_size: int = 256
    num_latents: int = 1024
    num_points: int = 6
    noise: bool = True
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        """Check that levels have exactly one grid, and that all sizes are positive."""
        grids = [part.name for part in self.codec.parts if isinstance(part, Cells)]
        if len(grids) != 1:
            raise ValueError(
                f"GraphVAE: levels must have one grid of cells, but these levels have {len(grids)} "
                f"({', '.join(grids) or 'only ' + ', '.join(p.name for p in self.codec.parts)}); "
                "use mlp-vae, which accepts any levels"
            )
        self.check_sizes("num_epochs", "num_layers", "width", "hidden_size", "num_latents")

    def vae(self) -> VAE:
        """Return the networks and the distributions that they parametrise."""
        heads = Heads(self.codec.parts, self.objective)
        encoder = GraphEncoder(
            self.codec.parts, self.num_layers, self.width, self.hidden_size, self.num_latents
        )
        decoder = Decoder(heads.num_outputs, self.hidden_size, normalize=True)
        return VAE(self.codec, encoder, decoder, heads, self.settings)


class GraphEncoder(nn.Module):
    """Encoder that maps the parts of each level to a latent, through the graph of the level.

    Attributes:
        parts: Parts of a level; exactly one is of type `Cells`.
        num_layers: Number of layers that sum over neighbours.
        width: Number of features per node in each of these layers.
        hidden_size: Size of the layer before the latent.
        num_latents: Dimension of the latent, L.
    """

    parts: tuple[Part, ...]
    num_layers: int
    width: int
    hidden_size: int
    num_latents: int

    @nn.compact
    def __call__(
        self, values: Values, training: bool
    ) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Return mean and standard deviation of the latents of B levels."""
        cells = next(part for part in self.parts if isinstance(part, Cells))
        names = [part.name for part in self.parts if isinstance(part, Place)]
        places = {name: values[name] for name in names}
        layout = values[cells.name]
        graphs = jax.vmap(lambda one, at: graph_of(cells, one, at))(layout, places)
        nodes = jax.vmap(lambda one, at: features(cells, one, at))(layout, places)
        # The features of all layers are concatenated, [B, C, F + num_layers * width].
        known = [nodes]
        for _ in range(self.num_layers):
            nodes = _Isomorphism(self.width)(graphs, nodes, training)
            known.append(nodes)
        # Flattening instead of pooling keeps the position of each cell.
        flat = jnp.concatenate(known, -1).reshape(nodes.shape[0], -1)
        hidden = Linear(self.hidden_size)(jnp.concatenate([flat, *self._others(values)], -1))
        # As in the code of Garcin et al., ReLU precedes the normalisation here. In the layers
        # above, ReLU follows the normalisation.
        hidden = NormRelu(relu_first=True)(hidden, training)
        return Posterior(self.num_latents)(hidden)

    def _others(self, values: Values) -> list[Float[Array, "B O"]]:
        """Return the parts that are not on the grid, as vectors."""
        found = []
        for part in self.parts:
            if isinstance(part, Choice):
                found.append(jax.nn.one_hot(values[part.name], part.num))
            elif not isinstance(part, Cells | Place):
                value = values[part.name]
                # Flags become ±1.
                found.append(2.0 * value - 1.0 if isinstance(part, Flags) else value)
        return found


class _Isomorphism(nn.Module):
    """Layer of a graph isomorphism network.

    The layer applies an MLP to the sum of (1 + ε) x and the features of the neighbours.
    """

    width: int

    @nn.compact
    def __call__(
        self, graphs: Graph, x: Float[Array, "B C F"], training: bool
    ) -> Float[Array, "B C W"]:
        """Return the next features of each node of B graphs."""
        # ε of Xu et al., 2019: a learned parameter that starts at 0.
        own = self.param("epsilon", nn.initializers.zeros, ())
        x = (1 + own) * x + jax.vmap(sum_neighbours)(graphs, x)
        for _ in range(2):
            x = NormRelu()(Linear(self.width, use_bias=False)(x), training)
        # In the code of Garcin et al., the layer has this third normalisation after the MLP's two.
        return NormRelu()(x, training)


def build(env: LevelEnv, **fields: Any) -> GraphVAE:
    """Build the model for an environment's levels.

    Raises:
        ValueError: If the environment has no codec, or its levels do not have exactly one grid.
    """
    require(env, LevelEnv.codec, "the level model graph-vae")
    return GraphVAE(env.codec(), **fields)


def tiny(env: LevelEnv) -> GraphVAE:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return build(env, num_epochs=2, batch_size=4, width=4, hidden_size=8, num_latents=4)
