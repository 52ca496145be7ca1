"""The interfaces, as base classes. A component is a frozen dataclass that subclasses one of them.

A class is abstract or final: what is not declared with `abstract=True` is wrapped, not extended.
Every optional method and attribute is declared here, once, with its default. Some methods are
*capabilities*: by default they raise `MissingCapability`, `component.offers(Base.method)` says
whether a component has its own, and `rlgen.registry.require` refuses an environment without it.

Every random method takes its key first and consumes it. Nothing here is jitted: the caller jits
once, around many updates. States are pytrees of arrays, opaque to everyone but their owner.
"""

import abc
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
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


class MissingCapability(ValueError):  # noqa: N818 (what it says is no fault of a program)
    """A component lacks an optional method that somebody needs."""


class Component(abc.ABC):  # noqa: B024 (what is abstract, its subclasses declare)
    """Base of all components: abstract or final; knows which capabilities it offers."""

    _is_abstract: ClassVar[bool] = True

    def __init_subclass__(cls, abstract: bool = False, **rest: Any):
        super().__init_subclass__(**rest)
        for base in cls.__bases__:
            if issubclass(base, Component) and not base.__dict__.get("_is_abstract", False):
                raise TypeError(
                    f"{base.__name__} is final: {cls.__name__} must hold one as a field in place "
                    f"of extending it (or declare {base.__name__} with abstract=True)"
                )
        cls._is_abstract = abstract

    def offers(self, capability: Callable) -> bool:
        """Whether this component has a capability, given as the base's method: `Base.method`.

        A wrapper asks what it wraps; a component whose fields decide overrides this.
        """
        return getattr(type(self), capability.__name__, capability) is not capability

    def must_offer(self, capability: Callable, message: str = "") -> None:
        """Refuse a call; first line of a capability of which `offers` says no for some fields.

        Raises:
            MissingCapability: this component does not offer it.
        """
        if not self.offers(capability):
            raise self.missing(capability, message)

    def missing(self, capability: Callable, message: str = "") -> MissingCapability:
        """What to raise where a capability is called that this component does not offer."""
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
    """Refuse numbers outside their range, and NaN.

    Args:
        component: whose fields are checked.
        names: of the fields.
        least, above, most, below: the bounds, two at most, the first two of which exclude another.
        owner: what stands before the name in a message, such as `network.`.

    Raises:
        ValueError: with the field, what is allowed and what it is.
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
        fits = (value >= least if least is not None else above is None or value > above) and (
            value <= most if most is not None else below is None or value < below
        )
        if not fits:
            raise ValueError(f"{owner}{name} must {allowed}, got {value}")


class LevelEnv(Component, Environment[Any, Any], abstract=True):
    """A family of levels: a gymnax environment whose `params` are one level.

    Frozen dataclasses, so that equal environments share compilations. A level has the field
    `max_steps_in_episode`, and a state the field `time`, unless `is_truncated` is overridden.
    """

    lowest_return: float = 0.0
    """A lower bound of the return of any episode."""

    @property
    @abc.abstractmethod
    def num_actions(self) -> int:
        """Number of discrete actions."""

    @abc.abstractmethod
    def sample_level(self, key: Key) -> PyTree:
        """One level of the family's base distribution."""

    @abc.abstractmethod
    def reset_env(self, key: Key, params: PyTree) -> tuple[PyTree, PyTree]:
        """First `(obs, state)` of an episode on the level `params`."""

    @abc.abstractmethod
    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""] | int | float, params: PyTree
    ) -> tuple[PyTree, PyTree, Array, Array, dict]:
        """One step: `(obs, state, reward, terminated, info)`; never resets, never times out."""

    @abc.abstractmethod
    def observation_space(self, params: PyTree | None = None) -> spaces.Space:
        """Of what the agent sees; the same on every level."""

    # What gymnax asks for besides. (`is_truncated`, at the level's time limit, is gymnax's own.)

    @property
    def default_params(self) -> PyTree:
        """An example level, always the same."""
        return example_level(self)

    def action_space(self, params: PyTree | None = None) -> spaces.Discrete:
        """The same on every level."""
        return spaces.Discrete(self.num_actions)

    # Methods with a default that serves.

    def unpack(self, obs: PyTree) -> PyTree:
        """Observations [...] as a network sees them: float arrays, one after the other if many."""
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), obs)

    def success(
        self, episode_return: Float[Array, "*B"], terminated: Bool[Array, "*B"]
    ) -> Bool[Array, "*B"]:
        """Whether an episode was solved; a positive return, where nothing else is said.

        Solve rates are reported of environments with a notion of their own.
        """
        return episode_return > 0

    def level_hash(self, level: PyTree) -> UInt32[Array, "2"]:
        """Equal for equal levels; of all arrays of the level, by default."""
        return level_hash(level)

    def for_evaluation(self) -> "LevelEnv":
        """The environment that scores what is trained without reward; the same by default."""
        return self

    def presets(self) -> dict[str, dict[str, Any]]:
        """Values of fields by the preset's name: `{preset: {field: value}}`."""
        return {}

    def suites(self) -> dict[str, Callable]:
        """Held-out levels: name to a function that makes a `rlgen.levels.Suite`."""
        return {}

    def ladder(self) -> dict[str, Any]:
        """Levels beyond training: name to `rlgen.levels.DistributionShift`."""
        return {}

    # Capabilities.

    def sample_simple_level(self, key: Key) -> PyTree:
        """A level of the simplest kind."""
        raise self.missing(LevelEnv.sample_simple_level)

    def mutate_levels(self, key: Key, levels: PyTree, num_edits: int) -> PyTree:
        """Levels [N, ...], each with `num_edits` random edits."""
        raise self.missing(LevelEnv.mutate_levels)

    def editor(self) -> "Editor":
        """An environment whose episodes build levels of this one."""
        raise self.missing(LevelEnv.editor)

    def solve(self, level: PyTree) -> Solution:
        """Exact solvability, fewest steps and optimal return of a level."""
        raise self.missing(LevelEnv.solve)

    def labelled_states(
        self, key: Key, level: PyTree, num: int
    ) -> tuple[PyTree, Bool[Array, "S A"]]:
        """States [num] drawn evenly, each with the actions that begin a shortest way to success."""
        raise self.missing(LevelEnv.labelled_states)

    def num_states(self) -> int:
        """How many values its observation, one integer, can have."""
        raise self.missing(LevelEnv.num_states)

    def expected_return(self, level: PyTree, log_policy: Float[Array, "S A"]) -> Float[Array, ""]:
        """Exact expected undiscounted return of a policy given in every state."""
        raise self.missing(LevelEnv.expected_return)

    def lifetime(self) -> int:
        """Updates that an agent is trained for in meta-learning."""
        raise self.missing(LevelEnv.lifetime)

    def position(self, state: PyTree, level: PyTree) -> Int[Array, ""]:
        """Where the agent is: an integer below `num_positions()`."""
        raise self.missing(LevelEnv.position)

    def num_positions(self) -> int:
        """How many values `position` can have."""
        raise self.missing(LevelEnv.num_positions)

    def event(self, state: PyTree, level: PyTree) -> Int[Array, ""]:
        """What happened with the last step: an integer below `num_events()`; 0 is nothing."""
        raise self.missing(LevelEnv.event)

    def num_events(self) -> int:
        """How many values `event` can have."""
        raise self.missing(LevelEnv.num_events)

    def feature_values(self, level: PyTree, feature: str, discount: float) -> Float[Array, " Z"]:
        """The least optimal value of the states that are equal in a feature (`position`, `event`).

        The value of a state is `discount` to the power of the fewest steps to success; 0 where
        there is no way, and for values of the feature that no state has.
        """
        raise self.missing(LevelEnv.feature_values)

    def level_features(self, level: PyTree) -> dict[str, Array]:
        """Scalars that describe a level, by name."""
        raise self.missing(LevelEnv.level_features)

    def render(self, level: PyTree, state: PyTree) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of a moment of an episode."""
        raise self.missing(LevelEnv.render)

    def level_image(self, level: PyTree) -> UInt8[np.ndarray, "H W 3"]:
        """Picture of a level."""
        raise self.missing(LevelEnv.level_image)

    def codec(self) -> Any:
        """The parts that make up its levels: a `rlgen.codec.LevelCodec`."""
        raise self.missing(LevelEnv.codec)

    def load_levels(self, path: Path | str) -> Any:
        """The `rlgen.levels.LevelSet` of a `.npz` or text file."""
        raise self.missing(LevelEnv.load_levels)


OPTIONAL_METHODS: dict[str, Callable] = {
    name: method
    for name, method in vars(LevelEnv).items()
    if inspect.isfunction(method)
    and not name.startswith("_")
    and not method.__dict__.get("__isabstractmethod__", False)
    and name not in vars(Environment)
}
"""The optional methods of an environment, by name."""

FEATURES: dict[str, tuple[Callable, Callable]] = {
    "position": (LevelEnv.position, LevelEnv.num_positions),
    "event": (LevelEnv.event, LevelEnv.num_events),
}
"""Integers that states can be told apart by: the capability, and that of the number of values."""


def has_feature(env: LevelEnv, feature: str) -> bool:
    """Whether an environment tells a feature, a name in `FEATURES`, of its states."""
    return all(map(env.offers, FEATURES[feature]))


def feature_of(env: LevelEnv, feature: str) -> Callable[[PyTree, PyTree], Int[Array, ""]]:
    """The function of state and level that gives a feature."""
    return {"position": env.position, "event": env.event}[feature]


def num_feature_values(env: LevelEnv, feature: str) -> int:
    """How many values a feature can have."""
    return {"position": env.num_positions, "event": env.num_events}[feature]()


def level_hash(level: PyTree) -> UInt32[Array, "2"]:
    """64 bits of content hash of one level of any family, from its arrays' bits.

    Two multiplicative mixes with unlike constants (the finaliser of MurmurHash3), so that equal
    levels hash alike and K different ones collide with probability about K²/2⁶⁵.
    """
    words = jnp.concatenate([_words(leaf) for leaf in jax.tree.leaves(level)])
    position = jnp.arange(words.size, dtype=jnp.uint32)

    def mix(salt: int) -> Array:
        x = words ^ (position * jnp.uint32(0x9E3779B1) + jnp.uint32(salt))
        x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
        x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
        return (x ^ (x >> 16)).sum(dtype=jnp.uint32)

    return jnp.stack([mix(0x243F6A88), mix(0xB7E15162)])


def _words(leaf: PyTree) -> UInt32[Array, " W"]:
    x = jnp.ravel(jnp.asarray(leaf))
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return x.astype(jnp.uint32)


@functools.lru_cache(maxsize=64)
def example_level(env: LevelEnv) -> PyTree:
    """The level that an environment draws with key 0."""
    # Concrete even when asked for under a trace, as gymnax's own `step` does.
    with jax.ensure_compile_time_eval():
        return jax.jit(env.sample_level)(jax.random.key(0))


class Editor(LevelEnv, abstract=True):
    """An environment whose episodes build levels of another one; what a teacher acts in.

    Its own level is the noise that the teacher sees. Episodes never terminate and pay nothing: the
    sampler that trains a teacher pays it once the students have played what it built.
    """

    @property
    @abc.abstractmethod
    def horizon(self) -> int:
        """Steps of an episode."""

    @abc.abstractmethod
    def level_of(self, state: PyTree) -> PyTree:
        """The level that a state has built; a valid one at any time."""


class Network(Component, abstract=True):
    """What a learner asks of a network with a policy and a value: a frozen dataclass with these."""

    groups: tuple[str, ...] = ()
    """Names of the parts of the parameters that share nothing; () if they are one."""

    @abc.abstractmethod
    def init(self, key: Key, env: LevelEnv) -> PyTree:
        """Parameters for an environment's observations and actions."""

    def check(self, env: LevelEnv) -> None:
        """Refuse an environment whose observations it cannot take."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, [N, ...]; `()` if there is none."""
        return ()

    @abc.abstractmethod
    def step(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "N A"], Float[Array, " N"]]:
        """New carry, logits and value of one step; the carry is zeroed where `first`."""

    @abc.abstractmethod
    def unroll(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N A"], Float[Array, "T N"]]:
        """New carry, logits and values of a sequence; equal to T steps."""

    def values(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "*B"]
    ) -> tuple[PyTree, Float[Array, "*B A"], Float[Array, "*B V"]]:
        """Capability of a field `num_values`: new carry, logits and several values.

        Of a step [N] or a sequence [T, N].
        """
        raise self.missing(Network.values)

    def trunk(
        self, env: LevelEnv, params: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Capability: new carry and, of a sequence, what policy and value are computed from."""
        raise self.missing(Network.trunk)


class Approximator(Component, abstract=True):
    """A function of the observation with K outputs; a frozen dataclass with these."""

    def check(self, env: LevelEnv) -> None:
        """Refuse an environment whose observations it cannot take; takes any by default.

        Raises:
            ValueError: with what to choose instead.
        """

    @abc.abstractmethod
    def init(self, key: Key, env: LevelEnv, num_outputs: int) -> PyTree:
        """Parameters for an environment's observations; the environment is checked."""

    @abc.abstractmethod
    def apply(self, env: LevelEnv, params: PyTree, obs: PyTree) -> Float[Array, "B K"]:
        """K outputs of each of B observations."""


class Actor(Component, abstract=True):
    """Who plays: all that a rollout asks of a learner."""

    bptt_steps: int = 0
    """Steps between two recurrent states that a rollout keeps; 0 keeps the first alone."""
    reads: frozenset[str] = frozenset()
    """Optional fields of `Rollout` that it learns from: `last_obs`."""

    @abc.abstractmethod
    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample `(carry, action, log_prob, value)`; the carry is zeroed where `first`."""

    @abc.abstractmethod
    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of `obs` alone, for bootstrapping."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, `[N, ...]`; `()` if there is none."""
        return ()

    def log_policy(self, state: PyTree, obs: PyTree) -> Float[Array, "B A"]:
        """Capability of an actor without memory: log-probabilities of all actions."""
        raise self.missing(Actor.log_policy)


class Learner(Actor, abstract=True):
    """Who learns from a rollout."""

    least_slots: int = 1
    """The fewest slots that `update` can take."""

    @abc.abstractmethod
    def init(self, key: Key) -> PyTree:
        """State of an untrained learner: parameters, optimiser, counters."""

    @abc.abstractmethod
    def update(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Metrics]:
        """Learn from a rollout `[T, N]`; a slot of weight 0 has no influence.

        The metrics have `gradient_steps`, the number taken, unless every update takes one.
        """

    def check(self, num_steps: int, num_slots: int) -> None:
        """Refuse sizes of rollouts that do not fit, before anything is compiled."""

    def in_env(self, env: LevelEnv) -> "Learner":
        """The same learner in another environment, for one that keeps its environment."""
        return self

    def spanning(self, num_updates: int) -> "Learner":
        """The same, its schedules as long as a run that learns from `num_updates` updates."""
        return self

    def without_schedule(self) -> "Learner":
        """The same, no quantity of which depends on how much of the run is over."""
        return self

    def discounting(self) -> dict[str, Any]:
        """Fields of its advantages that a score shares: `discount`, `gae_lambda` and the like."""
        return {}

    def pinned_files(self) -> dict[str, bytes]:
        """Small files, by name, that a run keeps, to notice if what it depends on has changed."""
        return {}

    def features(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, "T N"]
    ) -> tuple[PyTree, Float[Array, "T N F"]]:
        """Capability: the new carry, and what policy and value are both computed from."""
        raise self.missing(Learner.features)


class RuleNet(Component, abstract=True):
    """The network of a learned rule: a frozen dataclass of sizes, which files of rules state."""

    is_even: bool = False
    """Whether parameters and their negatives are the same rule."""

    @property
    @abc.abstractmethod
    def clock(self) -> bool:
        """Whether the rule sees how much of a life is over."""

    @abc.abstractmethod
    def init(self, key: Key) -> PyTree:
        """Parameters of an untrained rule."""


class RuleLearner(Learner, abstract=True):
    """A learner whose way of learning is itself learned: a network, its rule, says what to do.

    Its state has the rule's parameters in `rule`, and they never change.
    """

    frozen_clock: bool | None = None
    """Control experiment: whether the rule is told that half of a life is over; None: no such."""

    @property
    @abc.abstractmethod
    def rule_net(self) -> RuleNet:
        """The rule without its parameters."""

    @abc.abstractmethod
    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> PyTree:
        """A newborn that will learn by `rule` for `lifetime` updates; `()`: it knows how many."""

    @abc.abstractmethod
    def for_env(self, env: LevelEnv) -> "RuleLearner":
        """The same in another environment."""

    def in_env(self, env: LevelEnv) -> "RuleLearner":
        """The same in another environment; equal to itself in its own."""
        return self.for_env(env)


class Bonus(Component, abstract=True):
    """Intrinsic reward as a function of the rollout."""

    features: tuple[str, ...] = ()
    """Names in `FEATURES` whose values around each step it finds in `Rollout.visits`."""
    pairs: bool = False
    """Whether it judges a step by the observation that follows.

    Then the rollout comes with `last_obs`, and a step that ends an episode, whose successor nobody
    keeps, has bonus 0 and counts in no statistic.
    """

    @abc.abstractmethod
    def init(self, key: Key, num_slots: int) -> PyTree:
        """State of the bonus before any data, what each slot's episode has seen included."""

    @abc.abstractmethod
    def apply(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """New state, bonus of each step, metrics. Later steps never change earlier bonuses.

        A slot of weight 0 changes nothing for the others: no shared count, no statistic and no
        gradient. Where `rollout.first`, an episode begins and what was seen in the last one is
        forgotten; a rollout may begin in the middle of an episode.
        """

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Sentences for a user at the end of a run, given the means of its last updates."""
        return []


class Score(Component, abstract=True):
    """How a level is judged by what happened on it."""

    reads: frozenset[str] = frozenset()
    """Fields of `Outcome` that the student must give."""
    may_be_negative: bool = False
    """Whether priorities can only go by rank."""
    accumulate: bool = True
    """False where a score can count all plays of a level that is kept and is set not to."""

    def initial_state(self) -> PyTree:
        """What is remembered of one unseen level (say, its best return so far)."""
        return ()

    @abc.abstractmethod
    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score of every queued level and its new memory; `-inf` where nothing was learned."""


class Sampler(Component, abstract=True):
    """Which levels the slots meet. It is told scores and never holds what makes them."""

    reads: frozenset[str] = frozenset()
    """Fields of `Outcome` that the student must give."""
    num_blocks: int = 1
    """Equal blocks that the slots divide into."""
    train_share: float = 1.0
    """Share of the slots that can have weight in one update."""
    mean_lifetime: float | None = None
    """Of a sampler of tasks: updates that an agent lives for, on average."""
    preparation: str = ""
    """A few words on what `init` does, where it takes minutes."""
    level_set: Any = None
    """The `rlgen.levels.LevelSet` of a sampler over a finite set."""
    is_set_sampled: bool = False
    """Whether that set was drawn by the environment's `sample_level`, not taken from elsewhere."""

    @abc.abstractmethod
    def init(self, key: Key, memory: PyTree) -> PyTree:
        """State of a sampler that has seen nothing.

        Args:
            key: consumed.
            memory: what the score remembers of one unseen level, `Score.initial_state()`.
        """

    @abc.abstractmethod
    def example_level(self) -> PyTree:
        """Any one level, of the shapes and dtypes that this sampler proposes."""

    @abc.abstractmethod
    def propose(
        self, keys: Keys, state: PyTree, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Fill the free slots; a busy slot is returned bit for bit as it was.

        Rows of -1 mark levels without a past: the curriculum gives them a fresh memory.
        """

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Take in the scores of the slots whose tenancy is over, `outcome.done`."""
        return state

    def check(self, num_levels: int, score: Score) -> None:
        """Refuse numbers of levels an update that do not fit, and scores that cannot serve."""

    def spanning(self, num_updates: int) -> "Sampler":
        """The same, its schedules as long as a run of `num_updates` updates."""
        return self

    def buffer(self, state: PyTree) -> Any:
        """The `rlgen.buffer.LevelBuffer` that it keeps levels in; None if it keeps none."""
        return None

    def level_info(self) -> PyTree:
        """Of one level, what `Slots.level_info` is made of: kept with it for `observe` to read."""
        return ()

    def metrics(self, state: PyTree) -> Metrics:
        """Of the update just done; a name that begins with `steps_` joins the accounts."""
        return {}

    def trained_updates(self, num_levels: int) -> float:
        """Share of the updates that are learned from, in the long run.

        A learner's schedule is as long as the updates of a run times this.
        """
        return 1.0

    def lineage(self, state: PyTree, slots: Slots) -> dict[str, Array]:
        """What it knows of the levels' past, [N, R] each.

        `age`, in updates since a level was first met; `depth`, edits between it and the source.
        """
        return {}

    def replay_probability(self, state: PyTree) -> Float[Array, " K"]:
        """Capability of a sampler with a `buffer`: how likely each of its rows is played."""
        raise self.missing(Sampler.replay_probability)


class LevelModel(Component, abstract=True):
    """A generative model of an environment's levels, learned from a finite set of them.

    What it learned is `fitted`, a named tuple of which proposals need all but the field `encoder`.
    All is pure, so that a model can be fitted inside a compiled program (`fit`) or with progress
    between epochs (`begin`, `train`, `finish`). The field `codec` is a `rlgen.codec.LevelCodec`.
    """

    codec: Any
    num_epochs: int
    """Passes through the set that `fit` makes."""

    @abc.abstractmethod
    def begin(self, key: Key, levels: PyTree) -> PyTree:
        """The model's training state before it has seen levels [M, ...]."""

    @abc.abstractmethod
    def train(self, state: PyTree, levels: PyTree, num_epochs: int) -> tuple[PyTree, Metrics]:
        """Further passes through levels [M, ...]; metrics [num_epochs]."""

    @abc.abstractmethod
    def finish(self, state: PyTree, levels: PyTree) -> PyTree:
        """`fitted`: what `propose` needs, the latents of levels [M, ...] included."""

    @abc.abstractmethod
    def propose(self, key: Key, fitted: PyTree, num: int) -> tuple[PyTree, Int[Array, "n 2"]]:
        """New levels [n, ...] and the two levels of the set that each lies between."""

    @abc.abstractmethod
    def fit(self, key: Key, levels: PyTree) -> PyTree:
        """`fitted` after `num_epochs`."""


class Student(Component, abstract=True):
    """What is trained: an agent, a population of them, or a learning rule."""

    gives: frozenset[str] = frozenset()
    """Fields of `Outcome` that are not `()`."""
    num_steps: int = 1
    """Env steps in each slot and update, by which `--steps` is counted."""
    population: int = 1
    """P, learners that each play all slots' levels."""
    train_share: float = 1.0
    """Share of the slots that an update can learn from."""
    max_levels_per_slot: int | None = None
    """The most levels that a slot may hold; None for no limit."""
    full_lifetime: bool = False
    """Whether an update is the whole life of agents.

    Then `num_steps` counts those in one of an agent's updates, and the sampler's `mean_lifetime`
    says how many there are.
    """

    @abc.abstractmethod
    def init(self, key: Key, num_slots: int) -> PyTree:
        """State of an untrained student that will play `num_slots` slots."""

    @abc.abstractmethod
    def run(
        self, key: Key, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Outcome, Metrics]:
        """Play the slots' levels and learn from them; `fresh` slots begin a tenancy."""

    @abc.abstractmethod
    def policy(self, states: PyTree) -> tuple[Learner, PyTree]:
        """Who is evaluated, and its states [S, ...], out of the student's states of S seeds."""

    def check(self, num_slots: int) -> None:
        """Refuse sizes that do not fit, before anything is compiled."""

    def spanning(self, num_updates: int) -> "Student":
        """The same, its schedules as long as a run that learns from `num_updates` updates."""
        return self

    def per_slot(self, state: PyTree) -> PyTree:
        """Which parts of the state have an axis of slots in front, as a tree prefix of it."""
        return jax.tree.map(lambda _: False, state)

    def discounting(self) -> dict[str, Any]:
        """Fields of its learner's advantages that a score shares."""
        return {}

    def files(self, states: PyTree, origin: Mapping[str, Any]) -> dict[str, bytes]:
        """Files by name, of the states [S, ...] of S seeds, written with every checkpoint.

        Args:
            states: of S seeds.
            origin: the run that they are of; `seed` is the first seed's.
        """
        return {}

    def pinned_files(self) -> dict[str, bytes]:
        """Those of its learner; see `Learner.pinned_files`."""
        return {}

    def warnings(self, metrics: Mapping[str, Any]) -> list[str]:
        """Sentences for a user at the end of a run, given the means of its last updates."""
        return []

    def split_over(self, mesh: jax.sharding.Mesh) -> "Student":
        """Capability: the same student, whose slots are divided over devices by itself."""
        raise self.missing(Student.split_over)

    def with_bonus(self, bonus: Bonus) -> "Student":
        """Capability: the same student, paid for exploration."""
        raise self.missing(Student.with_bonus)

    def learner_with_rule(self, states: PyTree, env: LevelEnv) -> tuple[RuleLearner, PyTree]:
        """Capability: a learner for any environment, and each seed's rule [S, ...]."""
        raise self.missing(Student.learner_with_rule)
