"""Evolution strategies of the library evosax, by name; no other module of rlgen calls evosax.

A strategy maintains a distribution over parameters. `ask` samples candidates from the distribution,
and `tell` updates the distribution from the fitness of the candidates.

Source: Salimans et al., 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning" (OpenES). The default settings are those in the code of Jackson et al., 2024, "Discovering
Temporally-Aware Reinforcement Learning Algorithms".
"""

import inspect
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import evosax.algorithms
import jax
import jax.numpy as jnp
import optax
from evosax.core.fitness_shaping import weights_fitness_shaping_fn
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from rlgen.protocols import check_numbers
from rlgen.registry import did_you_mean
from rlgen.types import Key, PyTree

Shaping = Literal["pair-rank", "centred-rank", "none"]

MIRRORED = ("ars", "asebo", "cr-fm-nes", "open-es", "pgpe")
"""Strategies with antithetic sampling, in which candidates i and i + P/2 of P mirror each other."""

_UNFIT = ("persistent-es", "noise-reuse-es", "guided-es", "lm-ma-es")
"""Strategies of evosax that are not offered.

`persistent-es` and `noise-reuse-es` evaluate parts of a lifetime, but fitness is defined here for a
whole lifetime. `guided-es` needs gradients from another source. `lm-ma-es` produces non-finite
values on a quadratic in evosax 0.3.2.
"""


@dataclass(frozen=True)
class Strategy:
    """A distribution-based strategy of evosax, with its fitness shaping.

    Attributes:
        name: Name of the strategy, such as `open-es`, `pgpe`, `snes` or `sep-cma-es`.
        learning_rate: Step size of Adam in the first generation. It is used by strategies that
            estimate a gradient.
        learning_rate_decay: Factor that multiplies the learning rate after each generation.
        learning_rate_end: Lower bound of the learning rate.
        beta1: Decay of Adam's first moment.
        sigma: Standard deviation of candidates in the first generation.
        sigma_decay: Factor that multiplies sigma after each generation, in strategies that do not
            adapt sigma.
        sigma_end: Lower bound of sigma in strategies that do not adapt sigma.
        shaping: Fitness shaping. `pair-rank`: 0.5 for the better of two mirrored candidates, -0.5
            for the worse, and 0 for ties. `centred-rank`: rank among all candidates, scaled to the
            range from -0.5 to 0.5. `none`: raw fitness.

    Raises:
        ValueError: If the strategy is unknown, a field is out of range, or `pair-rank` is chosen
            for a strategy without mirrored candidates.
    """

    name: str = "open-es"
    learning_rate: float = 0.01
    learning_rate_decay: float = 0.999
    learning_rate_end: float = 1e-5
    beta1: float = 0.99
    sigma: float = 0.1
    sigma_decay: float = 1.0
    sigma_end: float = 0.0
    shaping: Shaping = "pair-rank"

    def __post_init__(self):
        if self.name not in strategies():
            known = did_you_mean(self.name, sorted(strategies()))
            raise ValueError(f"unknown evolution strategy {self.name!r}; {known}")
        if self.shaping not in get_args(Shaping):
            raise ValueError(
                f"strategy.shaping must be one of {', '.join(get_args(Shaping))}, got "
                f"{self.shaping!r}"
            )
        check_numbers(
            self,
            "learning_rate",
            "sigma",
            "learning_rate_decay",
            "sigma_decay",
            above=0,
            owner="strategy.",
        )
        check_numbers(self, "learning_rate_end", "sigma_end", least=0, owner="strategy.")
        if not 0 <= self.beta1 < 1:
            raise ValueError(f"strategy.beta1 must lie in [0, 1), got {self.beta1}")
        if self.shaping == "pair-rank" and self.name not in MIRRORED:
            raise ValueError(
                f"shaping='pair-rank' compares mirrored candidates, but {self.name} has none; use "
                f"shaping='centred-rank', or one of the strategies {', '.join(MIRRORED)}"
            )

    def init(self, key: Key, mean: PyTree, population: int) -> PyTree:
        """Return the initial distribution, centred on the given parameters."""
        algorithm, params = self._algorithm(mean, population)
        with _promoting():
            return algorithm.init(key, mean, params)

    def ask(self, key: Key, state: PyTree, like: PyTree, population: int) -> tuple[PyTree, PyTree]:
        """Sample the candidates [P, ...] of a generation, and return them with the new state.

        Args:
            key: Random key.
            state: State from `init` or the last `tell`.
            like: Parameters; only their shapes and dtypes are used.
            population: Population size P. With mirrored sampling, candidate i + P/2 mirrors
                candidate i.
        """
        algorithm, params = self._algorithm(like, population)
        with _promoting():
            return algorithm.ask(key, state, params)

    def tell(
        self, key: Key, state: PyTree, candidates: PyTree, fitness: Float[Array, " P"]
    ) -> PyTree:
        """Update the distribution from the fitness of a generation.

        Args:
            key: Random key.
            state: State from `ask`.
            candidates: Candidates from `ask`, [P, ...].
            fitness: Fitness of each candidate; higher is better, and NaN is treated as the worst.
        """
        like = jax.tree.map(lambda x: x[0], candidates)
        algorithm, params = self._algorithm(like, fitness.size)
        told = -shaped(fitness, self.shaping)  # evosax minimises
        with _promoting():
            return algorithm.tell(key, candidates, told, state, params)[0]

    def mean(self, state: PyTree, like: PyTree) -> PyTree:
        """Return the mean of the distribution as parameters with the structure of `like`."""
        # evosax stores the mean as a flat vector. `like` may contain only shapes, but
        # `ravel_pytree` needs arrays.
        with jax.ensure_compile_time_eval():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return ravel_pytree(zeros)[1](state.mean)

    def _algorithm(self, like: PyTree, population: int) -> tuple[Any, Any]:
        # `population` is static, so this error is raised while tracing.
        if population % 2 and self.name in MIRRORED:
            raise ValueError(
                f"{self.name} samples mirrored pairs of candidates, so the population must be "
                f"even, got {population}"
            )
        made = strategies()[self.name]
        known = inspect.signature(made).parameters
        options: dict[str, Any] = {"metrics_fn": _no_metrics}
        if known["fitness_shaping_fn"].default is not weights_fitness_shaping_fn:
            # Only strategies without rank-based recombination weights get these options. In the
            # other strategies, step sizes are tuned to the weights, so the default step sizes are
            # kept.
            options |= {
                "optimizer": self._optimizer(),
                "std_schedule": _falling(self.sigma, self.sigma_decay, self.sigma_end),
                "fitness_shaping_fn": _as_it_is,
            }
        # The arrays are concrete even while a caller is being traced, because they are constants of
        # the algorithm.
        with jax.ensure_compile_time_eval(), _promoting():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
            algorithm = made(
                population, zeros, **{name: x for name, x in options.items() if name in known}
            )
            params = algorithm.default_params
            # Adaptive strategies also start from this standard deviation.
            if hasattr(params, "std_init"):
                params = params.replace(std_init=jnp.float32(self.sigma))
        return algorithm, params

    def _optimizer(self) -> optax.GradientTransformation:
        rate = _falling(self.learning_rate, self.learning_rate_decay, self.learning_rate_end)
        return optax.adam(rate, b1=self.beta1)


def strategies() -> dict[str, type]:
    """Return the distribution-based strategies of evosax that rlgen supports, by name.

    The constructor of a supported strategy requires only a population size and a solution.
    """
    known = evosax.algorithms.distribution_based_algorithms
    found = {made.__module__.rpartition(".")[2].replace("_", "-"): made for made in known.values()}
    return {name: x for name, x in found.items() if name not in _UNFIT and _is_plain(x)}


def shaped(fitness: Float[Array, " P"], shaping: str) -> Float[Array, " P"]:
    """Return the shaped fitness of a generation; higher is better.

    Args:
        fitness: Fitness of each candidate; NaN is treated as worse than all others.
        shaping: As in `Strategy`; for `pair-rank`, candidates i and i + P/2 are a pair.
    """
    # NaN is replaced by -inf, because every comparison with NaN is False and NaN has no rank.
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    if shaping == "pair-rank":
        # [P/2] each: fitness at mean + σ ε and at mean - σ ε.
        first, second = jnp.split(fitness, 2)
        # Fitness 1, 0.5 (tie) and 0 would be equivalent, because a constant cancels between
        # mirrored candidates. With 0.5, 0 and -0.5, a tie contributes exactly 0.
        win = 0.5 * jnp.where(first == second, 0.0, jnp.where(first > second, 1.0, -1.0))
        return jnp.concatenate([win, -win])
    if shaping == "centred-rank":
        below = (fitness[None] < fitness[:, None]).sum(1)
        up_to = (fitness[None] <= fitness[:, None]).sum(1)
        rank = 0.5 * (below + up_to - 1)  # candidates of equal fitness get their mean rank
        return rank / max(fitness.size - 1, 1) - 0.5
    # Raw fitness must be finite. Other values are replaced by the lowest finite fitness or, if no
    # fitness is finite, by 0.
    lowest = jnp.where(jnp.isfinite(fitness), fitness, jnp.inf).min()
    lowest = jnp.where(jnp.isfinite(lowest), lowest, 0.0)
    return jnp.where(jnp.isfinite(fitness), fitness, lowest)


def _is_plain(made: type) -> bool:
    """Return whether the constructor requires only a population size and a solution."""
    given = ("population_size", "solution")
    needed = inspect.signature(made).parameters.values()
    own = [x.name for x in needed if x.default is inspect.Parameter.empty]
    return tuple(own) == given


def _promoting() -> AbstractContextManager:
    """Allow the addition of vectors to matrices, which evosax uses and rlgen's tests forbid."""
    return jax.numpy_rank_promotion("allow")


def _falling(start: float, decay: float, end: float) -> optax.Schedule:
    return lambda generation: jnp.maximum(start * decay**generation, end)


def _as_it_is(population: Array, fitness: Array, state: PyTree, params: PyTree) -> Array:
    del population, state, params
    return fitness


def _no_metrics(key: Key, population: Array, fitness: Array, state: PyTree, params: PyTree) -> dict:
    """Replace evosax's metrics, which would store the parameters of every generation."""
    del key, population, fitness, state, params
    return {}
