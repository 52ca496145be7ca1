"""Graph VAE: an autoencoder that sees a grid's levels as graphs, and levels between known ones.

The encoder sums over neighbours in the graph of a level, whose edges also join landmarks with their
hub, and keeps each cell's place; the decoder knows nothing of graphs. Proposals lie between two
levels of the set, whose kind of layout and whose placing of landmarks they share.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", with the sizes and weights of its released code; the layers
are those of Xu et al., 2019, "How Powerful are Graph Neural Networks?".
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

    Differs from the original in fitting all levels of the set, not nine in ten; in the last batch
    of an epoch, which is filled up, not smaller; and in giving as many proposals as are asked for,
    not always `num_points` times six. Other fields as in `rlgen.algos.level_models.vae.VAEModel`.

    Attributes:
        num_layers: of the encoder that sum over neighbours.
        width: of each of them.
        hidden_size: of the layers before and after the latent.
        num_latents: dimensions of the latent.
        num_points: proposals in a row between two levels, both ends included.
        noise: draw proposals about the points between two latents; else they are the points.
        objective: how much each part of a level counts.
    """

    learning_rate: float = 3.976e-4
    holdout: float = 0.0  # the original: 0.1, of which it makes no use
    num_layers: int = 3
    width: int = 12
    hidden_size: int = 256
    num_latents: int = 1024
    num_points: int = 6
    noise: bool = True
    objective: Objective = field(default_factory=Objective)

    def __post_init__(self):
        """Refuse levels that are no graph, and sizes that make no network."""
        grids = [part.name for part in self.codec.parts if isinstance(part, Cells)]
        if len(grids) != 1:
            raise ValueError(
                f"GraphVAE: levels must have one grid of cells, these have {len(grids)} "
                f"({', '.join(grids) or 'only ' + ', '.join(p.name for p in self.codec.parts)}); "
                "use mlp-vae, which takes any levels"
            )
        self.check_sizes("num_epochs", "num_layers", "width", "hidden_size", "num_latents")

    def vae(self) -> VAE:
        """The model's networks with what they learn."""
        heads = Heads(self.codec.parts, self.objective)
        encoder = GraphEncoder(
            self.codec.parts, self.num_layers, self.width, self.hidden_size, self.num_latents
        )
        decoder = Decoder(heads.num_outputs, self.hidden_size, normalize=True)
        return VAE(self.codec, encoder, decoder, heads, self.settings)


class GraphEncoder(nn.Module):
    """From the parts of levels to their latents.

    Attributes:
        parts: of a level, one of them cells.
        num_layers: that sum over neighbours.
        width: of each.
        hidden_size: of the layer before the latent.
        num_latents: L.
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
        """Mean and standard deviation of the latents of B levels."""
        cells = next(part for part in self.parts if isinstance(part, Cells))
        names = [part.name for part in self.parts if isinstance(part, Place)]
        places = {name: values[name] for name in names}
        layout = values[cells.name]
        graphs = jax.vmap(lambda one, at: graph_of(cells, one, at))(layout, places)
        nodes = jax.vmap(lambda one, at: features(cells, one, at))(layout, places)
        known = [nodes]
        for _ in range(self.num_layers):
            nodes = _Isomorphism(self.width)(graphs, nodes, training)
            known.append(nodes)
        flat = jnp.concatenate(known, -1).reshape(nodes.shape[0], -1)
        hidden = Linear(self.hidden_size)(jnp.concatenate([flat, *self._others(values)], -1))
        hidden = NormRelu(relu_first=True)(hidden, training)
        return Posterior(self.num_latents)(hidden)

    def _others(self, values: Values) -> list[Float[Array, "B O"]]:
        """The parts that are not on the grid."""
        found = []
        for part in self.parts:
            if isinstance(part, Choice):
                found.append(jax.nn.one_hot(values[part.name], part.num))
            elif not isinstance(part, Cells | Place):
                value = values[part.name]
                found.append(2.0 * value - 1.0 if isinstance(part, Flags) else value)
        return found


class _Isomorphism(nn.Module):
    """A layer of a graph isomorphism network: a small network of a node and its neighbours' sum."""

    width: int

    @nn.compact
    def __call__(
        self, graphs: Graph, x: Float[Array, "B C F"], training: bool
    ) -> Float[Array, "B C W"]:
        """The next features of each node of B graphs."""
        own = self.param("epsilon", nn.initializers.zeros, ())
        x = (1 + own) * x + jax.vmap(sum_neighbours)(graphs, x)
        for _ in range(2):
            x = NormRelu()(Linear(self.width, use_bias=False)(x), training)
        return NormRelu()(x, training)


def build(env: LevelEnv, **fields: Any) -> GraphVAE:
    """The model of an environment's levels.

    Raises:
        ValueError: the environment has no codec, or its levels are no grids.
    """
    require(env, LevelEnv.codec, "the level model graph-vae")
    return GraphVAE(env.codec(), **fields)


def tiny(env: LevelEnv) -> GraphVAE:
    """Return the smallest instance, for property tests."""
    return build(env, num_epochs=2, batch_size=4, width=4, hidden_size=8, num_latents=4)
