"""The laws of `rlgen.testing`, over everything that the registry names; a new file joins by itself.

The second half breaks each law on purpose: a law that nothing can break protects nothing.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from rlgen import registry, testing
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.l1_value_loss import L1ValueLoss
from rlgen.branching import most_of_seeds
from rlgen.types import REPLAY

ONE_LEVEL = ("minatar", "vault")
"""Families of a single level."""


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


@pytest.mark.parametrize("name", registry.names("envs"))
def test_environment(name):
    if package := registry.missing_extra(name):
        pytest.skip(f"without {package}")
    testing.check_env(tiny_env(name), one_level=name in ONE_LEVEL)


@pytest.mark.parametrize("question", ["memory", "time-limit"])  # each ends in its own way
def test_probe(question):
    testing.check_env(testing.Probe(question), num_steps=6)


def test_an_unknown_probe_is_refused():
    with pytest.raises(ValueError, match="unknown question 'sense of life'; choose from constant"):
        testing.Probe("sense of life")


@pytest.mark.parametrize("name", registry.names("learners"))
def test_learner(name):
    env = tiny_env()
    testing.check_learner(env, registry.load("learners", name).tiny(env), num_steps=32)


@pytest.mark.parametrize("name", registry.names("learners"))
def test_learner_fields(name):
    env = testing.Probe()  # traced more quickly than a maze; it has no image, hence `unused`
    learner = registry.load("learners", name).tiny(env)
    unused = ["conv_features", "vector_features", "rule"]  # a learned rule is a file
    if hasattr(learner, "rule"):
        unused.append("num_updates")  # is in the newborn's state, of which the law sees shapes
    testing.check_fields_matter(env, learner, tuple(unused))


@pytest.mark.parametrize("env", ["maze", "cart-pole"])
@pytest.mark.parametrize("name", registry.names("samplers"))
def test_sampler(name, env):
    testing.check_sampler(registry.load("samplers", name).tiny(tiny_env(env)))


@pytest.mark.parametrize("name", registry.names("scores"))
def test_score(name):
    testing.check_score(registry.load("scores", name).tiny(tiny_env()))


COUNTING = {"counts", "episodic"}  # the others train networks, of which one law asks less


@pytest.mark.parametrize("name", registry.names("bonuses"))
def test_bonus(name):
    env = tiny_env()
    bonus = registry.load("bonuses", name).tiny(env)
    testing.check_bonus(env, bonus, learns=name not in COUNTING)


# Every law can be broken. Each breach is of one line, in a component that is lawful otherwise.


@dataclass(frozen=True)
class SameLevel(testing.Probe):
    def sample_level(self, key):
        return super().sample_level(jax.random.key(0))


@dataclass(frozen=True)
class CountedReward(testing.Probe):
    def step_env(self, key, state, action, params):
        obs, state, _, terminated, info = super().step_env(key, state, action, params)
        return obs, state, state.time, terminated, info


@dataclass(frozen=True)
class LargeObs(testing.Probe):
    def observe(self, key, state, action, params):
        return 2 * super().observe(key, state, action, params)


@dataclass(frozen=True)
class Endless(testing.Probe):
    def is_truncated(self, state, params):
        return state.time > params.max_steps_in_episode


@dataclass(frozen=True, eq=False)
class Unequal(testing.Probe):
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)


@dataclass(frozen=True)
class SameMutant(testing.Probe):
    def mutate_levels(self, key, levels, num_edits):
        return levels


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (SameLevel(), "8 keys gave the same level"),
        (CountedReward(), "the reward is"),
        (LargeObs(), "obs leaves its space"),
        (Endless("time-limit"), "an episode went on after the time limit"),
        (Unequal(), "two equal environments do not compare equal"),
        (SameMutant(), "four edits changed no level"),
    ],
)
def test_environment_laws_bite(env, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_env(env, num_steps=6)


class TableState(NamedTuple):
    params: dict
    num_updates: jax.Array


@dataclass(frozen=True)
class Mean:
    """Learns the mean reward: lawful, and breaks one law if asked to."""

    breach: str = ""
    rate: float = 0.5

    def init(self, key):
        return TableState({"mean": jnp.float32(0), "other": jnp.float32(0)}, jnp.int32(0))

    def initial_carry(self, num_slots):
        return ()

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, 2)
        return (), action, jnp.full(first.shape, -0.7), self.value(state, carry, obs, first)

    def value(self, state, carry, obs, first):
        return jnp.full(first.shape, state.params["mean"])

    def update(self, key, state, rollout, weight):
        weight = weight + (self.breach == "leaks")
        mean = (rollout.reward * weight[None]).sum() / weight.sum() - state.params["mean"]
        rate = 0.5 if self.breach == "fixed" else self.rate
        mean = state.params["mean"] + rate * mean
        other = mean * (self.breach != "still")
        params = {"mean": mean, "other": other}
        return TableState(params, state.num_updates + 1), {"mean": mean}


EASY = testing.Probe("constant")


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("leaks", "what happened in a slot of weight 0 was learned from"),
        ("still", "an update left .*other.* as it was"),
    ],
)
def test_learner_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_learner(EASY, Mean(breach))


def test_a_learner_that_obeys_passes():
    testing.check_learner(EASY, Mean())


def test_the_law_of_fields_bites():
    testing.check_fields_matter(EASY, Mean(), unused=("breach",))
    with pytest.raises(AssertionError, match=r"Mean\.rate changes nothing"):
        testing.check_fields_matter(EASY, Mean("fixed"), unused=("breach",))


@dataclass(frozen=True)
class Breaker:
    """Random levels, with one law broken."""

    breach: str

    def init(self, key):
        return jnp.int32(0)

    def blank(self):
        return Random(EASY).blank()

    def propose(self, keys, state, slots, free):
        everywhere = free | (self.breach == "busy")
        _, new = Random(EASY).propose(keys, (), slots, everywhere)
        if self.breach == "unseen":
            new = new._replace(row=jnp.zeros_like(new.row), origin=new.origin * 0 + REPLAY)
        return state + (0.5 if self.breach == "dtype" else 1), new

    def observe(self, keys, state, slots, score, outcome):
        return state


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("busy", "propose changed a busy slot"),
        ("unseen", "whose level was never observed"),
        ("dtype", "Breaker's state and slots"),
    ],
)
def test_sampler_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_sampler(Breaker(breach))


@dataclass(frozen=True)
class Wrong:
    """A score with one law broken."""

    breach: str

    def memory(self):
        return ()

    def __call__(self, key, slots, outcome):
        rollout = outcome.rollout
        if self.breach == "bonus":
            rollout = rollout._replace(reward=rollout.reward + rollout.bonus)
        score, memory = L1ValueLoss()(key, slots, outcome._replace(rollout=rollout))
        if self.breach == "order":
            score = score.at[0].add(1.0)
        return score, memory


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [("bonus", "a bonus changed a score"), ("order", "scores depend on the order of the slots")],
)
def test_score_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_score(Wrong(breach))


class ActionCounts(NamedTuple):
    every: jax.Array  # [A] of all slots
    episode: jax.Array  # [N, A]
    salt: jax.Array


@dataclass(frozen=True)
class RareActions:
    """1/√N, divided by how often the episode has acted so before; with one law broken."""

    breach: str

    @property
    def pairs(self):
        return self.breach == "pairs"

    def init(self, key, num_slots):
        return ActionCounts(
            jnp.zeros(7), jnp.zeros((num_slots, 7)), jax.random.randint(key, (), 0, 100)
        )

    def apply(self, key, state, rollout, weight):
        counted = jnp.ones_like(weight) if self.breach == "weight" else (weight > 0) * 1.0
        forgets = rollout.first & (self.breach != "forget")
        if self.breach == "trace":
            forgets = forgets.at[0].set(False)
        episode = state.episode * (self.breach != "parts")

        def step(counts, xs):
            (every, episode), (action, forget) = counts, xs
            taken = jax.nn.one_hot(action, 7)
            every = every + (taken * counted[:, None]).sum(0)
            episode = jnp.where(forget[:, None], 0.0, episode)
            bonus = 1 / (1 + (taken * episode).sum(1)) / jnp.sqrt(1 + every[action])
            return (every, episode + taken), bonus

        ends, bonus = jax.lax.scan(step, (state.every, episode), (rollout.action, forgets))
        if self.breach == "later":
            everyone = jax.nn.one_hot(rollout.action, 7).sum((0, 1))
            ends = (state.every + everyone, ends[1])
        state = ActionCounts(*ends, state.salt)
        return state, self.spoilt(bonus, state, rollout), {}

    def spoilt(self, bonus, state, rollout):
        if self.breach == "dtype":
            return bonus.astype(jnp.float16)
        if self.breach == "finite":
            return jnp.log(jnp.where(bonus == bonus.max(), 0.0, bonus))
        if self.breach == "ahead":
            return bonus / bonus.mean()
        if self.breach == "reward":
            return bonus + rollout.reward
        if self.breach == "agents":
            return bonus + most_of_seeds(state.salt)
        return bonus


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("dtype", "not a float32 for each step"),
        ("finite", "the bonus is not finite"),
        ("pairs", "a successor that is not in the rollout"),
        ("ahead", "later steps changed earlier bonuses"),
        ("reward", "rewards or values changed a bonus"),
        ("weight", "a slot of weight 0 changed the others' bonuses: value"),
        ("later", "changed the others' bonuses in a later rollout"),
        ("forget", "what was seen in an episode changed a bonus of the slot's next episode"),
        ("trace", "a slot of weight 0 left a trace beyond its episode"),
        ("parts", "a rollout played in parts has other bonuses"),
        ("agents", "agents under vmap have other bonuses"),
    ],
)
def test_bonus_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_bonus(tiny_env(), RareActions(breach))


def test_a_lawful_bonus_breaks_no_law():
    testing.check_bonus(tiny_env(), RareActions("none"))
