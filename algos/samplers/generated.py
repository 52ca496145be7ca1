"""Levels from a generative model fitted on a finite set: the proposals of DRED.

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
    """The fitted model; it stays constant during a run."""

    fitted: PyTree


@dataclass(frozen=True)
class Generated(Sampler):
    """Fills each queue position of each free slot with a level decoded from the model.

    The latent vector of a proposed level is interpolated between the latents of two levels of the
    set. If `path` is "", the model is fitted before the first update, inside the program that
    creates the initial state of the run. Otherwise a model fitted by `rlgen fit-generator` is
    loaded. All seeds of a run share the model, and checkpoints contain it, without its encoder.

    Attributes:
        model: Generative model of the environment's levels.
        data: Finite set that the model is fitted on.
        seed: Seed of the fit.
        path: File or folder of a fitted model with the kind and sizes of `model`; "" fits a new
            model.

    Raises:
        ValueError: If the environment has no codec, if the file contains another kind of model, or
            if the model in the file was fitted on another environment.
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
        """Short description of the work in `init`; "" if `init` only reads a file."""
        if self.path:
            return ""
        kind, num = type(self.model).__name__, len(self.data.level_set)
        return f"fitting a {kind} on {num} levels, {self.model.num_epochs} epochs"

    def init(self, key: Key, memory: PyTree) -> GeneratedState:
        """Return the fitted model; the key is unused, since all seeds share the model."""
        del key, memory
        if self.path:
            return GeneratedState(self._read())
        # All inputs of the fit are constants. The barrier hides this from XLA, which would
        # otherwise try to fit the model by constant folding at compile time.
        key, levels = jax.lax.optimization_barrier(
            (jax.random.key(self.seed), self.data.level_set.level)
        )
        # Proposals need only the decoder and the latents; dropping the encoder shrinks checkpoints.
        return GeneratedState(self.model.fit(key, levels)._replace(encoder=()))

    def example_level(self) -> PyTree:
        """Return the first level of the set."""
        return self.data.example_level()

    def propose(
        self, keys: Keys, state: GeneratedState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[GeneratedState, Slots]:
        """Fill the free slots with generated levels, with weight 1 in the loss."""
        level, _ = self.model.propose(keys.own, state.fitted, slots.buffer_index.size)
        # [N * R, ...] -> [N, R, ...]
        level = jax.tree.map(lambda x, y: x.reshape(y.shape), level, slots.level)
        return state, fill_new(slots, free, level)

    def _read(self) -> PyTree:
        return load_fitted(self.path, self.model, self.env)


def model_for(env: LevelEnv) -> LevelModel:
    """Build a graph-vae if the environment's levels have a grid of cells, else an mlp-vae.

    Raises:
        ValueError: If the environment has no codec.
    """
    require(env, LevelEnv.codec, "a generative model of levels")
    parts = env.codec().parts
    name = "graph-vae" if any(isinstance(part, Cells) for part in parts) else "mlp-vae"
    return registry.load("level-models", name).build(env)


def build(env: LevelEnv, **fields: Any) -> Generated:
    """Build a generator fitted on the environment's suite `train`, or else on sampled levels."""
    return Generated(env, model_for(env), own_set(env), **fields)


def tiny(env: LevelEnv) -> Generated:
    """Return the smallest instance, for the tests in `tests/laws`."""
    model = registry.load("level-models", "mlp-vae").tiny(env)
    return Generated(env, model, Fixed(env, num_levels=4))
