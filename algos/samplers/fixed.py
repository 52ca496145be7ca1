"""A finite training set: every level is drawn uniformly from the same M levels.

The protocol of the generalisation-gap literature (Cobbe et al., 2019, "Quantifying Generalization
in Reinforcement Learning"): train on M levels, test on others.
"""

import functools
import hashlib
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt32

from rlgen.curriculum import fill_new
from rlgen.levels import LevelSet
from rlgen.protocols import LevelEnv, Sampler
from rlgen.registry import did_you_mean, require
from rlgen.types import Key, Keys, PyTree, Slots

_MAX_ROUNDS = 8


class FixedState(NamedTuple):
    """Where an epoch without replacement stands; unused otherwise."""

    seed: UInt32[Array, ""]
    epoch: Int[Array, ""]
    position: Int[Array, ""]  # levels of this epoch already handed out


@dataclass(frozen=True)
class Fixed(Sampler):
    """Each free slot, and each place of its queue, gets its own uniform draw from the set.

    The set is a constant of the program: the same for all seeds of a run, whatever their keys. It
    is told apart by `digest`, from the content of its levels.

    Attributes:
        num_levels: M. Distinct levels are sampled until there are so many; of a family that has
            fewer, all that were found make the set, with a warning. With `path` or `levels`, it
            becomes the number of those.
        seed: of the sampled set.
        path: a level file to take the set from, in place of sampling; or the name of one of the
            environment's suites, such as `train`.
        shuffle: whether every level is played once before any is played again.
        levels: a set made elsewhere, in place of both. Not part of the config, as it is an array;
            `digest` is.
        level_set: the set in use, distinct levels only.
        digest: 16 hexadecimal digits; equal for sets of equal levels in equal order.

    Raises:
        ValueError: an empty set, a bad level file, or two sources of levels.
    """

    env: LevelEnv
    num_levels: int = 200
    seed: int = 0
    path: str = ""
    shuffle: bool = False
    levels: LevelSet | tuple[()] = field(
        default=(), repr=False, compare=False, metadata={"config": False}
    )
    level_set: LevelSet = field(init=False, repr=False, compare=False, metadata={"config": False})
    digest: str = field(init=False, metadata={"config": False})

    def __post_init__(self):
        if self.num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, got {self.num_levels}")
        if self.path and isinstance(self.levels, LevelSet):
            raise ValueError("give either path or levels, not both")
        given = _load(self.env, self.path) if self.path else self.levels
        if isinstance(given, LevelSet):
            chosen = _distinct(given.level, np.asarray(given.hash), given.names, len(given))
            object.__setattr__(self, "num_levels", len(chosen))
        else:
            chosen = _sample(self.env, self.num_levels, self.seed)
        object.__setattr__(self, "level_set", chosen)
        object.__setattr__(self, "digest", _digest(np.asarray(chosen.hash)))

    @property
    def is_set_sampled(self) -> bool:
        """Not if it is of a file or made elsewhere."""
        return not self.path and not isinstance(self.levels, LevelSet)

    def init(self, key: Key, memory: PyTree) -> FixedState:
        """An epoch that begins."""
        zero = jnp.zeros((), jnp.int32)
        return FixedState(jax.random.bits(key), zero, zero)

    def example_level(self) -> PyTree:
        """The first level of the set."""
        return jax.tree.map(lambda x: x[0], self.level_set.level)

    def propose(
        self, keys: Keys, state: FixedState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[FixedState, Slots]:
        """Levels of the set, of weight 1, for the free slots."""
        if self.shuffle:
            state, index = self._next_of_epoch(
                state, jnp.broadcast_to(free[:, None], slots.buffer_index.shape)
            )
        else:
            index = jax.random.randint(keys.own, slots.buffer_index.shape, 0, len(self.level_set))
        level = jax.tree.map(lambda x: x[index], self.level_set.level)
        return state, fill_new(slots, free, level)

    def _next_of_epoch(
        self, state: FixedState, wanted: Bool[Array, "N R"]
    ) -> tuple[FixedState, Int[Array, "N R"]]:
        """The next entries of an endless stream of permutations of the set."""
        num_levels = len(self.level_set)
        end = state.position + jnp.cumsum(wanted.ravel())
        # As many permutations as the batch can reach into.
        epochs = state.epoch + jnp.arange((wanted.size - 1) // num_levels + 2)
        key = jax.random.key(state.seed)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, epochs)
        orders = jax.vmap(lambda key: jax.random.permutation(key, num_levels))(keys)
        place = jnp.maximum(end - 1, 0)
        index = orders[place // num_levels, place % num_levels].reshape(wanted.shape)
        epoch, position = state.epoch + end[-1] // num_levels, end[-1] % num_levels
        return FixedState(state.seed, epoch, position), index


def build(
    env: LevelEnv, num_levels: int = 200, seed: int = 0, levels: str = "", shuffle: bool = False
) -> Fixed:
    """A training set of sampled levels, or that of a level file if `levels` names one."""
    return Fixed(env, num_levels, seed, path=levels, shuffle=shuffle)


def own_set(env: LevelEnv) -> Fixed:
    """The training set that ships with the environment, its suite `train`, or sampled levels."""
    return Fixed(env, path="train" if "train" in suite_names(env) else "")


def tiny(env: LevelEnv) -> Fixed:
    """The smallest instance, for tests of laws."""
    return Fixed(env, num_levels=2)


def _load(env: LevelEnv, path: str) -> LevelSet:
    known = suite_names(env)
    if path in known:
        return _shipped(env, path)
    if known and not Path(path).suffix and not Path(path).exists():
        raise ValueError(
            f"{path!r} is no level file, nor a suite of {type(env).__name__}; "
            f"{did_you_mean(path, known)}"
        )
    require(env, LevelEnv.load_levels, needed_by=f"Fixed(path={path!r})")
    return env.load_levels(path)


def suite_names(env: LevelEnv) -> tuple[str, ...]:
    """The suites that the environment has."""
    return tuple(env.suites())


@functools.lru_cache(maxsize=4)  # a changed field elsewhere need not read again
def _shipped(env: LevelEnv, name: str) -> LevelSet:
    """The levels of a suite, which must fit the environment as it is.

    Raises:
        ValueError: they are of another size.
    """
    suite = env.suites()[name]()
    ours = jax.eval_shape(env.sample_level, jax.random.key(0))
    theirs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), suite.levels.level)
    same = jax.tree.structure(ours) == jax.tree.structure(theirs)
    if not same or any(
        x.shape != y.shape
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    ):
        raise ValueError(
            f"the levels of the suite {name!r} are of another size than this environment; give it "
            f"the suite's own: {suite.env}"
        )
    return suite.levels


@functools.lru_cache(maxsize=4)  # a changed field elsewhere need not sample again
def _sample(env: LevelEnv, num_levels: int, seed: int) -> LevelSet:
    """Distinct levels of the family, the same for the same arguments."""

    @jax.jit  # on the host, once
    def batch(number: Int[Array, ""]) -> tuple[PyTree, Array]:
        key = jax.random.fold_in(jax.random.key(seed), number)
        level = jax.vmap(env.sample_level)(jax.random.split(key, num_levels))
        return level, jax.vmap(env.level_hash)(level)

    level, hashes = jax.device_get(batch(jnp.int32(0)))
    for i in range(1, _MAX_ROUNDS):
        if len(np.unique(hashes, axis=0)) >= num_levels:
            break
        level, hashes = jax.tree.map(
            lambda *x: np.concatenate(x), (level, hashes), batch(jnp.int32(i))
        )
    chosen = _distinct(level, hashes, (), num_levels)
    if len(chosen) < num_levels:
        warnings.warn(
            f"num_levels={num_levels}, but {len(hashes)} sampled levels of {type(env).__name__} "
            f"held {len(chosen)} distinct ones; the training set is these {len(chosen)}",
            stacklevel=4,
        )
    return chosen


def _distinct(level: PyTree, hashes: np.ndarray, names: tuple[str, ...], at_most: int) -> LevelSet:
    """The first of each level, in order; optima are left unknown, as training does not ask."""
    first = np.sort(np.unique(hashes, axis=0, return_index=True)[1])[:at_most]
    if first.size == 0:
        raise ValueError("a training set needs at least one level, got none")
    return LevelSet(
        level=jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[first]), level),
        hash=jnp.asarray(hashes[first]),
        optimal_steps=jnp.full(first.size, -1, jnp.int32),
        optimal_return=jnp.full(first.size, jnp.nan),
        names=tuple(names[i] if names else f"train-{n:04d}" for n, i in enumerate(first)),
        split="train",
    )


def _digest(hashes: np.ndarray) -> str:
    """64 bits from the hashes of all levels, in order."""
    return hashlib.sha256(np.ascontiguousarray(hashes, "<u4").tobytes()).hexdigest()[:16]
