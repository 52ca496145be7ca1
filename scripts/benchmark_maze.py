"""Speed of the maze environment alone, per CPU-second of this process."""

import resource
from typing import Any, Literal

import jax
import jax.numpy as jnp

from rlgen.envs.maze import Maze
from rlgen.types import PyTree


def measure_stepping(
    observation: Literal["packed", "image", "flat"] = "packed",
    num_envs: int = 1024,
    num_steps: int = 256,
) -> dict[str, float]:
    """Measure env steps per CPU-second with a uniform random policy, best of five runs.

    If an episode ends, the environment is reset to the start of its level: the precomputed first
    state and observation are selected in place of the next ones. Every observation is added to a
    sum, so that the compiler cannot remove the computation of observations.
    """
    env = Maze(observation=observation)
    levels = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(0), num_envs))
    program = jax.jit(lambda key, levels: _play_randomly(env, key, levels, num_steps))
    result = _measure(program, levels, work=num_envs * num_steps, repeats=6)
    print(f"stepping, {observation:6}: {_format(result)} env steps")
    return result


def measure_levels(num_walls: int = 25, num_levels: int = 2048) -> dict[str, dict[str, float]]:
    """Measure how many levels are sampled, mutated by 20 edits, solved and hashed per CPU-second.

    Mutation is measured with both kinds of edits.
    """
    env, cells = Maze(num_walls=num_walls), Maze(num_walls=num_walls, mutation="cells")
    sample = lambda key, _: jax.vmap(env.sample_level)(jax.random.split(key, num_levels))  # noqa: E731
    levels = jax.jit(sample)(jax.random.key(1), None)
    programs = {
        "sampled": sample,
        "mutated (flip)": lambda key, levels: env.mutate_levels(key, levels, 20),
        "mutated (cells)": lambda key, levels: cells.mutate_levels(key, levels, 20),
        "solved": lambda key, levels: jax.vmap(env.solve)(levels),
        "hashed": lambda key, levels: jax.vmap(env.level_hash)(levels),
    }
    results = {}
    for name, program in programs.items():
        results[name] = _measure(jax.jit(program), levels, work=num_levels, repeats=10)
        print(f"{name:15}, {num_walls} walls: {_format(results[name])} levels")
    return results


def _play_randomly(env: Maze, key: jax.Array, levels: PyTree, num_steps: int) -> PyTree:
    num_envs = levels.walls.shape[0]
    action = jax.random.randint(key, (num_steps, num_envs), 0, env.num_actions)
    first_obs, first_state = jax.vmap(lambda level: env.reset_env(key, level))(levels)

    def step(carry: PyTree, action: jax.Array) -> tuple[PyTree, None]:
        state, total, obs_sum = carry
        obs, state, reward, terminated, _ = jax.vmap(
            lambda s, a, level: env.step_env(key, s, a, level)
        )(state, action, levels)
        done = terminated | jax.vmap(env.is_truncated)(state, levels)
        obs, state = jax.tree.map(
            lambda start, now: jnp.where(done.reshape(-1, *[1] * (now.ndim - 1)), start, now),
            (first_obs, first_state),
            (obs, state),
        )
        obs_sum = jax.tree.map(lambda s, x: s + x.astype(s.dtype), obs_sum, obs)
        return (state, total + reward, obs_sum), None

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x)), first_obs)
    carry, _ = jax.lax.scan(step, (first_state, jnp.zeros(num_envs), zeros), action)
    return carry


def _wide(x: jax.Array) -> jnp.dtype:
    return jnp.int32 if x.dtype == jnp.int8 else x.dtype


def _measure(program: Any, levels: PyTree, work: int, repeats: int) -> dict[str, float]:
    before = _cpu_seconds()
    compiled = program.lower(jax.random.key(0), levels).compile()
    compile_seconds = _cpu_seconds() - before
    jax.block_until_ready(compiled(jax.random.key(0), levels))
    rates = []
    for _ in range(5):
        before = _cpu_seconds()
        for i in range(repeats):
            jax.block_until_ready(compiled(jax.random.key(i), levels))
        rates.append(repeats * work / (_cpu_seconds() - before))
    return {
        "per_cpu_second": max(rates),
        "worst": min(rates),
        "compile_cpu_seconds": compile_seconds,
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _format(result: dict[str, float]) -> str:
    return (
        f"{result['per_cpu_second'] / 1e6:.3g} (worst {result['worst'] / 1e6:.3g}) million per "
        f"CPU-second, compiled in {result['compile_cpu_seconds']:.1f} CPU-s;"
    )


if __name__ == "__main__":
    for observation in ("packed", "image", "flat"):
        measure_stepping(observation)
    for num_walls in (25, 60):
        measure_levels(num_walls)
