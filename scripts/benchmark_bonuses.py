"""Cost of PPO with exploration bonuses compared with plain PPO, and speed of exploration tasks.

The networks of the bonuses and of PPO have equal widths. The updates with and without bonuses are
measured alternately in one process, so that other load on the machine affects all of them equally.
"""

import resource
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from rlgen import registry
from rlgen.bonuses import Shaped, parse
from rlgen.curriculum import Curriculum
from rlgen.students import OnPolicy
from rlgen.types import Keys

NUM_SLOTS, NUM_STEPS = 256, 128
BONUSES = ("counts", "episodic", "rnd", "noveld", "icm", "ride", "e3b", "e3b*rnd")


def measure_overheads(env_name: str, repeats: int = 7) -> dict[str, float]:
    """Measure the additional cost of each bonus per update, in %, and the bonus's state, in MiB."""
    env = registry.make_env(env_name)
    curricula = {"none": _method(env, ()), **{b: _method(env, _shaped(b, env)) for b in BONUSES}}
    programs = {name: _compiled(curriculum) for name, curriculum in curricula.items()}
    cpu = {name: [] for name in programs}
    for _ in range(repeats):
        for name, update in programs.items():
            before = _cpu_seconds()
            update()
            cpu[name].append(_cpu_seconds() - before)
    best = {name: min(times) for name, times in cpu.items()}
    found = {"CPU-s an update without": best.pop("none")}
    for name, seconds in best.items():
        found[f"{name}: %"] = 100 * (seconds / found["CPU-s an update without"] - 1)
    for name in best:
        student: Any = curricula[name].student
        state = student.bonus.init(jax.random.key(0), NUM_SLOTS)
        found[f"{name}: MiB"] = sum(x.nbytes for x in jax.tree.leaves(state)) / 2**20
    return found


def measure_stepping(env_name: str, num_envs: int = 1024, repeats: int = 5) -> dict[str, float]:
    """Measure environments stepped by a random policy, including resets; best of `repeats`."""
    env = registry.make_env(env_name)
    keys = jax.random.split(jax.random.key(0), num_envs)
    level = jax.jit(jax.vmap(env.sample_level))(keys)

    @jax.jit
    def play(key: jax.Array) -> Any:
        start = jax.vmap(env.reset_env)(keys, level)
        action = jax.random.randint(key, (NUM_STEPS, num_envs), 0, env.num_actions)

        def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
            (obs, state), total = carry
            action, key = now
            keys = jax.random.split(key, num_envs)
            after = jax.vmap(env.step_env)(keys, state, action, level)
            obs, state, reward, terminated, _ = after
            done = terminated | jax.vmap(env.is_truncated)(state, level)
            total = jax.tree.map(lambda x, y: x + y.astype(x.dtype), total, (obs, reward))
            return (jax.tree.map(_where(done), start, (obs, state)), total), None

        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.int32), start[0])
        keys_step = jax.random.split(key, NUM_STEPS)
        begin = (start, (zero, jnp.zeros(num_envs)))
        return jax.lax.scan(step, begin, (action, keys_step))[0][1]

    jax.block_until_ready(play(jax.random.key(0)))
    cpu = []
    for i in range(repeats):
        before = _cpu_seconds()
        jax.block_until_ready(play(jax.random.key(i)))
        cpu.append(_cpu_seconds() - before)
    return {"env steps per CPU-s": num_envs * NUM_STEPS / min(cpu)}


def _where(done: jax.Array) -> Callable[[jax.Array, jax.Array], jax.Array]:
    def choose(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.where(done.reshape(-1, *[1] * (x.ndim - 1)), x, y)

    return choose


def _shaped(name: str, env: Any) -> Shaped:
    return Shaped(parse(name, env))


def _method(env: Any, bonus: Any) -> Curriculum:
    """Return a curriculum of random levels with the default PPO: five epochs and 256 units."""
    learner = registry.load("learners", "ppo").build(env)
    student = OnPolicy(env, learner, num_steps=NUM_STEPS, bonus=bonus)
    sampler = registry.load("samplers", "random").build(env)
    score = registry.load("scores", "none").build(env, learner)
    return Curriculum(student, sampler, score, num_slots=NUM_SLOTS)


def _compiled(curriculum: Curriculum) -> Callable[[], Any]:
    """Return a compiled update of the student on fixed levels; it has been called once already."""
    state = jax.jit(curriculum.init)(jax.random.key(0))
    key = jax.random.key(1)
    free = jnp.ones(NUM_SLOTS, bool)
    propose = jax.jit(curriculum.sampler.propose)
    _, slots = propose(Keys(key, key), state.sampler, state.slots, free)
    run = jax.jit(curriculum.student.run)

    def update() -> Any:
        return jax.block_until_ready(run(key, state.student, slots, free))

    update()
    return update


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
