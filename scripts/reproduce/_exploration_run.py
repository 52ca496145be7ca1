"""A cell of the exploration study: a task trained with a bonus, for all dial values and seeds.

The dial of a task is the parameter that controls how much structure the levels of the task share.
For every value of the dial, a set of levels is sampled before training. Values and seeds can
therefore form one `vmap` axis, and a cell is one compiled program.
"""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen import config, registry
from rlgen.bonuses import Shaped, parse
from rlgen.curriculum import Curriculum, fill_new
from rlgen.protocols import LevelEnv, Sampler
from rlgen.rollout import Record, play, rollout
from rlgen.students import OnPolicy
from rlgen.types import Key, Keys, PyTree, Slots

POOL = 4096
ATTEMPTS = 256
CURVE = 100


class Task(NamedTuple):
    """An environment with a dial, and settings of the training."""

    env: str
    dial: str  # field of the environment, or "contexts", the number of levels (0 for no limit)
    values: tuple[float, ...]  # values of the dial
    steps: float  # env steps of each seed
    learner: str = "ppo"
    fields: dict[str, Any] = {}  # noqa: RUF012 (never changed)
    settings: dict[str, Any] = {}  # noqa: RUF012  # fields of the curriculum by dotted path
    bonuses: dict[str, tuple[str, float]] = {}  # noqa: RUF012  # by name: expression and its factor
    clip: float = 0.0  # largest bonus of a step after scaling; 0 for no limit


class Pool(NamedTuple):
    """Levels of one value of the dial."""

    level: PyTree  # [POOL, ...]
    num: Int[Array, ""]  # number of levels used, which are the first ones; 0 samples new levels


class Cell(NamedTuple):
    """Results of a bonus on a task, for V values of the dial and S seeds.

    Visits and raw bonuses are those of the first seed's trained agent on the first level.
    """

    trained: Float[np.ndarray, "V S"]  # fraction of episodes solved in the last tenth of training
    new: Float[np.ndarray, "V S"]  # fraction of episodes solved on levels not used for training
    steps: Float[np.ndarray, " C"]  # env steps at each point of the curves
    curve: Float[np.ndarray, "V S C"]  # fraction of episodes solved during training
    visits: Float[np.ndarray, "V Z"]  # visits to each of Z positions
    paid: Float[np.ndarray, "V T"]  # raw bonus of each step of an episode; NaN after its end
    seconds: float
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Contexts(Sampler):
    """Sampler of levels from a pool in the sampler's state; each `vmap` index has its own pool."""

    env: LevelEnv

    def init(self, key: Key, memory: PyTree) -> Pool:
        """Return a placeholder pool."""
        del key, memory
        level = jax.tree.map(lambda x: jnp.stack([x] * POOL), self.example_level())
        return Pool(level, jnp.int32(0))

    def example_level(self) -> PyTree:
        """Return an arbitrary level."""
        return self.env.sample_level(jax.random.key(0))

    def propose(
        self, keys: Keys, state: Pool, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[Pool, Slots]:
        """Propose levels of the pool, or new levels if the number of levels is not limited."""
        key_index, key_level = jax.random.split(keys.own)
        shape = slots.buffer_index.shape
        index = jax.random.randint(key_index, shape, 0, jnp.maximum(state.num, 1))
        known = jax.tree.map(lambda x: x[index], state.level)
        sample = jax.vmap(jax.vmap(self.env.sample_level))
        fresh = sample(jax.random.split(key_level, shape))
        level = jax.tree.map(lambda x, y: jnp.where(state.num > 0, x, y), known, fresh)
        return state, fill_new(slots, free, level)


def make_env(task: Task, value: float | None = None) -> Any:
    """Return the environment of a task, with the dial set to `value` unless it is None."""
    fields = dict(task.fields)
    if value is not None and task.dial != "contexts":
        fields[task.dial] = value
    return config.override(registry.make_env(task.env), fields)


def method(task: Task, bonus: str) -> Curriculum:
    """Return the curriculum of a task with one of its bonuses."""
    env = make_env(task)
    learner = registry.load("learners", task.learner).build(env)
    expression, coef = task.bonuses[bonus]
    shaped = Shaped(parse(expression, env), coef=coef, clip=task.clip) if expression else ()
    student = OnPolicy(env, learner, bonus=shaped)
    score = registry.load("scores", "none").build(env, learner)
    curriculum = Curriculum(student, Contexts(env), score)
    known = config.flatten(curriculum)
    settings = {path: x for path, x in task.settings.items() if path in known}
    return config.override(curriculum, settings)


def run_cell(
    task: Task,
    bonus: str,
    num_seeds: int,
    steps: float = 0,
    report: Callable[[int, int], None] = lambda done, planned: None,
) -> Cell:
    """Train on all values of the dial with all seeds, and evaluate the agents.

    Args:
        task: Task to train on.
        bonus: Name of one of the task's bonuses.
        num_seeds: Number of seeds.
        steps: Env steps per seed; 0 uses the steps of the task.
        report: Function called after each chunk of updates with the number of updates made so far
            and the number planned.
    """
    curriculum, begun = method(task, bonus), time.monotonic()
    student: Any = curriculum.student
    per_update = curriculum.num_slots * student.num_steps
    num_updates = max(int((steps or task.steps) / per_update), 1)
    chunk = max(num_updates // 20, 1)
    states, keys = _start(task, curriculum, num_seeds)
    axes = (0, Keys(0, None), None, None)  # pyright: ignore[reportArgumentType]
    train = jax.jit(
        jax.vmap(curriculum.train, in_axes=axes),
        static_argnums=3,
        donate_argnums=0,
    )
    compiled = train.lower(states, keys, jnp.int32(0), chunk).compile()
    compile_seconds, found = time.monotonic() - begun, []
    begun = time.monotonic()
    for start in range(0, num_updates - num_updates % chunk, chunk):
        states, metrics = compiled(states, keys, jnp.int32(start))
        solved = metrics.get("solve_rate", metrics["episode_return"])
        found.append(jax.device_get((solved, metrics["num_episodes"])))
        report(start + chunk, num_updates)
    seconds = time.monotonic() - begun
    shape = (len(task.values), num_seeds)
    solved, episodes = (np.concatenate(x, axis=1) for x in zip(*found, strict=True))
    curve = _binned(solved, episodes, CURVE).reshape(*shape, -1)
    last = max(solved.shape[1] // 10, 1)
    trained = _binned(solved[:, -last:], episodes[:, -last:], 1).reshape(shape)
    new, visits, paid = _look(task, curriculum, states, shape)
    at = (np.arange(curve.shape[-1]) + 1) * per_update * solved.shape[1] / curve.shape[-1]
    return Cell(trained, new, at, curve, visits, paid, seconds, compile_seconds)


def _start(task: Task, curriculum: Curriculum, num_seeds: int) -> tuple[PyTree, Keys]:
    """Return initial states [V * S], each with the pool of its dial value, and the keys."""
    pools = [_pool(task, value) for value in task.values]
    pools = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), num_seeds, axis=0), *pools)
    number = jnp.tile(jnp.arange(num_seeds), len(task.values))
    keys = jax.vmap(jax.random.key)(number)
    states = jax.jit(jax.vmap(curriculum.init))(jax.vmap(partial(jax.random.fold_in, data=1))(keys))
    return states._replace(sampler=pools), Keys(keys, jax.random.key(0))


def _pool(task: Task, value: float) -> Pool:
    """Return the levels of one value of the dial."""
    sample = jax.jit(jax.vmap(make_env(task, value).sample_level))
    keys = jax.random.split(jax.random.key(17), POOL)
    if task.dial != "contexts":
        return Pool(sample(keys), jnp.int32(POOL))
    num = int(value)
    return Pool(sample(keys[jnp.arange(POOL) % max(num, 1)]), jnp.int32(num))


def _binned(x: np.ndarray, weight: np.ndarray, num: int) -> np.ndarray:
    """Return means [B, C] of `x` [B, U] over `num` bins of updates, weighted by `weight` [B, U].

    The mean of a bin without weight, in which no episode ended, is NaN.
    """
    starts = [p[0] for p in np.array_split(np.arange(x.shape[1]), min(num, x.shape[1]))]
    total = np.add.reduceat(np.nan_to_num(x) * weight, starts, axis=1)
    num_episodes = np.add.reduceat(weight, starts, axis=1)
    return np.divide(total, num_episodes, out=np.full(total.shape, np.nan), where=num_episodes > 0)


def _look(
    task: Task, curriculum: Curriculum, states: PyTree, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Evaluate trained agents.

    Returns:
        The solve rates on new levels, [V, S], for V values of the dial and S seeds; the visits to
        positions, [V, Z], and the raw bonuses, [V, T], of the first seed's agent on the first level
        of each value.
    """
    student: Any = curriculum.student
    env = student.env
    learner, agents = student.policy(states.student)
    fresh = [_fresh(task, value) for value in task.values]
    limit = max(int(level.max_steps_in_episode.max()) for level in fresh)
    levels = jax.tree.map(lambda *x: jnp.repeat(jnp.stack(x), shape[1], axis=0), *fresh)

    def score(agent: PyTree, level: PyTree) -> Array:
        played = play(jax.random.key(3), env, learner, agent, level, limit)
        own = env.success
        return own(played.episode_return, played.terminated).astype(jnp.float32).mean()

    new = np.asarray(jax.jit(jax.vmap(score))(agents, levels)).reshape(shape)
    part = learner.bptt_steps or 1  # the length of a rollout must be a multiple of `part`
    limit = -(-limit // part) * part
    first = jax.tree.map(lambda x: x[:: shape[1]], (agents, states.student, states.sampler))
    visits, paid = jax.jit(jax.vmap(partial(_watch, student, limit)))(*first)
    return new, np.asarray(visits), np.asarray(paid)


def _fresh(task: Task, value: float) -> PyTree:
    """For a dial value, sample levels [ATTEMPTS] that are independent of the training levels."""
    env = make_env(task, value)
    keys = jax.random.split(jax.random.key(23), ATTEMPTS)
    return jax.jit(jax.vmap(env.sample_level))(keys)


def _watch(student: Any, limit: int, agent: PyTree, state: PyTree, pool: Pool) -> tuple:
    """Return visits to each position in 16 episodes, and the raw bonuses of the first episode."""
    env, bonus, num = student.env, student.bonus, 16
    level = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], (num, 1, *x.shape[1:])), pool.level)
    record = Record(features=("position",), last_obs=True)
    if bonus:
        record = record._replace(features=tuple({*bonus.features, "position"}))
    key = jax.random.key(5)
    played, _ = rollout(key, env, student.learner, agent, level, limit, record)
    alive = jnp.cumsum(played.first, 0) == 1
    at = played.visits["position"].before
    visits = jnp.zeros(env.num_positions()).at[at].add(alive)
    if not bonus:
        return visits, jnp.full(limit, jnp.nan)
    raw, own = bonus.novelty, jax.tree.map(lambda x: x[0], state.bonus.novelty)
    own = _with_slots(raw, own, num)
    _, paid, _ = raw.apply(key, own, played, jnp.zeros(num))
    return visits, jnp.where(alive[:, 0], paid[:, 0], jnp.nan)


def _with_slots(bonus: Any, state: PyTree, num: int) -> PyTree:
    """Return the state of a bonus with all per-slot parts replaced by new parts for `num` slots."""
    blank = bonus.init(jax.random.key(0), num)
    return jax.tree.map(lambda new, old: old if old.shape == new.shape else new, blank, state)
