"""Laws that learners must satisfy; see `rlgen.testing`."""

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.protocols import Learner, LevelEnv, Network
from rlgen.rollout import rollout
from rlgen.students import OnPolicy
from rlgen.testing.common import assert_close, assert_component, assert_same, differs, new_slots
from rlgen.types import Metrics, PyTree, Rollout


def check_learner(env: LevelEnv, learner: Learner, num_slots: int = 4, num_steps: int = 8) -> None:
    """Check that a learner respects slot weights, trains all parameters and reproduces rollouts.

    - If all slots have weight 0, the state does not change, bit for bit. The state includes the
      optimiser's moments and counters.
    - The data of slots of weight 0 does not affect the update, bit for bit.
    - An update changes every array of `state.params`, or of the state if it has no `params`.
    - If the learner has a network, `network.unroll` from the stored carries reproduces the
      log-probabilities and values that were recorded while acting.

    Args:
        env: environment that the learner supports.
        learner: learner to check.
        num_slots: number of slots, an even number.
        num_steps: T; ideally long enough for the ends of several episodes.
    """
    assert_component(learner, Learner)
    student = OnPolicy(env, learner, num_steps)
    student.check(num_slots)
    key_init, key_level, key_run, key_learn = jax.random.split(jax.random.key(0), 4)
    state = jax.jit(lambda key: student.init(key, num_slots))(key_init)
    level = jax.vmap(env.sample_level)(jax.random.split(key_level, num_slots))
    slots = new_slots(jax.tree.map(lambda x: x[:, None], level), ())
    free = jnp.ones(num_slots, bool)

    run = jax.jit(lambda state, slots: student.run(key_run, state, slots, free))
    # The comparison includes the optimiser's moments and counters, which a step on a zero gradient
    # would change.
    skipped, _, _ = run(state, slots._replace(weight=jnp.zeros(num_slots)))
    assert_same(skipped, state, "an update without any weight changed the student's state")
    learned, outcome, metrics = run(state, slots)
    # This finds parameters that no loss reaches, such as a critic whose gradient is always 0.
    _refuse_still(state.learner, learned.learner)
    _refuse_not_finite(metrics, student.averaged_over)

    # The axis of the population, which has one learner, is dropped.
    played = jax.tree.map(lambda x: x[0], outcome.rollout)
    one = jax.tree.map(lambda x: x[0], state.learner)
    update = jax.jit(lambda rollout, weight: learner.update(key_learn, one, rollout, weight)[0])
    half = jnp.arange(num_slots) % 2.0  # weights 0, 1, 0, 1, ...
    # Bit for bit, since data of weight 0 must not even affect a normalisation constant.
    spoilt, ones = _spoil(played, half == 0), jnp.ones(num_slots)
    sentence = "the data of a slot of weight 0 affected the update"
    assert_same(update(spoilt, half), update(played, half), sentence)
    # A learner that ignores all rewards passes the check above, but not this converse.
    heard = differs(update(spoilt, ones), update(played, ones))
    assert heard, "the rewards of a slot of weight 1 did not affect the update"
    if isinstance(getattr(learner, "network", None), Network):  # not all learners have one
        _check_rerun(env, learner, one.params, played)


def check_fields_matter(
    env: LevelEnv,
    learner: Learner,
    unused: tuple[str, ...] = (),
    covered: Callable[[Any], bool] = lambda component: False,
) -> None:
    """Check that every hyperparameter of a learner and its network changes the compiled program.

    If changing a field alone has no effect, the change must have an effect after one Boolean option
    is toggled.

    Args:
        env: environment in which all fields can matter. For example, the fields of a convolution
            matter only if the observation contains an image.
        learner: learner to check.
        unused: names of fields that cannot have an effect.
        covered: function that returns True for a component whose fields are skipped, for example
            because another test checks them.
    """
    program = _Programs(env, {})
    base = program(learner)
    assert program(learner) == base, "tracing one learner twice gave two programs"
    options = [(path, not value) for path, value in _fields(learner) if isinstance(value, bool)]
    for path, value in _fields(learner):
        if path[-1] in unused or covered(_get(learner, path[:-1])):
            continue
        changed = _set(learner, path, _other(learner, path, value))
        if program(changed) != base:
            continue
        # Toggle one option at a time, which may switch on the loss term that the field scales.
        beside = ((_set(changed, *option), _set(learner, *option)) for option in options)
        matters = any(program(with_it) != program(without) for with_it, without in beside)
        assert matters, f"{type(learner).__name__}.{'.'.join(path)} changes nothing"


def _refuse_not_finite(metrics: Metrics, averaged_over: Mapping[str, str]) -> None:
    for name, value in metrics.items():
        # A mean over items, such as ended episodes, is NaN if their number is 0.
        count = metrics.get(averaged_over.get(name, ""), np.ones(()))
        right = np.isfinite(value) | (np.isnan(value) & (count == 0))
        assert np.all(right), f"metric {name} is {value} after an ordinary update"


def _refuse_still(before: PyTree, after: PyTree) -> None:
    """Raise `AssertionError` if an update left a parameter array unchanged."""
    before, after = (getattr(state, "params", state) for state in (before, after))
    for (path, x), y in zip(
        jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True
    ):
        assert differs(x, y), f"an update left {jax.tree_util.keystr(path)} unchanged"


def _spoil(played: Rollout, where: Array) -> Rollout:
    """Replace the rewards and values of some slots by large random numbers."""
    wild = 1e3 * jax.random.normal(jax.random.key(9), played.reward.shape)
    fields = {"reward": wild, "bonus": -wild, "value": 2 * wild, "next_value": 3 * wild}
    return played._replace(
        **{name: jnp.where(where, new, getattr(played, name)) for name, new in fields.items()}
    )


def _check_rerun(env: LevelEnv, learner: Any, params: PyTree, played: Rollout) -> None:
    """Check that re-running each part of a rollout from its stored carry gives the same results."""
    num_steps = played.reward.shape[0]
    length = learner.bptt_steps or num_steps

    def parts(x: Array) -> Array:
        return x.reshape(num_steps // length, length, *x.shape[1:])

    @jax.jit
    def rerun(played: Rollout) -> tuple[Array, Array]:
        def one(carry: PyTree, obs: PyTree, first: Array) -> tuple:
            return learner.network.unroll(env, params, carry, obs, first)[1:]

        # One call for each part of L steps, [T / L, L, N, ...], as in a learner with truncated
        # gradients.
        logits, value = jax.vmap(one)(
            played.carry, jax.tree.map(parts, played.obs), parts(played.first)
        )
        log_p = jnp.take_along_axis(
            jax.nn.log_softmax(logits), parts(played.action)[..., None], axis=-1
        )[..., 0]
        return log_p.reshape(played.reward.shape), value.reshape(played.reward.shape)

    log_prob, value = rerun(played)
    assert_close(log_prob, played.log_prob, "re-running a rollout changes the log-probabilities")
    assert_close(value, played.value, "re-running a rollout changes the values")


class _Programs(NamedTuple):
    """Function that returns the program of a learner's update as text, without memory addresses."""

    env: LevelEnv
    known: dict  # shapes of state and rollout, by the values of all fields except floats

    def __call__(self, learner: Any) -> str:
        # Floats do not affect shapes. Tracing a rollout for each changed float would take most of
        # the time of the check.
        fields = tuple(field for field in _fields(learner) if not isinstance(field[1], float))
        if fields not in self.known:
            self.known[fields] = jax.eval_shape(partial(self._play, learner))
        state, played = self.known[fields]
        # Traced, not compiled. The text includes shapes, which may be the only difference.
        update = jax.make_jaxpr(learner.update)(jax.random.key(0), state, played, jnp.ones(8))
        return re.sub(r"0x[0-9a-f]+", "", f"{state}{played}{update}")

    def _play(self, learner: Learner) -> tuple[PyTree, Rollout]:
        key = jax.random.key(0)
        state, level = learner.init(key), self.env.sample_level(key)
        level = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, 1, *jnp.shape(x))), level)
        return state, rollout(key, self.env, learner, state, level, 8)[0]


def _fields(component: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple, object]]:
    """Paths and values of all plain fields, including the fields of nested dataclasses."""
    for field in dataclasses.fields(component):
        value = getattr(component, field.name)
        if field.name == "env" or not field.metadata.get("config", True):
            continue
        if dataclasses.is_dataclass(value):
            yield from _fields(value, (*prefix, field.name))
        elif isinstance(value, bool | int | float | str):
            yield (*prefix, field.name), value


def _get(component: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        component = getattr(component, name)
    return component


def _set(component: Any, path: tuple[str, ...], value: object) -> Any:
    name, *rest = path
    if rest:
        value = _set(getattr(component, name), tuple(rest), value)
    return dataclasses.replace(component, **{name: value})


def _other(component: Any, path: tuple[str, ...], value: object) -> object:
    """Return another valid value of a field."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 4
    if isinstance(value, float):
        # Halving keeps a value within ranges such as (0, 1].
        return 0.5 * value or 0.25
    owner = type(_get(component, path[:-1]))
    allowed = typing.get_args(typing.get_type_hints(owner)[path[-1]])
    return next((other for other in allowed if other != value), f"another {value}")
