"""The interfaces. A component is a frozen dataclass with these methods; nobody inherits.

Every random method takes its key first and consumes it. Nothing here is jitted: the caller jits
once, around many updates. States are pytrees of arrays, opaque to everyone but their owner.
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float, Int

from rlgen.types import Key, Keys, Metrics, Outcome, PyTree, Rollout, Slots


@runtime_checkable
class LevelEnv(Protocol):
    """A family of levels: a gymnax environment whose `params` are one level.

    Implementations subclass `gymnax.environments.environment.Environment` and are frozen
    dataclasses, so that equal environments share compilations. Abilities are optional methods,
    listed in `rlgen.registry.OPTIONAL_METHODS`; who needs one asks with `rlgen.registry.require`.
    """

    @property
    def num_actions(self) -> int:
        """Number of discrete actions."""
        ...

    def sample_level(self, key: Key) -> PyTree:
        """One level of the family's base distribution."""
        ...

    def reset_env(self, key: Key, params: PyTree) -> tuple[PyTree, PyTree]:
        """First `(obs, state)` of an episode on the level `params`."""
        ...

    def step_env(
        self, key: Key, state: PyTree, action: Int[Array, ""], params: PyTree
    ) -> tuple[PyTree, PyTree, Array, Array, dict]:
        """One step: `(obs, state, reward, terminated, info)`; never resets, never times out."""
        ...

    def is_truncated(self, state: PyTree, params: PyTree) -> Array:
        """Whether `state`, reached by the last step, is at the level's time limit."""
        ...


@runtime_checkable
class Editor(LevelEnv, Protocol):
    """An environment whose episodes build levels of another one; what a teacher acts in.

    Its own level is the noise that the teacher sees. Episodes never terminate and pay nothing: the
    sampler that trains a teacher pays it once the students have played what it built.
    """

    @property
    def horizon(self) -> int:
        """Steps of an episode."""
        ...

    def level_of(self, state: PyTree) -> PyTree:
        """The level that a state has built; a valid one at any time."""
        ...


@runtime_checkable
class Actor(Protocol):
    """Who plays: all that a rollout asks of a learner."""

    def initial_carry(self, num_slots: int) -> PyTree:
        """Recurrent state at the start of an episode, `[N, ...]`; `()` if there is none."""
        ...

    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        """Sample `(carry, action, log_prob, value)`; the carry is zeroed where `first`."""
        ...

    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        """Value of `obs` alone, for bootstrapping."""
        ...


@runtime_checkable
class Learner(Actor, Protocol):
    """Who learns from a rollout.

    A learner may have the method `features(state, carry, obs, first) -> (carry, [T, N, F])`, which
    need not be there: what policy and value are both computed from, of a sequence.
    """

    def init(self, key: Key) -> PyTree:
        """State of an untrained learner: parameters, optimiser, counters."""
        ...

    def update(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Metrics]:
        """Learn from a rollout `[T, N]`; a slot of weight 0 has no influence."""
        ...


@runtime_checkable
class RuleNet(Protocol):
    """The network of a learned rule: a frozen dataclass of sizes, which files of rules state."""

    @property
    def clock(self) -> bool:
        """Whether the rule sees how much of a life is over."""
        ...

    def init(self, key: Key) -> PyTree:
        """Parameters of an untrained rule."""
        ...


@runtime_checkable
class RuleLearner(Learner, Protocol):
    """A learner whose way of learning is itself learned: a network, its rule, says what to do.

    Its state has the rule's parameters in `rule`, and they never change.
    """

    @property
    def rule_net(self) -> RuleNet:
        """The rule without its parameters."""
        ...

    def init_with(
        self, key: Key, rule: PyTree, lifetime: Int[Array, ""] | tuple[()] = ()
    ) -> PyTree:
        """A newborn that will learn by `rule` for `lifetime` updates; `()`: it knows how many."""
        ...

    def for_env(self, env: LevelEnv) -> "RuleLearner":
        """The same in another environment."""
        ...


@runtime_checkable
class Bonus(Protocol):
    """Intrinsic reward as a function of the rollout.

    A bonus may have attributes, which need not be there:

    - `features`, names of abilities of the environment, such as `("position",)`, whose values
      before and after each step it finds in `Rollout.visits`;
    - `pairs`, whether it judges a step by the observation that follows. Then the rollout comes with
      `last_obs`, and a step that ends an episode, whose successor nobody keeps, has bonus 0 and
      counts in no statistic;
    - `warnings(metrics) -> list[str]`, sentences for a user at the end of a run, given the means of
      its last updates, such as of a table that was too small.
    """

    def init(self, key: Key, num_slots: int) -> PyTree:
        """State of the bonus before any data, what each slot's episode has seen included."""
        ...

    def apply(
        self, key: Key, state: PyTree, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PyTree, Float[Array, "T N"], Metrics]:
        """New state, bonus of each step, metrics. Later steps never change earlier bonuses.

        A slot of weight 0 changes nothing for the others: no shared count, no statistic and no
        gradient. Where `rollout.first`, an episode begins and what was seen in the last one is
        forgotten; a rollout may begin in the middle of an episode.
        """
        ...


@runtime_checkable
class Score(Protocol):
    """How a level is judged by what happened on it."""

    def initial_state(self) -> PyTree:
        """What is remembered of one unseen level (say, its best return so far)."""
        ...

    def __call__(
        self, key: Key, slots: Slots, outcome: Outcome
    ) -> tuple[Float[Array, "N R"], PyTree]:
        """Score of every queued level and its new memory; `-inf` where nothing was learned."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """Which levels the slots meet."""

    def init(self, key: Key) -> PyTree:
        """State of a sampler that has seen nothing."""
        ...

    def example_level(self) -> PyTree:
        """Any one level, of the shapes and dtypes that this sampler proposes."""
        ...

    def propose(
        self, keys: Keys, state: PyTree, slots: Slots, free: Bool[Array, " N"]
    ) -> tuple[PyTree, Slots]:
        """Fill the free slots; a busy slot is returned bit for bit as it was.

        Rows of -1 mark levels without a past: the curriculum gives them a fresh memory.
        """
        ...

    def observe(
        self,
        keys: Keys,
        state: PyTree,
        slots: Slots,
        score: Float[Array, "N R"],
        outcome: Outcome,
    ) -> PyTree:
        """Take in the scores of the slots whose tenancy is over, `outcome.done`.

        A sampler may have further methods, which need not be there:

        - `level_info()`, of one level, what `Slots.level_info` is made of: data that `propose`
          keeps with a level for `observe` to read;
        - `metrics(state) -> Metrics`, of the update just done, such as a teacher's loss; one whose
          name begins with `steps_` joins the accounts;
        - `mean_lifetime`, of a sampler of tasks: updates that an agent lives for, on average;
        - `trained_updates(num_levels) -> float`, the share of updates that are learned from, in the
          long run, by which a learner's schedule is as long as the run;
        - `preparation`, of one whose `init` takes minutes, a few words on what it does;
        - `level_set`, of one over a finite set, a `rlgen.levels.LevelSet`;
        - `replay_probability(state) -> [K]`, of one with a `buffer`, how likely each row is played;
        - `lineage(state, slots) -> dict[str, [N, R]]`, what it knows of the levels' past (`age`, in
          updates since a level was first met; `depth`, edits between it and the source).
        """
        ...


@runtime_checkable
class LevelModel(Protocol):
    """A generative model of an environment's levels, learned from a finite set of them.

    What it learned is `fitted`, a named tuple of which proposals need all but the field `encoder`.
    All is pure, so that a model can be fitted inside a compiled program (`fit`) or with progress
    between epochs (`begin`, `train`, `finish`).
    """

    @property
    def num_epochs(self) -> int:
        """Passes through the set that `fit` makes."""
        ...

    def begin(self, key: Key, levels: PyTree) -> PyTree:
        """The model's training state before it has seen levels [M, ...]."""
        ...

    def train(self, state: PyTree, levels: PyTree, num_epochs: int) -> tuple[PyTree, Metrics]:
        """Further passes through levels [M, ...]; metrics [num_epochs]."""
        ...

    def finish(self, state: PyTree, levels: PyTree) -> PyTree:
        """`fitted`: what `propose` needs, the latents of levels [M, ...] included."""
        ...

    def fit(self, key: Key, levels: PyTree) -> PyTree:
        """`fitted` after `num_epochs`."""
        ...

    def propose(self, key: Key, fitted: PyTree, num: int) -> tuple[PyTree, Int[Array, "n 2"]]:
        """New levels [n, ...] and the two levels of the set that each lies between."""
        ...


@runtime_checkable
class Student(Protocol):
    """What is trained: an agent, a population of them, or a learning rule.

    A student may have further methods and attributes, which need not be there:

    - `check(num_slots)`, which refuses sizes that do not fit;
    - `max_queued`, the most levels that a slot may hold, R;
    - `num_steps`, env steps in each slot and update, by which `--steps` is counted;
    - `full_lifetime`, whether an update is the whole life of agents; then `num_steps` counts those
      in one of an agent's updates, and the sampler's `mean_lifetime` says how many there are;
    - `split_over(mesh)`, the same student with its slots divided over devices by itself;
    - `per_slot(state)`, a tree prefix of the state that says which parts have an axis of slots in
      front, to be split over devices with them;
    - `files(states) -> {name: bytes}`, written into the run folder with every checkpoint, of the
      states [S, ...] of S seeds;
    - `learner_with_rule(states, env) -> (learner, rules [S, ...])`, of a student that learns a
      rule: a learner for any environment, a `RuleLearner`, and each seed's rule.
    """

    def init(self, key: Key, num_slots: int) -> PyTree:
        """State of an untrained student that will play `num_slots` slots."""
        ...

    def run(
        self, key: Key, state: PyTree, slots: Slots, fresh: Bool[Array, " N"]
    ) -> tuple[PyTree, Outcome, Metrics]:
        """Play the slots' levels and learn from them; `fresh` slots begin a tenancy."""
        ...

    def policy(self, states: PyTree) -> tuple[Learner, PyTree]:
        """Who is evaluated, and its states [S, ...], out of the student's states of S seeds."""
        ...
