"""Given actions played on many levels at once, for tests of an environment against a reference."""

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)


def play(env, levels, actions, keys):
    """Observations, states and ends of all steps; an episode that ends goes on from its start.

    Args:
        levels: [N, ...].
        actions: [T, N].
        keys: of the resets, [N].
    Returns:
        First observation and state [N, ...]; then observation, reward, and whether the episode
        terminated and was truncated, [T, N, ...].
    """
    first_obs, first = jax.vmap(env.reset_env)(keys, levels)

    def step(state, action):
        obs, state, reward, terminated, _ = jax.vmap(
            lambda s, a, level: env.step_env(KEY, s, a, level)
        )(state, action, levels)
        truncated = jax.vmap(env.is_truncated)(state, levels)
        done = terminated | truncated
        state = jax.tree.map(lambda start, now: jnp.where(done, start, now), first, state)
        return state, (obs, reward, terminated, truncated)

    return (first_obs, first), jax.lax.scan(step, first, actions)[1]
