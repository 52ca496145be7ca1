"""Laws that environments must satisfy; see `rlgen.testing`."""

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from jaxtyping import Array

from rlgen import registry
from rlgen.held_out import Rejection, held_out, rejection, replace_held_out
from rlgen.levels import words
from rlgen.observations import interface_difference
from rlgen.parallel.seeds import tree_where
from rlgen.protocols import Editor, LevelEnv
from rlgen.testing.common import (
    assert_close,
    assert_component,
    assert_same,
    assert_shapes,
    differs,
    new_slots,
)
from rlgen.types import PyTree


class _Walk(NamedTuple):
    """A random episode, [S, ...]; after its end, the last step is repeated with reward 0."""

    obs: PyTree
    state: PyTree
    reward: Array
    terminated: Array
    at_limit: Array
    done: Array


def check_env(
    env: LevelEnv, num_steps: int = 32, num_levels: int = 8, one_level: bool = False
) -> None:
    """Check that an environment is a pure function of keys and levels and fulfils its interface.

    - The environment is a `LevelEnv`, and none of its methods is a misspelt optional method.
    - Equal instances compare equal and have equal hashes, so that they share compiled programs.
    - Different keys give different levels; the same key gives the same level.
    - Observations lie in the observation space; states and observations never change shape or
      dtype.
    - The actions are discrete: `action_space` is a `Discrete` space of `num_actions` actions.
    - The reward is a scalar; `terminated` and `is_truncated` are single flags.
    - The same keys give the same episode, whether it is played alone or in a batch.
    - No episode continues beyond its level's `max_steps_in_episode`.
    - Reaching the time limit does not set `terminated`. The law finds an environment that reads the
      limit from the level, or from its own field that equals the limit. A limit that is a
      constant in the code cannot be distinguished from a task that ends after as many steps.
    - gymnax's own `step` runs, and its results have the shapes of the results of `reset_env`.
    - No level of a sealed suite enters training; see `check_held_out`.
    - The optional methods that the environment has (see `rlgen.protocols.OPTIONAL_METHODS`) fulfil
      their own laws.

    Args:
        env: environment to check.
        num_steps: length of the random episodes; ideally above the time limit.
        num_levels: number of random levels.
        one_level: True if the family consists of a single level, so that every key gives this
            level.
    """
    assert_component(env, LevelEnv)
    _check_equality(env)
    keys = jax.random.split(jax.random.key(1), num_levels)
    level = jax.jit(jax.vmap(env.sample_level))(keys)
    assert hasattr(level, "max_steps_in_episode"), (
        "a level has no field `max_steps_in_episode`, the time limit in steps, which evaluations "
        "read: add the field"
    )
    _check_levels(env, keys, level, one_level)
    _check_shapes(env, jax.tree.map(lambda x: x[0], level))
    walks = _check_walks(env, keys, level, num_steps)
    _check_time_limit(env, keys, level, num_steps)
    _check_space(env, level, walks.obs)
    for ability, law in _ABILITIES.items():
        if registry.has(env, ability):
            law(env, level, walks)


def check_held_out(env: LevelEnv, num_levels: int = 4096, most: float = 0.05) -> None:
    """Check that the levels of an environment's sealed suites stay out of training.

    See `rlgen.held_out`. Sampled levels, edited levels (`mutate_levels`) and levels built by random
    actions in the editor pass through the lookup of every curriculum. After the lookup, no level is
    held out.

    Args:
        env: environment to check.
        num_levels: number of levels of each kind.
        most: maximum fraction of the sampled levels that may be held out. If a larger fraction is
            rejected, training has another distribution of levels than `sample_level`; the split of
            the suite should be `seen`.
    """
    rejected = rejection(env)
    if rejected is None:
        return
    taken = set(words(rejected.hashes))
    keys = jax.random.split(jax.random.key(5), num_levels)
    sampled = jax.jit(jax.vmap(env.sample_level))(keys)
    kinds = {"sampled": sampled}
    if registry.has(env, LevelEnv.mutate_levels):
        edit = jax.jit(lambda key, level: env.mutate_levels(key, level, 2))
        kinds["edited"] = edit(jax.random.key(6), sampled)
    if registry.has(env, LevelEnv.editor):
        kinds["built"] = jax.jit(jax.vmap(partial(_built, env.editor())))(keys)
    replace = jax.jit(partial(_looked_up, env, rejected))
    for kind, level in kinds.items():
        before, after = (words(x) for x in replace(level))
        share = np.mean([word in taken for word in before])
        assert kind != "sampled" or share <= most, (
            f"{share:.1%} of the sampled levels are held out, because they are levels of "
            f"{', '.join(held_out(env))}; give the levels of such suites the split 'seen'"
        )
        assert taken.isdisjoint(after), f"{kind} levels of a sealed suite enter training"
        same = all(a == b for a, b in zip(before, after, strict=True) if a not in taken)
        assert same, f"{kind} levels that are not held out were replaced"


def _looked_up(env: LevelEnv, rejected: Rejection, level: PyTree) -> tuple[Array, Array]:
    """Hashes of levels [M, ...] before and after the lookup of a curriculum, [M, 2] each."""
    slots = new_slots(jax.tree.map(lambda x: x[:, None], level), ())
    slots = replace_held_out(env, rejected, slots, jnp.ones_like(slots.weight, bool))
    hashes = jax.vmap(env.level_hash)
    return hashes(level), hashes(jax.tree.map(lambda x: x[:, 0], slots.level))


def _built(editor: Editor, key: Array) -> PyTree:
    """Level that an editor has built after an episode of random actions."""
    key_noise, key_reset, key_steps = jax.random.split(key, 3)
    noise = editor.sample_level(key_noise)

    def step(state: PyTree, key: Array) -> tuple[PyTree, None]:
        key_act, key_step = jax.random.split(key)
        action = jax.random.randint(key_act, (), 0, editor.num_actions)
        return editor.step_env(key_step, state, action, noise)[1], None

    start = editor.reset_env(key_reset, noise)[1]
    end, _ = jax.lax.scan(step, start, jax.random.split(key_steps, editor.horizon))
    return editor.level_of(end)


def _check_suites(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check that sampled and edited levels of sealed suites are replaced in training."""
    check_held_out(env, num_levels=256)


def _check_equality(env: Any) -> None:
    """Check that a copy of the environment is equal to it and does not cause a recompilation."""
    traces = []

    @partial(jax.jit, static_argnums=0)
    def sample(env: LevelEnv, key: Array) -> PyTree:
        traces.append(env)
        return env.sample_level(key)

    # `env` is a static argument of jit, so equal environments must share one trace.
    twin = copy.deepcopy(env)
    assert twin == env and hash(twin) == hash(env), "two equal environments do not compare equal"
    for each in (env, twin):
        sample(each, jax.random.key(0))
    assert len(traces) == 1, "a second environment that equals the first was compiled again"


def _check_levels(env: LevelEnv, keys: Array, level: PyTree, one_level: bool) -> None:
    alone = jax.jit(env.sample_level)(keys[1])
    assert_same(alone, _row(level, 1), "the same key gave different levels alone and in a batch")
    if not one_level:
        same = all(not differs(_row(level, i), alone) for i in range(len(keys)))
        assert not same, (
            f"{len(keys)} keys gave the same level; if the family has only one level, pass "
            "one_level=True"
        )


def _check_shapes(env: Any, level: PyTree) -> None:
    key, action = jax.random.key(0), jnp.int32(0)
    space = env.action_space(level)
    assert isinstance(space, spaces.Discrete), (
        f"action_space is a {type(space).__name__}, but rlgen's agents need discrete actions: "
        "number the actions, and return spaces.Discrete(num_actions)"
    )
    assert space.n == env.num_actions, "action_space and num_actions disagree"
    obs, state = jax.eval_shape(env.reset_env, key, level)
    step = jax.eval_shape(env.step_env, key, state, action, level)
    assert_shapes(step[0], obs, "the observation after a step differs from that after a reset")
    assert_shapes(step[1], state, "the state after a step differs from that after a reset")
    reward, terminated, info = step[2:]
    assert reward.shape == () and reward.dtype == jnp.float32, f"the reward is {reward}"
    truncated = jax.eval_shape(env.is_truncated, state, level)
    for name, flag in (("terminated", terminated), ("is_truncated", truncated)):
        assert flag.shape == () and flag.dtype == bool, f"{name} is {flag}, not one flag"
    assert isinstance(info, dict), f"info is {type(info).__name__}, not a dict"
    theirs = jax.eval_shape(env.step, key, state, action, level)
    assert_shapes(theirs[:2], (obs, state), "gymnax's step differs from reset in form")


def _check_walks(env: LevelEnv, keys: Array, level: PyTree, num_steps: int) -> _Walk:
    # The episodes are compared within a tolerance, because a batched program may add floats in
    # another order.
    walks = _play(env, num_steps, keys, level)
    alone = jax.jit(partial(_walk, env, num_steps))
    for i in range(2):
        sentence = "an episode played alone differs from the same one in a batch"
        assert_close(alone(keys[i], _row(level, i)), _row(walks, i), sentence)
    limit = np.asarray(level.max_steps_in_episode)
    # Number of steps up to and including the first step with `done`, or `num_steps` + 1 if no step
    # has `done`.
    length = (~np.asarray(walks.done)).sum(1) + 1
    # Only episodes whose time limit lies within the walk can be checked.
    assert (length <= limit)[limit <= num_steps].all(), "an episode continued after the time limit"
    # Row t of a walk describes the state after t + 1 steps.
    early = np.asarray(walks.at_limit & ~walks.terminated) & (
        np.arange(1, num_steps + 1) < limit[:, None]
    )
    assert not early.any(), "is_truncated is True before max_steps_in_episode"
    assert np.isfinite(walks.reward).all(), "a reward is not finite"
    return walks


def _check_time_limit(env: Any, keys: Array, level: PyTree, num_steps: int) -> None:
    """Check that an episode that reaches its time limit is not `terminated` by the limit.

    The same level is played with the same keys and actions under two time limits. Up to the lower
    limit the episodes are the same, so `terminated` must be the same. A goal that is reached by
    chance in the last step counts under both limits.
    """
    limit = np.asarray(level.max_steps_in_episode)  # [M]

    def played(env: LevelEnv, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # With the dtype and shape of the sampled limits, the compiled program is reused.
        new = level.replace(max_steps_in_episode=jnp.asarray(limits, limit.dtype))
        walks = _play(env, num_steps, keys, new)
        return np.asarray(walks.terminated), np.asarray(walks.done)

    step = np.arange(1, num_steps + 1)
    # Low limits differ between levels, so that some episodes reach them even if tasks are short.
    low = np.minimum(limit, 1 + np.arange(len(limit)) * num_steps // len(limit))
    far = limit + num_steps
    terminated, done = played(env, far)
    ended = played(env, low)[0] & ~terminated & (step <= low[:, None])
    assert not ended.any(), _terminates_at(ended, "`max_steps_in_episode` of the level")
    # A limit in a field of the environment ends every episode that lasts until the limit, also if
    # the level has a higher limit. A task that ends so often at the limit is rare, and the programs
    # below are compiled only for such a task.
    at_limit = step == limit[:, None]
    started = np.concatenate([np.zeros_like(done[:, :1]), done[:, :-1]], 1)
    reached = at_limit & ~started
    if not reached.any() or not terminated[reached].all():
        return
    for name in _fields_that_equal(env, limit):
        try:
            other = replace(env, **{name: int(limit[0]) + num_steps})
        except ValueError:  # the environment rejects the value
            continue
        ended = reached & ~played(other, far)[0]
        assert not ended.any(), _terminates_at(ended, f"`{name}` of the environment")


def _fields_that_equal(env: Any, limit: np.ndarray) -> list[str]:
    """Names of the environment's integer fields whose value is the time limit of all levels."""
    own = dataclasses.fields(env) if dataclasses.is_dataclass(env) else ()
    values = {each.name: getattr(env, each.name) for each in own if each.init}
    return [k for k, v in values.items() if type(v) is int and (limit == v).all()]


def _terminates_at(ended: np.ndarray, limit: str) -> str:
    row, step = np.argwhere(ended)[0]
    return (
        f"step_env returned terminated=True in step {step + 1} of level {row}, but not if {limit} "
        "is higher: the environment terminates at its time limit, so a learner would take the "
        "value of the next state as 0. Let `terminated` depend on the task only; the caller "
        "applies the time limit with `is_truncated`. If the task itself ends after a number of "
        "steps, store this number in another field of the level"
    )


# Static arguments, so that all calls for equal environments share one compiled program.
@partial(jax.jit, static_argnums=(0, 1))
def _play(env: LevelEnv, num_steps: int, keys: Array, level: PyTree) -> _Walk:
    """Play a random episode on each level, [M, S, ...]; see `_walk`."""
    return jax.vmap(partial(_walk, env, num_steps))(keys, level)


def _walk(env: LevelEnv, num_steps: int, key: Array, level: PyTree) -> _Walk:
    """Play an episode with uniformly random actions, for `num_steps` steps."""
    key_reset, key_steps = jax.random.split(key)
    obs, state = env.reset_env(key_reset, level)

    def step(walk: _Walk, key: Array) -> tuple[_Walk, _Walk]:
        key_act, key_step = jax.random.split(key)
        action = jax.random.randint(key_act, (), 0, env.num_actions)
        obs, state, reward, terminated, _ = env.step_env(key_step, walk.state, action, level)
        at_limit = env.is_truncated(state, level)
        new = _Walk(obs, state, reward, terminated, at_limit, terminated | at_limit)
        # After the end of the episode the walk is frozen, because `step_env` need not be defined
        # after the end. The reward of a frozen step is 0, so that the sum over the walk is the
        # return.
        walk = tree_where(walk.done, walk._replace(reward=jnp.zeros_like(reward)), new)
        return walk, walk

    start = _Walk(obs, state, jnp.float32(0), jnp.bool_(False), jnp.bool_(False), jnp.bool_(False))
    return jax.lax.scan(step, start, jax.random.split(key_steps, num_steps))[1]


def _check_space(env: Any, level: PyTree, obs: PyTree) -> None:
    space = env.observation_space(_row(level, 0))
    for path, part, box in _parts("obs", jax.tree.map(np.asarray, obs), space):
        if isinstance(box, spaces.Box):
            shape = part.shape[2:]
            assert shape == tuple(box.shape), f"{path} has shape {shape}, its space {box.shape}"
            right = part.dtype == box.dtype
            assert right, f"{path} has dtype {part.dtype}, its space {np.dtype(box.dtype)}"
            low, high = np.asarray(box.low), np.asarray(box.high)
            assert (part >= low).all() and (part <= high).all(), f"{path} leaves its space"
        else:
            assert (part >= 0).all() and (part < box.n).all(), f"{path} leaves its space"


def _parts(path: str, obs: PyTree, space: spaces.Space) -> list[tuple]:
    """Path, value and space of each leaf of an observation."""
    if isinstance(space, spaces.Dict):
        get = obs.__getitem__ if isinstance(obs, dict) else partial(getattr, obs)
        inner = ((f"{path}.{name}", get(name), each) for name, each in space.spaces.items())
    elif isinstance(space, spaces.Tuple):
        inner = ((f"{path}[{i}]", obs[i], each) for i, each in enumerate(space.spaces))
    else:
        return [(path, obs, space)]
    return [leaf for part in inner for leaf in _parts(*part)]


def _check_hash(env: Any, level: PyTree, walks: _Walk) -> None:
    hashes = np.asarray(jax.jit(jax.vmap(env.level_hash))(level))
    assert hashes.dtype == np.uint32 and hashes.shape[1:] == (2,), "level_hash is not uint32[2]"
    contents = [_bytes(_row(level, i)) for i in range(len(hashes))]
    if len(set(contents)) > 1:
        # Two different hashes are enough, because an environment may leave fields out of the hash,
        # so that some different levels count as equal.
        assert len({x.tobytes() for x in hashes}) > 1, "different levels have equal hashes"


def _check_solve(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check that the optima are consistent and no random episode beats them."""
    solution = jax.tree.map(np.asarray, jax.jit(jax.vmap(env.solve))(level))
    unsolvable = ~solution.solvable
    assert (solution.steps[unsolvable] == -1).all(), "an unsolvable level has optimal steps"
    assert (solution.optimal_return[unsolvable] == 0).all(), "an unsolvable level has a return"
    assert (solution.steps[solution.solvable] > 0).all(), "a solvable level has optimal steps < 1"
    total, length = np.asarray(walks.reward).sum(1), (~np.asarray(walks.done)).sum(1) + 1
    # Only solved episodes are compared, because the optimal steps and the optimal return refer to
    # episodes that solve the level.
    solved = np.asarray(walks.terminated)[:, -1] & (total > 0)
    assert not (solved & unsolvable).any(), "a random episode solved an unsolvable level"
    assert (length >= solution.steps)[solved].all(), "a random episode was faster than the optimum"
    # The tolerance covers the rounding of a sum of float32 rewards.
    compared = np.ones_like(solved) if env.optimum_is_bound else solved
    assert (total <= solution.optimal_return + 1e-5)[compared].all(), "a return exceeds the optimum"


def _check_labels(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check the form of labelled states, and that exactly the solvable levels have best actions."""

    def label(key: Array, level: PyTree) -> PyTree:
        state, best = env.labelled_states(key, level, 4)
        obs = jax.vmap(lambda one: env.observe(key, one, None, level))(state)
        return state, best, obs

    keys = jax.random.split(jax.random.key(3), len(jax.tree.leaves(level)[0]))
    state, best, obs = jax.jit(jax.vmap(label))(keys, level)
    assert_shapes(
        state,
        jax.tree.map(lambda x: x[:, :4], walks.state),
        "a labelled state differs in form from a state of an episode",
    )
    assert_shapes(
        obs,
        jax.tree.map(lambda x: x[:, :4], walks.obs),
        "the observation of a labelled state differs in form",
    )
    assert best.shape[2] == env.num_actions and best.dtype == bool, (
        f"best actions are {best.dtype}{list(best.shape)}, not one flag for each action"
    )
    if registry.has(env, LevelEnv.solve):
        solvable = np.asarray(jax.jit(jax.vmap(env.solve))(level).solvable)
        known = np.asarray(best).any((1, 2))
        assert (known == solvable).all(), (
            "best actions must exist if and only if a level is solvable"
        )


def _check_mutate(env: Any, level: PyTree, walks: _Walk) -> None:
    key, other = jax.random.split(jax.random.key(2))
    mutate = jax.jit(lambda key, level: env.mutate_levels(key, level, 4))
    child = mutate(key, level)
    assert_shapes(child, level, "a mutant differs in form from its parent")
    # All levels are compared together, because an edit may have no effect on a single level.
    assert differs(child, level), "four edits changed no level"
    assert differs(child, mutate(other, level)), "another key gave the same edits"


def _check_features(env: Any, level: PyTree, walks: _Walk) -> None:
    for name, x in jax.jit(jax.vmap(env.level_features))(level).items():
        assert x.ndim == 1, f"the feature {name} is not a scalar"
        assert np.isfinite(np.asarray(x, float)).all(), f"the feature {name} is not finite"


def _check_unpack(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check that `unpack` returns floats and does not depend on leading axes."""
    batched = jax.jit(env.unpack)(walks.obs)
    for path, x in jax.tree_util.tree_leaves_with_path(batched):
        float_ = jnp.issubdtype(x.dtype, jnp.floating)
        assert float_, f"unpack gives {x.dtype} at {jax.tree_util.keystr(path)}, not floats"
    one = jax.jit(env.unpack)(jax.tree.map(lambda x: x[0, 0], walks.obs))
    expected = jax.tree.map(lambda x: x[0, 0], batched)
    assert_same(one, expected, "unpack of one observation differs from unpack of many")


def _check_success(env: Any, level: PyTree, walks: _Walk) -> None:
    solved = env.success(walks.reward.sum(1), walks.terminated[:, -1])
    shape = walks.reward.shape[:1]
    assert solved.shape == shape and solved.dtype == bool, "success is not one flag per episode"


def _check_picture(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check the form of the pictures of a state and of a level."""
    pictures = {}
    if registry.has(env, LevelEnv.render):
        pictures["render"] = env.render(
            _row(level, 0), jax.tree.map(lambda x: x[0, 0], walks.state)
        )
    if registry.has(env, LevelEnv.level_image):
        pictures["level_image"] = env.level_image(_row(level, 0))
    for name, x in pictures.items():
        right = x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] == 3
        assert right, f"{name} gives {x.dtype}{list(x.shape)}, not uint8[H, W, 3]"


def _check_presets(env: Any, level: PyTree, walks: _Walk) -> None:
    for fields in env.presets().values():
        # Fields are validated at construction, so building each preset checks its values.
        type(env)(**fields)


def _check_ladder(env: Any, level: PyTree, walks: _Walk) -> None:
    """Check that agents of the environment can play the levels of its ladder.

    Suites are looked up but not built, because building some of them takes long. `rlgen ladder`
    checks the suites.
    """
    suites = env.suites()
    for name, shift in env.ladder().items():
        assert bool(shift.suite) != bool(shift.fields), (
            f"{name} of the ladder must have either a suite or changed fields"
        )
        known = not shift.suite or shift.suite in suites
        assert known, f"{name} of the ladder names the suite {shift.suite}, which does not exist"
        if shift.suite:
            continue
        # Agents must be able to play the shifted levels.
        unlike = interface_difference(env, replace(env, **shift.fields))
        assert not unlike, f"{name} of the ladder cannot be played: {unlike}"


_ABILITIES: dict[Callable, Callable[[Any, PyTree, _Walk], None]] = {
    LevelEnv.level_hash: _check_hash,
    LevelEnv.solve: _check_solve,
    LevelEnv.labelled_states: _check_labels,
    LevelEnv.mutate_levels: _check_mutate,
    LevelEnv.level_features: _check_features,
    LevelEnv.unpack: _check_unpack,
    LevelEnv.success: _check_success,
    LevelEnv.render: _check_picture,
    LevelEnv.level_image: _check_picture,
    LevelEnv.presets: _check_presets,
    LevelEnv.ladder: _check_ladder,
    LevelEnv.suites: _check_suites,
}


def _row(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda x: x[i], tree)


def _bytes(level: PyTree) -> bytes:
    return b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(level))
