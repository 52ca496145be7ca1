"""Bridge to gymnax, in both directions.

rlgen environments in gymnax code: `import rlgen` registers the following ids, and the environments
work with gymnax's wrappers.

    import gymnax, jax, rlgen

    env, params = gymnax.make("rlgen/Maze-v0")            # each episode in one of 4,096 mazes
    env, params = gymnax.make("rlgen/Maze-v0", num_walls=60, num_levels=200, seed=1)
    obs, state = env.reset(jax.random.key(0), params)
    obs, state, reward, terminated, truncated, info = env.step(
        jax.random.key(1), state, env.action_space(params).sample(jax.random.key(2)), params
    )
    params = env.params_of(suite.levels.level)            # the same agent on held-out mazes

    env, level = gymnax.make("rlgen/MazeLevel-v0")        # params is one maze: vmap over levels

gymnax environments with discrete actions in rlgen: `from_gymnax("CartPole-v1")` is a family of one
level that works with every learner, bonus and curriculum of rlgen. Environments with continuous
actions are rejected.
"""

from rlgen.gymnax.from_gymnax import OneLevel, from_gymnax
from rlgen.gymnax.level_pool import LevelPool, Pool, PoolState, maze_level, maze_pool

__all__ = ["LevelPool", "OneLevel", "Pool", "PoolState", "from_gymnax", "maze_level", "maze_pool"]
