"""Evolution strategies of evosax by name; no other module calls evosax.

A strategy maintains a distribution over parameters: `ask` samples candidates from it, and `tell`
updates it from their fitness.

Sources: Salimans et al., 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning" (OpenES). The default settings are those released with Jackson et al., 2024, "Discovering
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
"""Strategies with antithetic sampling: candidate i + P/2 mirrors candidate i about the mean."""

_UNFIT = ("persistent-es", "noise-reuse-es", "guided-es", "lm-ma-es")
"""Strategies that are not offered. The first two evaluate parts of a lifetime, but here fitness is
that of a whole lifetime; the third needs gradients from elsewhere; the last, in evosax 0.3.2,
produces non-finite values on a quadratic."""


@dataclass(frozen=True)
class Strategy:
    """A distribution-based strategy of evosax, with its fitness shaping.

    Attributes:
        name: Name of the strategy, such as `open-es`, `pgpe`, `snes` or `sep-cma-es`.
        learning_rate: Step size of Adam in the first generation; used by strategies that follow a
            gradient.
        learning_rate_decay: Factor on the learning rate per generation.
        learning_rate_end: Lower bound of the learning rate.
        beta1: Decay of Adam's first moment.
        sigma: Standard deviation of candidates in the first generation.
        sigma_decay: Factor on sigma per generation, for strategies that do not adapt it.
        sigma_end: Lower bound of sigma.
        shaping: Fitness shaping. `pair-rank`: 0.5 for the better of two mirrored candidates, -0.5
            for the worse one, 0 for ties. `centred-rank`: rank among all candidates, from -0.5 to
            0.5. `none`: raw fitness.

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
                f"shaping='pair-rank' compares mirrored candidates, and {self.name} has none; use "
                f"shaping='centred-rank', or one of {', '.join(MIRRORED)}"
            )

    def init(self, key: Key, mean: PyTree, population: int) -> PyTree:
        """Return the initial distribution, centred on the given parameters."""
        algorithm, params = self._algorithm(mean, population)
        with _promoting():
            return algorithm.init(key, mean, params)

    def ask(self, key: Key, state: PyTree, like: PyTree, population: int) -> tuple[PyTree, PyTree]:
        """Sample the candidates of a generation, [P, ...], and return them with the new state.

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
        """Return the mean of the distribution as parameters like `like`."""
        # evosax keeps the mean as a flat vector; `like` may hold shapes only, hence the zeros.
        with jax.ensure_compile_time_eval():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return ravel_pytree(zeros)[1](state.mean)

    def _algorithm(self, like: PyTree, population: int) -> tuple[Any, Any]:
        # `population` is static, so this is raised while tracing, before anything runs.
        if population % 2 and self.name in MIRRORED:
            raise ValueError(
                f"{self.name} mirrors every candidate, so the population must be even, got "
                f"{population}"
            )
        made = strategies()[self.name]
        known = inspect.signature(made).parameters
        options: dict[str, Any] = {"metrics_fn": _no_metrics}
        if known["fitness_shaping_fn"].default is not weights_fitness_shaping_fn:
            # The other strategies use rank-based recombination weights, to which their own step
            # sizes are tuned, so their defaults are kept.
            options |= {
                "optimizer": self._optimizer(),
                "std_schedule": _falling(self.sigma, self.sigma_decay, self.sigma_end),
                "fitness_shaping_fn": _as_it_is,
            }
        # Concrete even while a caller is being traced: the arrays are constants of the algorithm.
        with jax.ensure_compile_time_eval(), _promoting():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
            algorithm = made(
                population, zeros, **{name: x for name, x in options.items() if name in known}
            )
            params = algorithm.default_params
            # Set for adaptive strategies too, whose standard deviation starts here.
            if hasattr(params, "std_init"):
                params = params.replace(std_init=jnp.float32(self.sigma))
        return algorithm, params

    def _optimizer(self) -> optax.GradientTransformation:
        rate = _falling(self.learning_rate, self.learning_rate_decay, self.learning_rate_end)
        return optax.adam(rate, b1=self.beta1)


def strategies() -> dict[str, type]:
    """Return evosax's distribution-based strategies that need only a size and a start, by name."""
    known = evosax.algorithms.distribution_based_algorithms
    found = {made.__module__.rpartition(".")[2].replace("_", "-"): made for made in known.values()}
    return {name: x for name, x in found.items() if name not in _UNFIT and _is_plain(x)}


def shaped(fitness: Float[Array, " P"], shaping: str) -> Float[Array, " P"]:
    """Return the shaped fitness of a generation; higher is better.

    Args:
        fitness: Fitness of each candidate; NaN is treated as worse than all others.
        shaping: As in `Strategy`; for `pair-rank`, candidates i and i + P/2 are a pair.
    """
    # Ranks are defined for -inf but not for NaN, which compares as False with everything.
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    if shaping == "pair-rank":
        # [P/2] each: fitness at mean + σ ε and at mean - σ ε.
        first, second = jnp.split(fitness, 2)
        # Equivalent to 1, 0.5 and 0, since a constant cancels between mirrored candidates, but with
        # 0 a tie contributes exactly nothing.
        win = 0.5 * jnp.where(first == second, 0.0, jnp.where(first > second, 1.0, -1.0))
        return jnp.concatenate([win, -win])
    if shaping == "centred-rank":
        below = (fitness[None] < fitness[:, None]).sum(1)
        up_to = (fitness[None] <= fitness[:, None]).sum(1)
        rank = 0.5 * (below + up_to - 1)  # equals share the mean of their ranks
        return rank / max(fitness.size - 1, 1) - 0.5
    # Raw fitness must be finite: non-finite values become the lowest finite one, or 0.
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
    """Allow rank promotion: evosax adds vectors to matrices, which rlgen's tests forbid."""
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
