"""Play given actions on many levels at once, to compare an environment with a reference."""

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)


def play(env, levels, actions, keys):
    """Play actions on levels; an episode that ends restarts from its initial state.

    Args:
        levels: Stacked levels, [N, ...].
        actions: Actions, [T, N].
        keys: Keys of the resets, [N].

    Returns:
        `(first_obs, first_state)`, [N, ...], and `(obs, reward, terminated, truncated)`,
        [T, N, ...].
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
