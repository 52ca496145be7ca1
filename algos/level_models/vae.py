"""Variational autoencoder (VAE) of levels: fitting and proposals, for any pair of networks.

Sources: Kingma and Welling, 2014, "Auto-Encoding Variational Bayes"; Garcin et al., 2024, "DRED:
Zero-Shot Transfer in Reinforcement Learning via Data-Regularised Environment Design".
"""

import abc
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from rlgen.algos.level_models.files import Fitted, Generator
from rlgen.algos.level_models.heads import Heads, Values
from rlgen.algos.level_models.interpolation import Points, draw_points, lerp, slerp
from rlgen.codec import LevelCodec
from rlgen.protocols import LevelModel
from rlgen.types import Key, Metrics, PyTree


class Training(NamedTuple):
    """State of a fit in progress."""

    key: Key
    variables: PyTree  # parameters and running statistics of encoder and decoder
    optimizer: PyTree
    order: Int[Array, " M"]  # indices of the levels; held-out levels come last


@dataclass(frozen=True)
class Settings:
    """Settings for fitting and proposing; `GraphVAE` and its base class describe the fields."""

    learning_rate: float
    batch_size: int
    holdout: float
    num_points: int
    noise: bool

    def __post_init__(self):
        """Check that all settings are in range."""
        for name in ("batch_size", "num_points"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout={self.holdout} must be at least 0 and less than 1")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")


@dataclass(frozen=True)
class VAEModel(LevelModel, abstract=True):
    """Base of level models; its fields configure a `VAE`, to which all methods delegate.

    Attributes:
        codec: Codec of the environment's levels.
        num_epochs: Number of passes through the set in `fit`.
        batch_size: Number of levels per gradient step.
        learning_rate: Learning rate of Adam.
        holdout: Fraction of the levels that are held out of the fit; the loss on the held-out
            levels is reported as a metric.
    """

    codec: LevelCodec = field(metadata={"config": False})
    num_epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-3
    holdout: float = 0.0

    @property
    def settings(self) -> Settings:
        """The fields that configure fitting and proposing."""
        return Settings(**{field.name: getattr(self, field.name) for field in fields(Settings)})

    def check_sizes(self, *names: str) -> None:
        """Check that the named fields are at least 1, and that heads and settings are valid.

        Raises:
            ValueError: If a field, a head or a setting is invalid. The message names the invalid
                value.
        """
        for name in names:
            if getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"{type(self).__name__}: {name}={value} must be at least 1")
        self.vae()  # constructs the heads and the settings, whose constructors check them

    @abc.abstractmethod
    def vae(self) -> "VAE":
        """Return the networks and the distributions that they parametrise."""

    def begin(self, key: Key, levels: PyTree) -> Training:
        """Return an untrained model for levels [M, ...]."""
        return self.vae().begin(key, levels)

    def train(self, state: Training, levels: PyTree, num_epochs: int) -> tuple[Training, Metrics]:
        """Train for `num_epochs` passes through levels [M, ...]; each metric is [num_epochs]."""
        return self.vae().train(state, levels, num_epochs)

    def finish(self, state: Training, levels: PyTree) -> Fitted:
        """Return the fitted networks and the latents of levels [M, ...]."""
        return self.vae().finish(state, levels)

    def fit(self, key: Key, levels: PyTree) -> Fitted:
        """Return the model fitted to levels [M, ...] for `num_epochs` passes."""
        return self.vae().fit(key, levels, self.num_epochs)

    def propose(self, key: Key, fitted: Fitted, num: int) -> tuple[PyTree, Int[Array, "n 2"]]:
        """Return new levels [num, ...], and the rows of each level's two parents, [num, 2]."""
        return self.vae().propose(key, fitted, num)

    def reconstruct(self, fitted: Fitted, levels: PyTree) -> dict[str, Float[Array, " M"]]:
        """Return the accuracy of each reconstructed part of levels [M, ...]; see `Heads.accuracy`.

        The levels need not belong to the set that the model was fitted on.
        """
        return self.vae().reconstruct(fitted, levels)


@dataclass(frozen=True)
class VAE:
    """A VAE that consists of an encoder, a decoder and the distributions of a level's parts.

    Attributes:
        codec: Codec of the environment's levels.
        encoder: Network `(values [B, ...], training) -> mean, std`. The values are the parts of B
            levels; mean and standard deviation are [B, L] each.
        decoder: Network `(latent [B, L], training) -> outputs [B, D]`. The heads use the outputs.
        heads: Distributions of the parts.
        settings: Settings for fitting and proposing.
    """

    codec: LevelCodec
    encoder: nn.Module
    decoder: nn.Module
    heads: Heads
    settings: Settings

    def begin(self, key: Key, levels: PyTree) -> Training:
        """Return an untrained model for levels [M, ...]."""
        key_encoder, key_decoder, key_order, key_training = jax.random.split(key, 4)
        values = jax.vmap(self.codec.encode)(levels)
        # One level is enough to initialise the networks.
        some = jax.tree.map(lambda x: x[:1], values)
        encoder = self.encoder.init(key_encoder, some, False)
        mean, _ = self.encoder.apply(encoder, some, False)
        decoder = self.decoder.init(key_decoder, mean, False)
        variables = {"encoder": encoder, "decoder": decoder}
        order = jnp.arange(_num_levels(levels))
        if self.settings.holdout:
            # The held-out levels are the last ones of this random order, during the whole fit.
            order = jax.random.permutation(key_order, order)
        optimizer = self._optimizer().init(_params(variables))
        return Training(key_training, variables, optimizer, order)

    def train(self, state: Training, levels: PyTree, num_epochs: int) -> tuple[Training, Metrics]:
        """Train for `num_epochs` passes through the levels [M, ...] that are not held out."""
        values = jax.vmap(self.codec.encode)(levels)
        num_fitted = self.num_fitted(_num_levels(levels))
        batch_size = min(self.settings.batch_size, num_fitted)
        num_batches = -(-num_fitted // batch_size)  # rounded up

        def batch(state: Training, rows: Array) -> tuple[Training, Metrics]:
            return self._update(state, jax.tree.map(lambda x: x[rows], values))

        def epoch(state: Training, _: None) -> tuple[Training, Metrics]:
            key, key_order = jax.random.split(state.key)
            order = jax.random.permutation(key_order, state.order[:num_fitted])
            # `resize` repeats the order from its start, so that all batches have the same shape.
            rows = jnp.resize(order, (num_batches, batch_size))
            state, metrics = jax.lax.scan(batch, state._replace(key=key), rows)
            return state, jax.tree.map(jnp.mean, metrics) | self._held_out(state, values)

        return jax.lax.scan(epoch, state, None, num_epochs)

    def finish(self, state: Training, levels: PyTree) -> Fitted:
        """Return the fitted model, with the latents of all levels [M, ...], held out or not."""
        encoder, decoder = state.variables["encoder"], state.variables["decoder"]
        mean, std = self.encode(encoder, levels)
        return Fitted(Generator(decoder, mean, std), encoder)

    def fit(self, key: Key, levels: PyTree, num_epochs: int) -> Fitted:
        """Return the model fitted to levels [M, ...] for `num_epochs` passes."""
        state, _ = self.train(self.begin(key, levels), levels, num_epochs)
        return self.finish(state, levels)

    def encode(self, encoder: PyTree, levels: PyTree) -> tuple[Array, Array]:
        """Return mean and standard deviation, [M, L] each, of the latents of levels [M, ...]."""
        # training=False: batch normalisation uses its running statistics.
        found: Any = self.encoder.apply(encoder, jax.vmap(self.codec.encode)(levels), False)
        return found

    def propose(self, key: Key, fitted: Fitted, num: int) -> tuple[PyTree, Int[Array, "n 2"]]:
        """Return new levels [num, ...], and the rows of each level's two parents, [num, 2].

        The latent of a new level is interpolated between the latents of its parents.
        """
        key_points, key_noise, key_decode = jax.random.split(key, 3)
        generator = fitted.generator
        num_levels = generator.mean.shape[0]
        points = draw_points(key_points, num_levels, num, self.settings.num_points)
        latent, std = between(points, generator)
        if self.settings.noise:
            # Sample around the interpolated mean with the interpolated standard deviation.
            latent = latent + std * jax.random.normal(key_noise, latent.shape)
        outputs: Any = self.decoder.apply(generator.decoder, latent, False)
        # `heads.sample` makes one level, from one key and one row of outputs.
        keys = jax.random.split(key_decode, num)
        made = jax.vmap(self.heads.sample)(keys, outputs)
        return jax.vmap(self.codec.decode)(made), points.parents

    def reconstruct(self, fitted: Fitted, levels: PyTree) -> dict[str, Float[Array, " M"]]:
        """Return the accuracy of each part, decoded from the latent's mean; see `Heads.accuracy`.

        Args:
            fitted: Fitted model, including the encoder.
            levels: Levels [M, ...]; they need not belong to the set.
        """
        values = jax.vmap(self.codec.encode)(levels)
        mean, _ = self.encode(fitted.encoder, levels)
        outputs: Any = self.decoder.apply(fitted.generator.decoder, mean, False)
        return jax.vmap(self.heads.accuracy)(outputs, values)

    def num_fitted(self, num_levels: int) -> int:
        """Return how many of `num_levels` levels are not held out, at least 1."""
        return max(1, int(num_levels * (1 - self.settings.holdout)))

    def _update(self, state: Training, values: Values) -> tuple[Training, Metrics]:
        key, key_noise = jax.random.split(state.key)
        params = _params(state.variables)

        def loss(params: PyTree) -> tuple[Array, tuple[PyTree, Metrics]]:
            variables = {net: {**state.variables[net], "params": params[net]} for net in params}
            return self._loss(key_noise, variables, values, True)

        (_, (variables, metrics)), grads = jax.value_and_grad(loss, has_aux=True)(params)
        steps, optimizer = self._optimizer().update(grads, state.optimizer, params)
        # Parameters come from the optimiser, running statistics from the forward pass.
        moved: PyTree = optax.apply_updates(params, steps)
        variables = {net: {**variables[net], "params": moved[net]} for net in variables}
        return Training(key, variables, optimizer, state.order), metrics

    def _loss(
        self, key: Key, variables: PyTree, values: Values, training: bool
    ) -> tuple[Float[Array, ""], tuple[PyTree, Metrics]]:
        """Return minus the weighted ELBO, estimated with one posterior sample per level."""
        of_encoder, of_decoder = variables["encoder"], variables["decoder"]
        # With `mutable`, `apply` also returns the updated running statistics.
        changes = ["batch_stats"] if training else []
        (mean, std), told = self.encoder.apply(of_encoder, values, training, mutable=changes)
        latent = mean + std * jax.random.normal(key, mean.shape)  # reparametrisation trick
        outputs, heard = self.decoder.apply(of_decoder, latent, training, mutable=changes)
        found = jax.vmap(self.heads.log_likelihood)(outputs, values)
        divergence = kl(mean, std).mean()
        found = {name: x.mean() for name, x in found.items()}
        bound = self.heads.weighted(found) - self.heads.objective.kl_coef * divergence
        # The parameters are unchanged; `apply` only updated the running statistics.
        variables = {"encoder": of_encoder | told, "decoder": of_decoder | heard}
        metrics = {"loss": -bound, "kl": divergence}
        return -bound, (variables, metrics | {f"log_{name}": x for name, x in found.items()})

    def _held_out(self, state: Training, values: Values) -> Metrics:
        """Return the loss on the held-out levels, with the networks in evaluation mode."""
        # The sizes are static, so this branch is decided at trace time.
        num_fitted = self.num_fitted(state.order.size)
        if num_fitted == state.order.size:
            return {}
        rows = state.order[num_fitted:]
        rest = jax.tree.map(lambda x: x[rows], values)
        # The next epoch splits the same key. This is harmless, because the noise drawn here affects
        # only this metric.
        return {"held_out_loss": self._loss(state.key, state.variables, rest, False)[0]}

    def _optimizer(self) -> optax.GradientTransformation:
        return optax.adam(self.settings.learning_rate)


def kl(mean: Float[Array, "B L"], std: Float[Array, "B L"]) -> Float[Array, " B"]:
    """Kullback-Leibler divergence of normal distributions from the standard normal, per dimension.

    The unit is nats. This is the closed form of Kingma and Welling, appendix B, divided by the
    number L of dimensions.
    """
    return -0.5 * (1 + 2 * jnp.log(std) - mean**2 - std**2).mean(-1)


def between(points: Points, generator: Generator) -> tuple[Array, Array]:
    """Return mean (by slerp) and standard deviation (by lerp) at each point, [n, L] each."""
    first, second = points.parents[:, 0], points.parents[:, 1]
    mean = jax.vmap(slerp)(points.position, generator.mean[first], generator.mean[second])
    std = jax.vmap(lerp)(points.position, generator.std[first], generator.std[second])
    return mean, std


def _params(variables: PyTree) -> PyTree:
    return {net: own["params"] for net, own in variables.items()}


def _num_levels(levels: PyTree) -> int:
    return jax.tree.leaves(levels)[0].shape[0]
