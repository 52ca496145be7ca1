"""Evolution strategies by name: evosax, behind the one file that knows how it is called.

A strategy keeps a distribution over parameters: `ask` draws candidates from it, `tell` moves it by
how well they did.

Sources: Salimans et al., 2017, "Evolution Strategies as a Scalable Alternative to Reinforcement
Learning" (OpenES); the settings by default are those that Jackson et al., 2024, "Discovering
Temporally-Aware Reinforcement Learning Algorithms", released.
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
"""Strategies whose candidate i + P/2 mirrors candidate i at the mean."""

_UNFIT = ("persistent-es", "noise-reuse-es", "guided-es", "lm-ma-es")
"""The first two judge parts of a life, where here it is judged as a whole; the third wants
gradients from elsewhere; the last, in evosax 0.3.2, loses its numbers on a quadratic."""


@dataclass(frozen=True)
class Strategy:
    """One of evosax's distribution-based strategies, and how fitness is told to it.

    Attributes:
        name: of the strategy, such as `open-es`, `pgpe`, `snes`, `sep-cma-es`.
        learning_rate: of Adam, in the first generation; of strategies that follow a gradient.
        learning_rate_decay: factor of each generation.
        learning_rate_end: where it stops falling.
        beta1: Adam's decay of the first moment.
        sigma: deviation of candidates in the first generation.
        sigma_decay: factor of each generation; of strategies that do not adapt it.
        sigma_end: where it stops falling.
        shaping: what candidates are told apart by. `pair-rank`: which of two mirrored candidates
            did better, and nothing else; ties count for neither. `centred-rank`: the rank among
            all, from -0.5 to 0.5. `none`: fitness itself.

    Raises:
        ValueError: an unknown strategy, a field outside its range, or ranks within pairs of a
            strategy that has no pairs.
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
        """The distribution before the first generation, around the given parameters."""
        algorithm, params = self._algorithm(mean, population)
        with _promoting():
            return algorithm.init(key, mean, params)

    def ask(self, key: Key, state: PyTree, like: PyTree, population: int) -> tuple[PyTree, PyTree]:
        """The candidates of a generation, [P, ...], and the new state.

        Args:
            key: consumed.
            state: from `init` or the last `tell`.
            like: parameters, of which only shapes are read.
            population: P; candidate i + P/2 is the mirror image of candidate i, if there is one.
        """
        algorithm, params = self._algorithm(like, population)
        with _promoting():
            return algorithm.ask(key, state, params)

    def tell(
        self, key: Key, state: PyTree, candidates: PyTree, fitness: Float[Array, " P"]
    ) -> PyTree:
        """The distribution after a generation.

        Args:
            key: consumed.
            state: from `ask`.
            candidates: from `ask`, [P, ...].
            fitness: of each, higher is better; what is no number counts as worst.
        """
        like = jax.tree.map(lambda x: x[0], candidates)
        algorithm, params = self._algorithm(like, fitness.size)
        told = -shaped(fitness, self.shaping)  # evosax minimises
        with _promoting():
            return algorithm.tell(key, candidates, told, state, params)[0]

    def mean(self, state: PyTree, like: PyTree) -> PyTree:
        """The parameters around which candidates are drawn."""
        with jax.ensure_compile_time_eval():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        return ravel_pytree(zeros)[1](state.mean)

    def _algorithm(self, like: PyTree, population: int) -> tuple[Any, Any]:
        if population % 2 and self.name in MIRRORED:
            raise ValueError(
                f"{self.name} mirrors every candidate, so the population must be even, got "
                f"{population}"
            )
        made = strategies()[self.name]
        known = inspect.signature(made).parameters
        options: dict[str, Any] = {"metrics_fn": _no_metrics}
        if known["fitness_shaping_fn"].default is not weights_fitness_shaping_fn:
            # The others weigh candidates by rank, and their step sizes belong to those weights.
            options |= {
                "optimizer": self._optimizer(),
                "std_schedule": _falling(self.sigma, self.sigma_decay, self.sigma_end),
                "fitness_shaping_fn": _as_it_is,
            }
        with jax.ensure_compile_time_eval(), _promoting():
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
            algorithm = made(
                population, zeros, **{name: x for name, x in options.items() if name in known}
            )
            params = algorithm.default_params
            if hasattr(params, "std_init"):
                params = params.replace(std_init=jnp.float32(self.sigma))
        return algorithm, params

    def _optimizer(self) -> optax.GradientTransformation:
        rate = _falling(self.learning_rate, self.learning_rate_decay, self.learning_rate_end)
        return optax.adam(rate, b1=self.beta1)


def strategies() -> dict[str, type]:
    """Evosax's distribution-based strategies that need nothing but a size and a start, by name."""
    known = evosax.algorithms.distribution_based_algorithms
    found = {made.__module__.rpartition(".")[2].replace("_", "-"): made for made in known.values()}
    return {name: x for name, x in found.items() if name not in _UNFIT and _is_plain(x)}


def shaped(fitness: Float[Array, " P"], shaping: str) -> Float[Array, " P"]:
    """What a strategy is told of a generation; higher is better.

    Args:
        fitness: what is no number counts as worse than all others.
        shaping: see `Strategy`; for `pair-rank`, i and i + P/2 are a pair.
    """
    fitness = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
    if shaping == "pair-rank":
        first, second = jnp.split(fitness, 2)
        # As mirrored candidates cancel out, this is 1, 0.5 and 0; but ties add nothing to the bit.
        win = 0.5 * jnp.where(first == second, 0.0, jnp.where(first > second, 1.0, -1.0))
        return jnp.concatenate([win, -win])
    if shaping == "centred-rank":
        below = (fitness[None] < fitness[:, None]).sum(1)
        up_to = (fitness[None] <= fitness[:, None]).sum(1)
        rank = 0.5 * (below + up_to - 1)  # equals share the mean of their ranks
        return rank / max(fitness.size - 1, 1) - 0.5
    lowest = jnp.where(jnp.isfinite(fitness), fitness, jnp.inf).min()
    lowest = jnp.where(jnp.isfinite(lowest), lowest, 0.0)
    return jnp.where(jnp.isfinite(fitness), fitness, lowest)


def _is_plain(made: type) -> bool:
    given = ("population_size", "solution")
    needed = inspect.signature(made).parameters.values()
    own = [x.name for x in needed if x.default is inspect.Parameter.empty]
    return tuple(own) == given


def _promoting() -> AbstractContextManager:
    """Evosax adds vectors to matrices, which rlgen's own tests forbid."""
    return jax.numpy_rank_promotion("allow")


def _falling(start: float, decay: float, end: float) -> optax.Schedule:
    return lambda generation: jnp.maximum(start * decay**generation, end)


def _as_it_is(population: Array, fitness: Array, state: PyTree, params: PyTree) -> Array:
    del population, state, params
    return fitness


def _no_metrics(key: Key, population: Array, fitness: Array, state: PyTree, params: PyTree) -> dict:
    """Evosax's own would keep copies of the parameters for every generation."""
    del key, population, fitness, state, params
    return {}
