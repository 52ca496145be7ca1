"""Laws that the suites of an environment must satisfy; see `rlgen.testing`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rlgen.levels import Suite
from rlgen.observations import misread
from rlgen.protocols import LevelEnv
from rlgen.testing.common import assert_close
from rlgen.types import Key, PyTree


def check_suites(env: LevelEnv, num_steps: int = 8, num_levels: int = 4) -> dict[str, str]:
    """Check that agents of an environment read the observations of its suites correctly.

    - Agents of the environment can play the suites `heldout` and `test`.
    - On a suite that they can play, the environment's `unpack` gives the same network inputs as the
      `unpack` of the suite's environment.

    Every suite is built, which can take minutes.

    Args:
        env: Environment to check.
        num_steps: Number of random steps in each level.
        num_levels: Number of levels of each suite, evenly spaced.

    Returns:
        For each suite, the reason why the agents cannot play it, or "" if they can.
    """
    found = {}
    for name, build in env.suites().items():
        suite = build()
        found[name] = misread(env, suite)
        if name in ("heldout", "test"):
            assert not found[name], f"agents of the environment cannot play {name}: {found[name]}"
        if not found[name]:
            obs = walk(suite.env, suite, num_steps, num_levels)
            sentence = f"the suite {name} has another unpack than the environment"
            assert_close(env.unpack(obs), suite.env.unpack(obs), sentence)
    return found


def walk(env: LevelEnv, suite: Suite, num_steps: int, num_levels: int) -> PyTree:
    """Play levels of a suite with random actions, in an environment that may differ from its own.

    Args:
        env: Environment to play in.
        suite: Suite with the levels.
        num_steps: Number of steps T.
        num_levels: Number of levels M, evenly spaced.

    Returns:
        Observations [M, 1 + T, ...]. They depend only on the environment and the levels.
    """
    num = len(suite.levels)
    rows = np.unique(np.linspace(0, num - 1, min(num, num_levels)).round().astype(int))
    level = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[rows]), suite.levels.level)
    keys = jax.random.split(jax.random.key(4), len(rows))
    return jax.jit(jax.vmap(partial(_walk, env, num_steps)))(keys, level)


def _walk(env: LevelEnv, num_steps: int, key: Key, level: PyTree) -> PyTree:
    key_reset, key_steps = jax.random.split(key)
    obs, state = env.reset_env(key_reset, level)

    def step(state: PyTree, key: Key) -> tuple[PyTree, PyTree]:
        key_act, key_step = jax.random.split(key)
        action = jax.random.randint(key_act, (), 0, env.num_actions)
        obs, state = env.step_env(key_step, state, action, level)[:2]
        return state, obs

    _, later = jax.lax.scan(step, state, jax.random.split(key_steps, num_steps))
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), obs, later)
