"""Layers of the encoders and decoders of level models."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen.types import Key

LEAST_STD = 1e-6
"""Lower bound of the posterior's standard deviation, which keeps its logarithm finite."""


class Linear(nn.Module):
    """Dense layer with weights and biases initialised from U(±1/√inputs), as in PyTorch.

    Source: He et al., 2015, "Delving Deep into Rectifiers", with PyTorch's leaky-ReLU slope √5.
    """

    features: int
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Apply the layer."""
        bound = 1 / math.sqrt(x.shape[-1])

        # The bound is explicit, because flax's initialisers derive it from the parameter's shape.
        # The shape of a bias does not contain the number of inputs.
        def uniform(key: Key, shape: tuple[int, ...], _: object = None) -> Array:
            return jax.random.uniform(key, shape, jnp.float32, -bound, bound)

        dense = nn.Dense(self.features, self.use_bias, kernel_init=uniform, bias_init=uniform)
        return dense(x)


class NormRelu(nn.Module):
    """Batch normalisation over all axes except the last, followed or preceded by a ReLU.

    Training uses the statistics of the batch. Evaluation uses running means with momentum 0.9.
    """

    relu_first: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"], training: bool) -> Float[Array, "*B D"]:
        """Normalise and rectify."""
        # In flax, momentum is the weight of the old statistics; in PyTorch, it is the weight of the
        # new statistics. The value 0.9 is therefore equivalent to PyTorch's default of 0.1.
        norm = nn.BatchNorm(use_running_average=not training, momentum=0.9, epsilon=1e-5)
        return norm(nn.relu(x)) if self.relu_first else nn.relu(norm(x))


class Posterior(nn.Module):
    """Mean and standard deviation of a latent vector, each computed by a separate layer."""

    num_latents: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H"]) -> tuple[Float[Array, "B L"], Float[Array, "B L"]]:
        """Return mean and standard deviation for a batch of hidden vectors."""
        mean = Linear(self.num_latents, name="mean")(x)
        std = nn.softplus(Linear(self.num_latents, name="std")(x))
        # softplus underflows to 0 for large negative inputs.
        return mean, jnp.maximum(std, LEAST_STD)


class Decoder(nn.Module):
    """Decoder from a latent vector to the outputs of all heads, with two hidden layers.

    Attributes:
        num_outputs: Number of outputs of all heads together, D.
        hidden_size: Size of both hidden layers.
        normalize: Apply batch normalisation after the ReLU of each hidden layer.
    """

    num_outputs: int
    hidden_size: int
    normalize: bool

    @nn.compact
    def __call__(self, latent: Float[Array, "B L"], training: bool) -> Float[Array, "B D"]:
        """Return the outputs for a batch."""
        x = latent
        for _ in range(2):
            x = Linear(self.hidden_size)(x)
            x = NormRelu(relu_first=True)(x, training) if self.normalize else nn.relu(x)
        return Linear(self.num_outputs)(x)
