"""What a policy is worth on a level: exactly where the environment can say so, else by playing."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlgen import registry
from rlgen.protocols import Actor, LevelEnv
from rlgen.rollout import play
from rlgen.types import Key, PyTree


def is_exact(env: LevelEnv, learner: Actor) -> bool:
    """Whether `policy_return` needs no playing.

    The environment enumerates its observations and has `expected_return`; the learner has no memory
    and can tell its policy by `log_policy(state, obs [B]) -> [B, A]`.
    """
    if jax.tree.leaves(learner.initial_carry(1)):
        return False
    enumerable = registry.has(env, "expected_return") and registry.has(env, "num_states")
    return enumerable and hasattr(learner, "log_policy")


def policy_return(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    state: PyTree,
    level: PyTree,
    num_episodes: int = 64,
) -> Float[Array, ""]:
    """Expected undiscounted return of an episode on one level.

    Args:
        key: consumed, if episodes are played.
        env: one environment.
        learner, state: whose policy.
        level: one level.
        num_episodes: to average over where no exact answer is to be had.
    """
    return policy_worth(key, env, learner, state, level, num_episodes)[0]


def policy_worth(
    key: Key,
    env: LevelEnv,
    learner: Actor,
    state: PyTree,
    level: PyTree,
    num_episodes: int = 64,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The same, and how many env steps were played to find out: 0 if it is exact."""
    if is_exact(env, learner):
        every_obs = jnp.arange(getattr(env, "num_states")())  # noqa: B009 (an optional ability)
        log_policy = getattr(learner, "log_policy")(state, every_obs)  # noqa: B009
        return getattr(env, "expected_return")(level, log_policy), jnp.zeros(())  # noqa: B009
    copies = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_episodes, *jnp.shape(x))), level)
    played = play(key, env, learner, state, copies, level.max_steps_in_episode)
    return played.episode_return.mean(), played.length.sum().astype(jnp.float32)
