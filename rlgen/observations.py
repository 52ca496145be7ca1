"""Check that agents of one environment read the observations of another environment correctly.

A suite can have another environment than a run: larger levels, other rewards, or another mode. The
agents of the run can play the suite only if an observation means the same in both environments.
Equal shapes are not enough. If a number stands for a state, for example, the number of a state can
depend on the size of the grid. Three things are compared:

- the actions, and the shapes and dtypes of observations;
- the observation spaces, which are an environment's description of its observations;
- the observations of up to `NUM_LEVELS` levels of the suite, at the start and after each of
  `NUM_STEPS` random steps. Both environments get the same level, state, action and random key. If
  they reach the same state, their observations must be equal. If they reach different states, their
  dynamics differ, and nothing is compared. This comparison needs levels and states of the same
  shapes in both environments, so it is omitted for a suite with levels of another size.

A copy of the environment with other fields, such as more walls or a reward for each step, passes if
these fields do not influence observations.
"""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array, Bool

from rlgen.levels import Suite
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

NUM_LEVELS = 4
NUM_STEPS = 8
TOLERANCE = 1e-4
"""Floats count as equal up to this relative and absolute difference, which rounding can cause."""


def misread(env: LevelEnv, suite: Suite) -> str:
    """Return why agents of `env` would misread the suite's observations; "" if they would not.

    An environment that equals the suite's environment needs no comparison.
    """
    if env == suite.env:
        return ""
    return interface_difference(env, suite.env) or _behaviour_difference(env, suite)


def interface_difference(env: LevelEnv, other: LevelEnv) -> str:
    """Return the first difference between actions or observation spaces, or "".

    The levels of the two environments are not compared.
    """
    if type(env) is not type(other):
        return f"it is a {type(other).__name__}, not a {type(env).__name__}"
    if env.num_actions != other.num_actions:
        return f"it has {other.num_actions} actions, not {env.num_actions}"
    ours, theirs = _first_forms(env)[0], _first_forms(other)[0]
    if ours != theirs:
        return "its observations have different shapes"
    for (path, one), (_, two) in zip(_boxes(env), _boxes(other), strict=False):
        if not _equal_spaces(one, two):
            return (
                "an observation means something else there, because the observation space has "
                f"{_described(two)} instead of {_described(one)} at {path}"
            )
    return ""


def _behaviour_difference(env: LevelEnv, suite: Suite) -> str:
    """Compare the observations of equal states on levels of the suite; "" if all are equal."""
    num = len(suite.levels)
    rows = np.unique(np.linspace(0, num - 1, min(num, NUM_LEVELS)).round().astype(int))
    level = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), suite.levels.level)
    ours = jax.eval_shape(env.sample_level, jax.random.key(0))
    same_level = _form(ours) == _form(jax.tree.map(lambda x: x[0], level))
    if not same_level or _first_forms(env)[1] != _first_forms(suite.env)[1]:
        return ""
    keys = jax.random.split(jax.random.key(0), len(rows))
    alike = np.asarray(_compiled(env, suite.env)(keys, level))
    if alike.all():
        return ""
    i, step = np.argwhere(~alike)[0]
    return (
        "an observation means something else there, because one state has different observations "
        f"in the two environments (level {suite.levels.names[rows[i]]}, step {step})"
    )


def _compiled(env: LevelEnv, other: LevelEnv) -> Callable[[Key, PyTree], Bool[Array, "M T"]]:
    """Return a jitted function of keys [M] and levels [M, ...]; see `_alike_on`.

    Calls with equal arguments return the same function, so it is compiled only once.
    """
    try:
        return _shared(env, other)
    except TypeError:  # an environment of the user that is not hashable cannot be a cache key
        return _program(env, other)


def _program(env: LevelEnv, other: LevelEnv) -> Callable[[Key, PyTree], Bool[Array, "M T"]]:
    return jax.jit(jax.vmap(functools.partial(_alike_on, env, other)))


_shared = functools.lru_cache(maxsize=8)(_program)


def _alike_on(env: LevelEnv, other: LevelEnv, key: Key, level: PyTree) -> Bool[Array, " T"]:
    """Compare two environments on one level, at the reset and after each of `NUM_STEPS` steps.

    The random episode is played in `other`, and each step is repeated in `env` from the same state.
    """
    key_reset, key_steps = jax.random.split(key)
    first = other.reset_env(key_reset, level)

    def step(state: PyTree, key: Key) -> tuple[PyTree, Bool[Array, ""]]:
        key_act, key_step = jax.random.split(key)
        action = jax.random.randint(key_act, (), 0, other.num_actions)
        ours, theirs = (e.step_env(key_step, state, action, level)[:2] for e in (env, other))
        return theirs[1], _alike(ours, theirs)

    _, later = jax.lax.scan(step, first[1], jax.random.split(key_steps, NUM_STEPS))
    return jnp.append(_alike(env.reset_env(key_reset, level), first), later)


def _alike(ours: tuple[PyTree, PyTree], theirs: tuple[PyTree, PyTree]) -> Bool[Array, ""]:
    """Return False if two pairs `(obs, state)` have equal states but different observations."""
    return ~_equal(ours[1], theirs[1], 0.0) | _equal(ours[0], theirs[0], TOLERANCE)


def _equal(tree: PyTree, other: PyTree, tolerance: float) -> Bool[Array, ""]:
    def equal(x: Array, y: Array) -> Bool[Array, ""]:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        if jnp.issubdtype(x.dtype, jnp.inexact):
            return jnp.isclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True).all()
        return (x == y).all()

    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return jnp.array([equal(jnp.asarray(x), jnp.asarray(y)) for x, y in pairs]).all()


def _first_forms(env: LevelEnv) -> tuple[list, list]:
    """Forms of the first observation and of the first state of an environment's own levels."""
    try:
        return _traced(env)
    except TypeError:  # an environment of the user that is not hashable cannot be a cache key
        return _trace(env)


def _trace(env: LevelEnv) -> tuple[list, list]:
    key = jax.random.key(0)
    # `eval_shape` traces the reset without running it, so no level is generated.
    obs, state = jax.eval_shape(lambda: env.reset_env(key, env.sample_level(key)))
    return _form(obs), _form(state)


_traced = functools.lru_cache(maxsize=32)(_trace)  # tracing a generator of levels can take seconds


def _form(tree: PyTree) -> list:
    """Structure of a tree, and shape and dtype of every leaf."""
    return [jax.tree.structure(tree), *((x.shape, x.dtype) for x in jax.tree.leaves(tree))]


def _boxes(env: LevelEnv) -> list[tuple[str, spaces.Space]]:
    """Path and space of every part of an observation."""

    def parts(path: str, space: spaces.Space) -> list[tuple[str, spaces.Space]]:
        if isinstance(space, spaces.Dict):
            inner = [parts(f"{path}.{name}", each) for name, each in space.spaces.items()]
        elif isinstance(space, spaces.Tuple):
            inner = [parts(f"{path}[{i}]", each) for i, each in enumerate(space.spaces)]
        else:
            return [(path, space)]
        return [part for one in inner for part in one]

    # Environments with gymnax's signature need a level, which can take seconds to sample.
    needed = inspect.signature(env.observation_space).parameters.values()
    has_default = all(x.default is not x.empty for x in needed)
    space = env.observation_space() if has_default else env.observation_space(env.default_params)
    return parts("obs", space)


def _equal_spaces(one: spaces.Space, other: spaces.Space) -> bool:
    if isinstance(one, spaces.Discrete) and isinstance(other, spaces.Discrete):
        return one.n == other.n
    if isinstance(one, spaces.Box) and isinstance(other, spaces.Box):
        return all(
            np.array_equal(np.asarray(x), np.asarray(y))
            for x, y in ((one.low, other.low), (one.high, other.high))
        )
    return type(one) is type(other)


def _described(space: spaces.Space) -> str:
    if isinstance(space, spaces.Discrete):
        return f"{space.n} values"
    if isinstance(space, spaces.Box):
        return f"the range {np.min(np.asarray(space.low)):g} .. {np.max(np.asarray(space.high)):g}"
    return type(space).__name__
