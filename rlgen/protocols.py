"""Interfaces of all components, as abstract base classes.

A component is a frozen dataclass that subclasses one of these classes. A class is either abstract
(declared with `abstract=True`) or final: a final class cannot be subclassed, only wrapped. Every
optional method and attribute is declared here, once, with its default. Some methods are
*capabilities*: by default they raise `MissingCapability`. `component.offers(Base.method)` returns
whether a component implements a capability, and `rlgen.registry.require` rejects an environment
that lacks it.

Levels are played in N parallel *slots*. Each slot has a *queue* of R levels, which it plays in
turn. The slot also has a *weight*, the factor of the slot's data in the learner's loss. The learner
is not trained on data of weight 0. A slot keeps its levels for one or more updates. This period is
the slot's *tenancy*. See `rlgen.types` for the data types and their axes.

Every random method takes a key as the first argument and consumes it. No method is jitted: the
caller compiles a program of many updates once. The state of a component is a pytree of arrays that
only this component reads.
"""

import abc
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from gymnax.environments import spaces
from gymnax.environments.environment import Environment
from jaxtyping import Array, Bool, Float, Int, UInt8, UInt32

from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Rollout, Slots, Solution

__all__ = [
    "FEATURES",
    "OPTIONAL_METHODS",
    "Actor",
    "Approximator",
    "Bonus",
    "Component",
    "Editor",
    "Learner",
    "LevelEnv",
    "LevelModel",
    "MissingCapability",
    "Network",
    "RuleLearner",
    "RuleNet",
    "Sampler",
    "Score",
    "Student",
    "check_numbers",
    "example_level",
    "feature_of",
    "has_feature",
    "level_hash",
    "num_feature_values",
]


class MissingCapability(ValueError):  # noqa: N818 (unsupported input, not a programming error)
    """A component lacks an optional method that another component needs."""


class Component(abc.ABC):  # noqa: B024 (its subclasses declare the abstract methods)
    """Base class of all components; reports which capabilities a component has.

    A subclass that is declared as `class X(Component, abstract=True)` is abstract. Any other
    subclass is final.
    """

    _is_abstract: ClassVar[bool] = True

    def __init_subclass__(cls, abstract: bool = False, **rest: Any):
        super().__init_subclass__(**rest)
        for base in cls.__bases__:
            # The flag is read from `__dict__`, because a base that only inherits the flag from an
            # abstract class is final.
            if issubclass(base, Component) and not base.__dict__.get("_is_abstract", False):
                raise TypeError(
                    f"{base.__name__} is final: {cls.__name__} must hold one as a field instead of "
                    f"extending it (or declare {base.__name__} with abstract=True)"
                )
        cls._is_abstract = abstract

    def offers(self, capability: Callable) -> bool:
        """Return whether this component has a capability.

        A wrapper delegates to the component that it wraps. A component whose capabilities depend
        on its fields overrides this method.

        Args:
            capability: method of the base class, such as `LevelEnv.solve`.
        """
        # A component offers a method if its class overrides the base class's method of that name.
        return getattr(type(self), capability.__name__, capability) is not capability

    def must_offer(self, capability: Callable, message: str = "") -> None:
        """Raise unless this component offers a capability.

        If `offers` depends on the component's fields, the capability's method calls this function
        first.

        Args:
            capability: method of the base class, such as `LevelEnv.solve`.
            message: error message; by default it names the class and the method.

        Raises:
            MissingCapability: the component does not offer the capability.
        """
        if not self.offers(capability):
            raise self.missing(capability, message)

    def missing(self, capability: Callable, message: str = "") -> MissingCapability:
        """Return the error to raise when a missing capability is called."""
        return MissingCapability(message or f"{type(self).__name__} has no {capability.__name__}")


def check_numbers(
    component: object,
    *names: str,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
    owner: str = "",
) -> None:
    """Reject numbers outside their range, and NaN.

    Args:
        component: object whose fields are checked.
        names: names of the fields.
        least: inclusive lower bound. At most one of `least` and `above` is given.
        above: exclusive lower bound.
        most: inclusive upper bound. At most one of `most` and `below` is given.
        below: exclusive upper bound.
        owner: prefix of the field's name in a message, such as `network.`.

    Raises:
        ValueError: a number is out of range; the message states the field, the allowed range and
            the value.
    """
    low = above if least is None else least
    high = below if most is None else most
    if high is not None:
        brackets = "(" if least is None else "[", ")" if most is None else "]"
        allowed = f"lie in {brackets[0]}{low}, {high}{brackets[1]}"
    else:
        allowed = f"be above {low}" if least is None else f"be at least {low}"
        allowed = "be 0 or more" if least == 0 else allowed
    for name in names:
        value = getattr(component, name)
        # Comparisons with NaN are False, so NaN never fits.
        fits = (value >= least if least is not None else above is None or value > above) and (
            value <= most if most is not None else below is None or value < below
        )
        if not fits:
            raise ValueError(f"{owner}{name} must {allowed}, got {value}")


class LevelEnv(Component, Environment[Any, Any], abstract=True):
    """A family of levels: a gymnax environment whose `params` are one level.

    Environments are frozen dataclasses, so that equal environments share compiled programs. A level
    has the field `max_steps_in_episode`, its time limit in steps. Unless `is_truncated` is
    overridden, a state has the field `time`, the number of steps taken.
    """

    lowest_return: float = 0.0
    """Lower bound on the return of every episode."""
    suite_fields: tuple[str, ...] | None = None
    """Fields on which the levels of the suites depend; None stands for all fields."""

    optimum_is_bound: bool = False
    """True if `solve` bounds every episode, on every level.

    No episode then has a higher return than `optimal_return`, and no episode solves a level in
    fewer than `steps` steps. Evaluations that contradict this are rejected. The value is False if a
    lucky episode can exceed the optimum, which is then an expectation.
    """

    @property
    @abc.abstractmethod
    def num_actions(self) -> int:
        """Number of discrete actions."""

    @abc.abstractmethod
    def sample_level(self, key: Key) -> PyTree:
        """Sample a level from the family's base distribution."""

    @abc.abstractmethod
    def reset_env(self, key: Key, params: PyTree) -> tuple[PyTree, PyTree]:
        """Return the first `(obs, state)` of an episode on the level `params`."""

    @abc.abstractmethod
    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: PyTree
    ) -> tuple[PyTree, PyTree, Array, Array, dict]:
        """Take one step and return `(obs, state, reward, terminated, info)`.

        The step neither resets the episode nor applies the time limit: `terminated` depends on the
        task only, and the caller truncates the episode with `is_truncated`.
        """

    @abc.abstractmethod
    def observation_space(self, params: PyTree | None = None) -> spaces.Space:
        """Space of the agent's observations; the same for all levels.

        An environment with another space is taken to have observations of another meaning, so an
        agent can play only in environments with equal spaces. For example, if an observation is
        the index of a state, `Discrete(n)` must have the number of states as n.
        """

    # gymnax requires the next two methods. `is_truncated`, which is true at the level's time limit,
    # is inherited from gymnax.

    @property
    def default_params(self) -> PyTree:
        """A fixed example level."""
        return example_level(self)

    def action_space(self, params: PyTree | None = None) -> spaces.Discrete:
        """Space of the discrete actions; the same for all levels."""
        return spaces.Discrete(self.num_actions)

    # Optional methods with a default.

    def unpack(self, obs: PyTree) -> PyTree:
        """Convert observations [...] to the inputs of a network.

        The inputs are one float array or a pytree of float arrays.
        """
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), obs)

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """Return whether an episode was solved; by default, whether its return is positive.

        Solve rates are reported only for environments that override this method.
        """
        return episode_return > 0

    def level_hash(self, level: PyTree) -> UInt32[Array, "2"]:
        """64-bit content hash of a level; equal levels have equal hashes.

        By default, the hash is computed from all arrays of the level.
        """
        return level_hash(level)

    def for_evaluation(self) -> "LevelEnv":
        """Return the environment in which agents are evaluated, by default this environment.

        If training gives no reward, another environment is returned.
        """
        return self

    def presets(self) -> dict[str, dict[str, Any]]:
        """Field values of each preset: `{preset: {field: value}}`."""
        return {}

    def suites(self) -> dict[str, Callable]:
        """Suites of held-out levels: functions that build a `rlgen.levels.Suite`, by name.

        A suite has its own environment. Agents of this environment must be able to play the suites
        `heldout` and `test`: an observation must mean the same in both environments. Other suites
        can have other observations; they are rejected for agents that would misread them.
        No run trains on the levels of a suite (see `rlgen.held_out`), unless the split of its
        levels is one of `rlgen.levels.OPEN_SPLITS`.
        """
        return {}

    def ladder(self) -> dict[str, Any]:
        """Levels outside the training distribution: `rlgen.levels.DistributionShift` by name."""
        return {}

    # Capabilities. The first line of each docstring is shown in errors and in the documentation.

    def sample_simple_level(self, key: Key) -> PyTree:
        """Sample a level of the simplest kind."""
        raise self.missing(LevelEnv.sample_simple_level)

    def mutate_levels(self, key: Key, levels: PyTree, num_edits: int) -> PyTree:
        """Apply `num_edits` random edits to each of the levels [N, ...]."""
        raise self.missing(LevelEnv.mutate_levels)

    def editor(self) -> "Editor":
        """Return an environment whose episodes build levels of this environment."""
        raise self.missing(LevelEnv.editor)

    def solve(self, level: PyTree) -> Solution:
        """Solve a level exactly: solvability, length of the shortest solution, optimal return."""
        raise self.missing(LevelEnv.solve)

    def labelled_states(
        self, key: Key, level: PyTree, num: int
    ) -> tuple[PyTree, Bool[Array, "S A"]]:
        """Uniformly sampled states [num], each with the actions that begin a shortest solution."""
        raise self.missing(LevelEnv.labelled_states)

    def num_states(self) -> int:
        """Number of values of the observation, which is one integer."""
        raise self.missing(LevelEnv.num_states)

    def expected_return(self, level: PyTree, log_policy: Float[Array, "S A"]) -> Float[Array, ""]:
        """Exact expected undiscounted return of a policy that is given for every state."""
        raise self.missing(LevelEnv.expected_return)

    def lifetime(self) -> int:
        """Number of updates for which meta-learning trains an agent."""
        raise self.missing(LevelEnv.lifetime)

    def position(self, state: PyTree, level: PyTree) -> Int[Array, ""]:
        """Position of the agent, an integer below `num_positions()`."""
        raise self.missing(LevelEnv.position)

    def num_positions(self) -> int:
        """Number of values of `position`."""
        raise self.missing(LevelEnv.num_positions)

    def event(self, state: PyTree, level: PyTree) -> Int[Array, ""]:
        """Event of the step that led to the state, an integer below `num_events()`.

        0 means no event.
        """
        raise self.missing(LevelEnv.event)

    def num_events(self) -> int:
        """Number of values of `event`."""
        raise self.missing(LevelEnv.num_events)

    def feature_values(self, level: PyTree, feature: str, discount: float) -> Float[Array, " Z"]:
        """For each feature value z, the lowest optimal discounted return of a state with value z.

        The feature is `position` or `event`. The optimal discounted return of a state is `discount`
        to the power of the length of the shortest solution from that state. It is 0 if the level
        cannot be solved from the state. The result is also 0 for a z that no state has.
        """
        raise self.missing(LevelEnv.feature_values)

    def level_features(self, level: PyTree) -> dict[str, Array]:
        """Scalars that describe a level, by name."""
        raise self.missing(LevelEnv.level_features)

    def render(self, level: PyTree, state: PyTree) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of one state of an episode."""
        raise self.missing(LevelEnv.render)

    def level_image(self, level: PyTree) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of a level."""
        raise self.missing(LevelEnv.level_image)

    def codec(self) -> Any:
        """Decomposition of the levels into parts: a `rlgen.codec.LevelCodec`."""
        raise self.missing(LevelEnv.codec)

    def load_levels(self, path: Path | str) -> Any:
        """Load a `rlgen.levels.LevelSet` from a `.npz` or text file."""
        raise self.missing(LevelEnv.load_levels)


# The dictionary excludes abstract methods, and methods that gymnax declares, such as
# `action_space`.
OPTIONAL_METHODS: dict[str, Callable] = {
    name: method
    for name, method in vars(LevelEnv).items()
    if inspect.isfunction(method)
    and not name.startswith("_")
    and not method.__dict__.get("__isabstractmethod__", False)
    and name not in vars(Environment)
}
"""Optional methods of an environment, by name."""

FEATURES: dict[str, tuple[Callable, Callable]] = {
    "position": (LevelEnv.position, LevelEnv.num_positions),
    "event": (LevelEnv.event, LevelEnv.num_events),
}
"""Integer features of states, by name.

For each feature, the first method returns its value in a state, and the second method returns the
number of values.
"""


def has_feature(env: LevelEnv, feature: str) -> bool:
    """Return whether an environment has a feature, a name in `FEATURES`."""
    return all(map(env.offers, FEATURES[feature]))


def feature_of(env: LevelEnv, feature: str) -> Callable[[PyTree, PyTree], Int[Array, ""]]:
    """Return the function `(state, level) -> value` that computes a feature."""
    return {"position": env.position, "event": env.event}[feature]


def num_feature_values(env: LevelEnv, feature: str) -> int:
    """Number of values of a feature."""
    return {"position": env.num_positions, "event": env.num_events}[feature]()


def level_hash(level: PyTree) -> UInt32[Array, "2"]:
    """64-bit content hash of one level of any family, from the bits of its arrays.

    The hash consists of two 32-bit multiplicative mixes (the finaliser of MurmurHash3) with
    different constants. Equal levels have equal hashes. The probability that any two of K different
    levels have equal hashes is about K²/2⁶⁵.
    """
    words = jnp.concatenate([_words(leaf) for leaf in jax.tree.leaves(level)])
    # Each word is mixed with its position, because the sum below does not depend on the order.
    position = jnp.arange(words.size, dtype=jnp.uint32)

    def mix(salt: int) -> Array:
        x = words ^ (position * jnp.uint32(0x9E3779B1) + jnp.uint32(salt))
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return (x ^ (x >> 16)).sum(dtype=jnp.uint32)

    # The salts are binary digits of π and of e; two different salts give two unrelated 32-bit
    # hashes.
    return jnp.stack([mix(0x243F6A88), mix(0xB7E15162)])


def _words(leaf: PyTree) -> UInt32[Array, " W"]:
    x = jnp.ravel(jnp.asarray(leaf))
    if jnp.issubdtype(x.dtype, jnp.floating):
        # A float is represented by its bits, because a conversion to an integer would drop the
        # fraction. The float is cast to float32 first, so that the hash does not change if 64-bit
        # types are enabled.
        return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return x.astype(jnp.uint32)


@functools.lru_cache(maxsize=64)
def example_level(env: LevelEnv) -> PyTree:
    """Level that an environment samples with key 0; cached."""
    # The arrays must be concrete even during tracing, because gymnax's `step` reads
    # `default_params` inside jit.
    with jax.ensure_compile_time_eval():
        return jax.jit(env.sample_level)(jax.random.key(0))


class Editor(LevelEnv, abstract=True):
    """Environment in which a teacher builds levels of another environment.

    The editor's own level is the random noise that the teacher observes. Episodes never terminate
    and give no reward. The sampler that trains the teacher computes the teacher's reward after the
    students have played the level.
    """

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """Number of steps of an episode."""

    @abc.abstractmethod
    def level_of(self, state: PyTree) -> PyTree:
        """Level built so far; valid in every state."""


class Network(Component, abstract=True):
    """Network with a policy and a value: the interface that learners use."""

    groups: tuple[str, ...] = ()
    """Top-level keys of `params`, one per part of the network; the parts share no computation.

    () if the network has no such parts.
    """

    @abc.abstractmethod
    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Initial parameters for an environment's observations and actions."""

    def check(self, env: LevelEnv) -> None:
        """Reject an environment whose observations the network does not support."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]; `()` for feed-forward networks."""
        return ()

    @abc.abstractmethod
    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """Return the new carry, logits and value of one step.

        Where `first` is True, the carry is zeroed before the step.
        """

    @abc.abstractmethod
    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """Return the new carry, logits and values of a sequence; equals T calls of `step`."""

    def values(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "*B A"], Float[Array, "*B V"]]:
        """Capability: new carry, logits and V values, for a network with a field `num_values`.

        The inputs are one step, with `first` [N], or a sequence, with `first` [T, N].
        """
        raise self.missing(Network.values)

    def trunk(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Capability: new carry, and the features that are the input of both policy and value."""
        raise self.missing(Network.trunk)


class Approximator(Component, abstract=True):
    """Function of the observation with K outputs."""

    def check(self, env: LevelEnv) -> None:
        """Reject an environment whose observations are not supported; by default, accept all.

        Raises:
            ValueError: the observations do not fit; the message names an alternative.
        """

    @abc.abstractmethod
    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> PyTree:
        """Initial parameters for an environment's observations, after a call of `check`."""

    @abc.abstractmethod
    def apply(self, env: LevelEnv, params: PyTree, obs: PyTree) -> Float[Array, "B K"]:
        """K outputs of each of B observations."""


class Actor(Component, abstract=True):
    """Acting interface used by rollouts."""

    bptt_steps: int = 0
    """Number of steps between stored recurrent states in a rollout; 0 stores only the first."""
    reads: frozenset[str] = frozenset()
    """Optional fields of `Rollout` that the learner reads; the only such field is `last_obs`."""

    @abc.abstractmethod
    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample an action and return `(carry, action, log_prob, value)`.

        Where `first` is True, the carry is zeroed before the step.
        """

    @abc.abstractmethod
    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of `obs`, for bootstrapping."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, `[N, ...]`; `()` for feed-forward actors."""
        return ()

    def log_policy(self, state: PyTree, obs: PyTree) -> Float[Array, "B A"]:
        """Capability: log-probabilities of all actions, for an actor without memory."""
        raise self.missing(Actor.log_policy)


class Learner(Actor, abstract=True):
    """Algorithm that learns from rollouts."""

    least_slots: int = 1
    """Minimum number of slots for `update`."""

    @abc.abstractmethod
    def init(self, key: Key) -> PyTree:
        """Initial state of a learner: parameters, optimiser state and counters."""

    @abc.abstractmethod
    def update(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Metrics]:
        """Learn from a rollout `[T, N]`; slots with weight 0 have no influence.

        If an update may take more or fewer than one gradient step, the metrics contain the number
        of gradient steps as `gradient_steps`.
        """

    def check(self, num_steps: int, num_slots: int) -> None:
        """Reject unsupported rollout sizes, before anything is compiled."""

    def in_env(self, env: LevelEnv) -> "Learner":
        """Return this learner for another environment.

        A learner without a field `env` is returned unchanged.
        """
        return self

    def spanning(self, num_updates: int) -> "Learner":
        """Return this learner with schedules that span `num_updates` training updates."""
        return self

    def without_schedule(self) -> "Learner":
        """Return this learner with every schedule constant."""
        return self

    def discounting(self) -> dict[str, Any]:
        """Settings such as `discount` and `gae_lambda` that level scores share with the learner."""
        return {}

    def pinned_files(self) -> dict[str, bytes]:
        """Small input files, by name; a run keeps copies of them to detect later changes."""
        return {}

    def features(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Capability: new carry, and the features that are the input of both policy and value."""
        raise self.missing(Learner.features)


class RuleNet(Component, abstract=True):
    """Network of a learned update rule.

    The fields of a subclass are the sizes of the network. A rule file records them.
    """

    is_even: bool = False
    """True if the rule does not change when all of its parameters are negated."""

    @property
    @abc.abstractmethod
    def clock(self) -> bool:
        """True if the elapsed fraction of the agent's lifetime is an input of the rule."""

    @abc.abstractmethod
    def init(self, key: Key) -> PyTree:
        """Initial parameters of the rule."""


class RuleLearner(Learner, abstract=True):
    """Learner whose update rule is a meta-learned network.

    The learner's state holds the rule's parameters in the field `rule`; `update` never changes this
    field.
    """

    frozen_clock: bool | None = None
    """If True, the rule's clock input is always half of the lifetime (control experiment).

    None means that the learner does not support this experiment.
    """

    @property
    @abc.abstractmethod
    def rule_net(self) -> RuleNet:
        """The rule's network, without parameters."""

    @abc.abstractmethod
    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> PyTree:
        """State of a new agent that learns by `rule` for `lifetime` updates.

        If `lifetime` is `()`, the agent learns for the learner's own number of updates.
        """

    @abc.abstractmethod
    def for_env(self, env: LevelEnv) -> "RuleLearner":
        """Return this learner for another environment."""

    def in_env(self, env: LevelEnv) -> "RuleLearner":
        """Return this learner for another environment.

        For the environment that the learner already has, the result is an equal learner.
        """
        return self.for_env(env)


class Bonus(Component, abstract=True):
    """Intrinsic reward, computed from a rollout and a state carried between rollouts."""

    features: tuple[str, ...] = ()
    """Names in `FEATURES` of the state features that the bonus reads from `Rollout.visits`."""
    pairs: bool = False
    """True if the bonus of a step depends on the observation that follows it.

    In that case the rollout contains `last_obs`. The observation that follows the last step of an
    episode is not stored, so this step has bonus 0 and is left out of all statistics.
    """

    @abc.abstractmethod
    def init(self, key: Key, num_slots: int) -> PyTree:
        """Initial state, including the episodic memory of each slot."""

    @abc.abstractmethod
    def apply(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """Return the new state, the bonus of each step and metrics.

        The bonus of a step does not depend on later steps. A slot with weight 0 does not affect
        other slots: it adds nothing to shared counts, statistics or gradients. Where
        `rollout.first` is True, an episode begins, and the slot's episodic memory is cleared. A
        rollout may begin in the middle of an episode.
        """

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings to print at the end of a run, given mean metrics of its last updates."""
        return []


class Score(Component, abstract=True):
    """Priority of a level, computed from the data that the student has collected on the level."""

    reads: frozenset[str] = frozenset()
    """Fields of `Outcome` that the score reads; the student must provide them."""
    may_be_negative: bool = False
    """True if scores can be negative. Only priorities by rank are valid for such scores."""
    accumulate: bool = True
    """False if the score could combine all plays of a stored level but is configured not to."""

    def initial_state(self) -> PyTree:
        """Initial value of the data that the score stores for a level, such as its best return."""
        return ()

    @abc.abstractmethod
    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Return the score and the new memory of every queued level.

        The score of a level without data is `-inf`.
        """


class Sampler(Component, abstract=True):
    """Component that chooses the levels that are played in each slot.

    A sampler receives scores through `observe`; it does not depend on the student or the score.
    """

    reads: frozenset[str] = frozenset()
    """Fields of `Outcome` that the sampler reads; the student must provide them."""
    num_blocks: int = 1
    """Number of equal blocks into which the slots are divided; must divide `num_slots`."""
    train_share: float = 1.0
    """Maximum fraction of the slots that have positive weight in one update."""
    mean_lifetime: float | None = None
    """Mean lifetime of an agent in updates, for samplers of `Task`s; None for other samplers."""
    preparation: str = ""
    """Short description of the work in `init`, if `init` takes minutes; shown as progress."""
    # The type is `Any`, because rlgen.levels imports this module.
    level_set: Any = None
    """The `rlgen.levels.LevelSet` of a sampler over a finite set; None for other samplers."""
    is_set_sampled: bool = False
    """True if `level_set` was sampled by the environment's `sample_level`, not loaded."""
    makes_levels: bool = True
    """False if the sampler proposes only levels of `level_set`."""

    @abc.abstractmethod
    def init(self, key: Key, memory: PyTree) -> PyTree:
        """Initial state of the sampler.

        Args:
            key: consumed.
            memory: the score's memory of one new level, `Score.initial_state()`.
        """

    @abc.abstractmethod
    def example_level(self) -> PyTree:
        """An arbitrary level with the shapes and dtypes of the levels that the sampler proposes."""

    @abc.abstractmethod
    def propose(
        self, keys: Keys, state: PyTree, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Put levels into the free slots; busy slots are returned unchanged, bit for bit.

        A `buffer_index` of -1 marks a new level. For a new level, the curriculum resets the score's
        memory.
        """

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Record the scores of the slots whose tenancy has ended (`outcome.done`)."""
        return state

    def check(self, num_levels: int, score: Score) -> None:
        """Reject an unsupported number of levels per update, or an unsupported score."""

    def spanning(self, num_updates: int) -> "Sampler":
        """Return this sampler with schedules that span a run of `num_updates` updates."""
        return self

    def buffer(self, state: PyTree) -> Any:
        """The `rlgen.buffer.LevelBuffer` in the state; None for a sampler without a buffer."""
        return None

    def level_info(self) -> PyTree:
        """Initial `Slots.level_info` of one level.

        This data is stored with the level, and `observe` can read it.
        """
        return ()

    def metrics(self, state: PyTree) -> Metrics:
        """Metrics of the last update; metrics named `steps_...` are counted as env steps."""
        return {}

    def trained_updates(self, num_levels: int) -> float:
        """Long-run fraction of updates in which the student trains.

        A learner's schedules span this fraction of a run's updates.
        """
        return 1.0

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Array]:
        """History of the levels in the slots, [N, R] each, for the curriculum log.

        `age` is the number of updates since the level was first played. `depth` is the number of
        edits that turned a sampled level into this level.
        """
        return {}

    def replay_probability(self, state: PyTree) -> Float[Array, " K"]:
        """Capability: replay probability of each buffer row, for a sampler with a `buffer`."""
        raise self.missing(Sampler.replay_probability)


class LevelModel(Component, abstract=True):
    """Generative model of an environment's levels, fitted to a finite set of levels.

    Fitting returns `fitted`, a named tuple; `propose` needs all fields of this tuple except
    `encoder`. All methods are pure, so that a model can be fitted inside a compiled program
    (`fit`) or with progress reports between epochs (`begin`, `train`, `finish`). The field `codec`
    is a `rlgen.codec.LevelCodec`.
    """

    codec: Any
    num_epochs: int
    """Number of passes of `fit` through the set."""

    @abc.abstractmethod
    def begin(self, key: Key, levels: PyTree) -> PyTree:
        """Initial training state for the levels [M, ...]."""

    @abc.abstractmethod
    def train(self, state: PyTree, levels: PyTree, num_epochs: int) -> tuple[PyTree, Metrics]:
        """Train for `num_epochs` passes through the levels [M, ...]; metrics are [num_epochs]."""

    @abc.abstractmethod
    def finish(self, state: PyTree, levels: PyTree) -> PyTree:
        """Return `fitted`, which includes the latents of the levels [M, ...]."""

    @abc.abstractmethod
    def propose(self, key: Key, fitted: PyTree, num: int) -> tuple[PyTree, Int[Array, "n 2"]]:
        """Sample `num` levels, each of which lies between two levels of the set.

        The second result has the indices of these two levels, [n, 2].
        """

    @abc.abstractmethod
    def fit(self, key: Key, levels: PyTree) -> PyTree:
        """Fit for `num_epochs` epochs and return `fitted`."""


class Student(Component, abstract=True):
    """Agent, population of agents or update rule that is trained on the slots' levels."""

    env: LevelEnv
    """Environment in which the slots' levels are played."""
    gives: frozenset[str] = frozenset()
    """Fields of `Outcome` that `run` fills."""
    num_steps: int = 1
    """Env steps per slot and update; the option `--steps` counts these steps."""
    population: int = 1
    """P, the number of learners; each plays the levels of all slots."""
    train_share: float = 1.0
    """Fraction of the slots that an update can learn from."""
    max_levels_per_slot: int | None = None
    """Maximum number of levels per slot; None for no limit."""
    full_lifetime: bool = False
    """True if every update trains agents for a whole lifetime.

    In that case `num_steps` is the number of env steps in each update of an agent, and the
    sampler's `mean_lifetime` is the mean number of updates of an agent.
    """
    averaged_over: Mapping[str, str] = MappingProxyType({})
    """Metrics that are means over a number of items that varies between updates.

    The value is the name of the metric that counts the items, such as `num_episodes` for the metric
    `episode_return`. In an update without items the metric is NaN. A mean over several updates is
    weighted by the count.
    """

    @abc.abstractmethod
    def init(self, key: Key, num_slots: int) -> PyTree:
        """Initial state of a student with `num_slots` slots."""

    @abc.abstractmethod
    def run(
        self, key: Key, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Outcome, Metrics]:
        """Play the slots' levels and learn from them; `fresh` marks the slots with new levels."""

    @abc.abstractmethod
    def policy(self, states: PyTree) -> tuple[Learner, PyTree]:
        """Return the learner to evaluate and the learner's states, [S, ...].

        `states` are the student's states of S seeds.
        """

    def check(self, num_slots: int) -> None:
        """Reject an unsupported number of slots, before anything is compiled."""

    def spanning(self, num_updates: int) -> "Student":
        """Return this student with schedules that span `num_updates` training updates."""
        return self

    def per_slot(self, state: PyTree) -> PyTree:
        """Tree prefix of the state, True for the parts whose leading axis runs over the slots."""
        return jax.tree.map(lambda _: False, state)

    def discounting(self) -> dict[str, Any]:
        """The learner's `discounting`; see `Learner.discounting`."""
        return {}

    def files(self, states: PyTree, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Files to write with every checkpoint, by name.

        Args:
            states: the student's states [S, ...] of S seeds.
            origin: description of the run; the entry `seed` is the seed of the first state.
        """
        return {}

    def pinned_files(self) -> dict[str, bytes]:
        """The learner's files; see `Learner.pinned_files`."""
        return {}

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Warnings to print at the end of a run, given mean metrics of its last updates."""
        return []

    def start_warnings(self, longest: int) -> list[str]:
        """Warnings to print at the start of a run.

        Args:
            longest: highest time limit among the training levels, in steps; 0 if unknown.
        """
        return []

    def split_over(self, mesh: jax.sharding.Mesh) -> "Student":
        """Capability: a copy of this student that divides its slots over the devices of `mesh`."""
        raise self.missing(Student.split_over)

    def with_bonus(self, bonus: Bonus) -> "Student":
        """Capability: a copy of this student that adds an exploration bonus to the reward."""
        raise self.missing(Student.with_bonus)

    def learner_with_rule(self, states: PyTree, env: LevelEnv) -> tuple[RuleLearner, PyTree]:
        """Capability: the learner for another environment, and each seed's rule [S, ...]."""
        raise self.missing(Student.learner_with_rule)
