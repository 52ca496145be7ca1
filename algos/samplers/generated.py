"""Levels out of a generative model that was fitted on a finite set: the proposals of VAE-DRED.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design".
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool

from rlgen import registry
from rlgen.algos.level_models.files import load_fitted
from rlgen.algos.samplers.fixed import Fixed, own_set
from rlgen.codec import Cells
from rlgen.curriculum import fill_new
from rlgen.protocols import LevelEnv, LevelModel, Sampler
from rlgen.registry import require
from rlgen.types import Key, Keys, PyTree, Slots


class GeneratedState(NamedTuple):
    """The fitted model, which never changes."""

    fitted: PyTree


@dataclass(frozen=True)
class Generated(Sampler):
    """Fills each free slot, and each place of its queue, with a level between two of the set.

    The model is fitted before the first update, inside the program that makes the run's first
    state, unless `path` names one that `rlgen fit-generator` has fitted. It is the same for all
    seeds of a run, and part of the checkpoints.

    Attributes:
        model: of the environment's levels.
        data: the set that it is fitted on.
        seed: of the fit.
        path: file or folder of a fitted model, of the same kind and sizes; "" to fit one.

    Raises:
        ValueError: an environment without a codec, or a file of another model or environment.
    """

    env: LevelEnv
    model: LevelModel
    data: Fixed
    seed: int = 0
    path: str = ""

    def __post_init__(self):
        require(self.env, LevelEnv.codec, "a generative model of levels")
        if self.path:
            self._read()

    @property
    def preparation(self) -> str:
        """What `init` does; "" if it only reads a file."""
        if self.path:
            return ""
        kind, num = type(self.model).__name__, len(self.data.level_set)
        return f"fitting a {kind} on {num} levels, {self.model.num_epochs} epochs"

    def init(self, key: Key, memory: PyTree) -> GeneratedState:
        """The fitted model; the key is not used, as all seeds share it."""
        del key, memory
        if self.path:
            return GeneratedState(self._read())
        # Behind a barrier, or the compiler would try to fit the model itself.
        key, levels = jax.lax.optimization_barrier(
            (jax.random.key(self.seed), self.data.level_set.level)
        )
        return GeneratedState(self.model.fit(key, levels)._replace(encoder=()))

    def example_level(self) -> PyTree:
        """The first level of the set."""
        return self.data.example_level()

    def propose(
        self, keys: Keys, state: GeneratedState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[GeneratedState, Slots]:
        """Generated levels, of weight 1, for the free slots."""
        level, _ = self.model.propose(keys.own, state.fitted, slots.buffer_index.size)
        level = jax.tree.map(lambda x, y: x.reshape(y.shape), level, slots.level)
        return state, fill_new(slots, free, level)

    def _read(self) -> PyTree:
        return load_fitted(self.path, self.model, self.env)


def model_for(env: LevelEnv) -> LevelModel:
    """The kind of model that suits the environment's levels: of graphs for grids, else of vectors.

    Raises:
        ValueError: the environment has no codec.
    """
    require(env, LevelEnv.codec, "a generative model of levels")
    parts = env.codec().parts
    name = "graph-vae" if any(isinstance(part, Cells) for part in parts) else "mlp-vae"
    return registry.load("level-models", name).build(env)


def build(env: LevelEnv, **fields: Any) -> Generated:
    """Levels like those of the training set that ships with the environment, or of sampled ones."""
    return Generated(env, model_for(env), own_set(env), **fields)


def tiny(env: LevelEnv) -> Generated:
    """The smallest instance, for tests of laws."""
    model = registry.load("level-models", "mlp-vae").tiny(env)
    return Generated(env, model, Fixed(env, num_levels=4))
