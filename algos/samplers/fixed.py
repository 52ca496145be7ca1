"""A finite training set: levels are drawn uniformly from the same M levels.

This is the training half of a protocol that measures the generalisation gap: an agent trains on M
levels and is tested on other levels.

Source of the protocol: Cobbe et al., 2019, "Quantifying Generalization in Reinforcement Learning".
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
from rlgen.held_out import held_out
from rlgen.levels import LevelSet, words
from rlgen.protocols import LevelEnv, Sampler
from rlgen.registry import did_you_mean, require
from rlgen.types import Key, Keys, PyTree, Slots

_MAX_ROUNDS = 8


class FixedState(NamedTuple):
    """Progress through an epoch, which is one pass through the set; used only with `shuffle`."""

    seed: UInt32[Array, ""]  # seed of the permutations of all epochs
    epoch: Int[Array, ""]  # index of the current epoch
    position: Int[Array, ""]  # number of levels of this epoch already assigned to slots


@dataclass(frozen=True)
class Fixed(Sampler):
    """Draws a level uniformly and independently for each queue position of each free slot.

    The set is a constant of the compiled program, so all seeds of a run train on the same set.
    `digest` identifies the set by the content of its levels.

    Attributes:
        num_levels: Number of levels, M. Levels are sampled in at most 8 batches of M, until M
            distinct levels are found, without held-out levels (see `rlgen.held_out`). If fewer
            distinct levels are found, the set consists of these levels, and a warning is issued. If
            `path` or `levels` is given, this field is set to the number of distinct levels that the
            file, suite or set contains.
        seed: Seed from which the set is sampled.
        path: Level file that contains the set, or name of one of the environment's suites, such as
            `train`. If a path is given, no levels are sampled.
        shuffle: Play every level once before any level is played again.
        levels: Training set to use instead of `path` or sampled levels. The config does not contain
            this field.
        level_set: The training set in use, without duplicates.
        digest: 16 hexadecimal digits, which are equal for sets with equal levels in equal order.

    Raises:
        ValueError: If the set is empty, the level file is invalid, both `path` and `levels` are
            given, or a given level is held out.
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

    makes_levels = False

    def __post_init__(self):
        if self.num_levels < 1:
            raise ValueError(f"num_levels must be at least 1, got {self.num_levels}")
        if self.path and isinstance(self.levels, LevelSet):
            raise ValueError("give either path or levels, not both")
        given = _load(self.env, self.path) if self.path else self.levels
        # The dataclass is frozen, so derived fields are set through `object.__setattr__`.
        if isinstance(given, LevelSet):
            _refuse_held_out(self.env, given, self.path or "levels")
            chosen = _distinct(given.level, np.asarray(given.hash), given.names, len(given))
            object.__setattr__(self, "num_levels", len(chosen))
        else:
            chosen = _sample(self.env, self.num_levels, self.seed)
        object.__setattr__(self, "level_set", chosen)
        object.__setattr__(self, "digest", _digest(np.asarray(chosen.hash)))

    @property
    def is_set_sampled(self) -> bool:
        """True unless the set comes from a file, a suite or `levels`."""
        return not self.path and not isinstance(self.levels, LevelSet)

    def init(self, key: Key, memory: PyTree) -> FixedState:
        """Return the state at the start of the first epoch."""
        zero = jnp.zeros((), jnp.int32)
        # The state holds a uint32 and not a typed key; `_next_of_epoch` makes a key from this
        # number.
        return FixedState(jax.random.bits(key), zero, zero)

    def example_level(self) -> PyTree:
        """Return the first level of the set."""
        return jax.tree.map(lambda x: x[0], self.level_set.level)

    def propose(
        self, keys: Keys, state: FixedState, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[FixedState, Slots]:
        """Fill the free slots with levels of the set, with weight 1 in the loss."""
        if self.shuffle:
            # All queue positions of a free slot need a level: [N] -> [N, R].
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
        """Take the next entries of an endless sequence of permutations of the set."""
        num_levels = len(self.level_set)
        # Position after each entry of the batch, counted from the start of the current epoch. The
        # position may lie in a later epoch.
        end = state.position + jnp.cumsum(wanted.ravel())
        # All epochs that a batch of this size can reach. The number of these epochs is static, so
        # permutations are generated even for epochs that this batch does not reach.
        epochs = state.epoch + jnp.arange((wanted.size - 1) // num_levels + 2)
        # Permutation i depends only on the seed and i, so a resumed run continues the sequence.
        key = jax.random.key(state.seed)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, epochs)
        orders = jax.vmap(lambda key: jax.random.permutation(key, num_levels))(keys)
        # If an epoch has just begun, `end - 1` is -1 for the entries before the first wanted entry.
        # The levels of these entries are not used.
        place = jnp.maximum(end - 1, 0)
        index = orders[place // num_levels, place % num_levels].reshape(wanted.shape)
        epoch, position = state.epoch + end[-1] // num_levels, end[-1] % num_levels
        return FixedState(state.seed, epoch, position), index


def build(
    env: LevelEnv, num_levels: int = 200, seed: int = 0, levels: str = "", shuffle: bool = False
) -> Fixed:
    """Build the sampler over sampled levels, or over the file or suite that `levels` names."""
    return Fixed(env, num_levels, seed, path=levels, shuffle=shuffle)


def own_set(env: LevelEnv) -> Fixed:
    """Build the sampler over the suite `train`, or over sampled levels if that suite is missing."""
    return Fixed(env, path="train" if "train" in suite_names(env) else "")


def tiny(env: LevelEnv) -> Fixed:
    """Return the smallest instance, for the tests in `tests/laws`."""
    return Fixed(env, num_levels=2)


def _load(env: LevelEnv, path: str) -> LevelSet:
    known = suite_names(env)
    if path in known:
        return _shipped(env, path)
    # A name without suffix that is neither a suite nor an existing file is probably a misspelt
    # suite.
    if known and not Path(path).suffix and not Path(path).exists():
        raise ValueError(
            f"{path!r} is neither a level file nor a suite of {type(env).__name__}; "
            f"{did_you_mean(path, known)}"
        )
    require(env, LevelEnv.load_levels, needed_by=f"Fixed(path={path!r})")
    return env.load_levels(path)


def suite_names(env: LevelEnv) -> tuple[str, ...]:
    """Return the names of the environment's suites."""
    return tuple(env.suites())


# Cached, because replacing any field of `Fixed` runs `__post_init__` again.
@functools.lru_cache(maxsize=4)
def _shipped(env: LevelEnv, name: str) -> LevelSet:
    """Return the levels of a suite, which must have the shapes of the environment's levels.

    Raises:
        ValueError: If the shapes differ.
    """
    suite = env.suites()[name]()
    # `eval_shape` gives the shapes of a level without sampling one.
    ours = jax.eval_shape(env.sample_level, jax.random.key(0))
    theirs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), suite.levels.level)
    same = jax.tree.structure(ours) == jax.tree.structure(theirs)
    if not same or any(
        x.shape != y.shape
        for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    ):
        raise ValueError(
            f"the levels of the suite {name!r} do not have the size of this environment's levels; "
            f"use the suite's own environment: {suite.env}"
        )
    return suite.levels


# Cached, because replacing any field of `Fixed` runs `__post_init__` again.
@functools.lru_cache(maxsize=4)
def _sample(env: LevelEnv, num_levels: int, seed: int) -> LevelSet:
    """Sample distinct levels of the family; the result depends only on the arguments."""

    @jax.jit  # runs at construction, outside the training program
    def batch(number: Int[Array, ""]) -> tuple[PyTree, Array]:
        # Folding in the batch number gives every batch different levels.
        key = jax.random.fold_in(jax.random.key(seed), number)
        level = jax.vmap(env.sample_level)(jax.random.split(key, num_levels))
        return level, jax.vmap(env.level_hash)(level)

    taken = set().union(*map(words, held_out(env).values()))

    def draw(number: int) -> tuple[PyTree, np.ndarray]:
        level, hashes = jax.device_get(batch(jnp.int32(number)))
        free = np.array([word not in taken for word in words(hashes)])
        return jax.tree.map(lambda x: x[free], (level, hashes))

    level, hashes = draw(0)
    for i in range(1, _MAX_ROUNDS):
        if len(np.unique(hashes, axis=0)) >= num_levels:
            break
        level, hashes = jax.tree.map(lambda *x: np.concatenate(x), (level, hashes), draw(i))
    chosen = _distinct(level, hashes, (), num_levels)
    if len(chosen) < num_levels:
        warnings.warn(
            f"num_levels={num_levels}, but {len(hashes)} sampled levels of {type(env).__name__} "
            f"include only {len(chosen)} distinct ones; the training set consists of these "
            f"{len(chosen)}",
            stacklevel=4,  # points at the caller of `Fixed`
        )
    return chosen


def _refuse_held_out(env: LevelEnv, given: LevelSet, source: str) -> None:
    """Reject a training set with levels of sealed suites.

    Raises:
        ValueError: The set has such levels; the message names the suites and the first levels.
    """
    found = set(words(given.hash))
    shared = {name: found & set(words(own)) for name, own in held_out(env).items()}
    suites = [name for name, both in shared.items() if both]
    if not suites:
        return
    taken = set().union(*shared.values())
    names = [n for n, word in zip(given.names, words(given.hash), strict=True) if word in taken]
    more = ", ..." if len(names) > 3 else ""
    raise ValueError(
        f"{source}: {len(names)} of {len(given)} levels ({', '.join(names[:3])}{more}) are levels "
        f"of the test suites {', '.join(suites)}, on which no run may train; remove them from the "
        "training set with rlgen.levels.exclude"
    )


def _distinct(level: PyTree, hashes: np.ndarray, names: tuple[str, ...], at_most: int) -> LevelSet:
    """Return the first occurrence of each level, in order, as a set without computed optima."""
    # `np.unique` sorts by hash; sorting the indices restores the original order.
    first = np.sort(np.unique(hashes, axis=0, return_index=True)[1])[:at_most]
    if first.size == 0:
        raise ValueError("a training set needs at least one level, got none")
    return LevelSet(
        level=jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[first]), level),
        hash=jnp.asarray(hashes[first]),
        optimal_steps=jnp.full(first.size, -1, jnp.int32),  # -1 and NaN: not computed
        optimal_return=jnp.full(first.size, jnp.nan),
        names=tuple(names[i] if names else f"train-{n:04d}" for n, i in enumerate(first)),
        split="train",
    )


def _digest(hashes: np.ndarray) -> str:
    """Return 16 hexadecimal digits derived from the hashes of all levels, in order."""
    # Little-endian, so that the digest does not depend on the machine.
    return hashlib.sha256(np.ascontiguousarray(hashes, "<u4").tobytes()).hexdigest()[:16]
