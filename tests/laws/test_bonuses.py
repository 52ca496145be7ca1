"""Laws of bonuses for all registered bonuses, and violations of each law that must fail."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from rlgen import registry, testing
from rlgen.parallel.seeds import max_over_seeds
from rlgen.protocols import Bonus


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


COUNTING = {"counts", "episodic"}  # the others train networks, for which one law is weaker


@pytest.mark.parametrize("name", registry.names("bonuses"))
def test_bonus(name):
    env = tiny_env()
    bonus = registry.load("bonuses", name).tiny(env)
    testing.check_bonus(env, bonus, learns=name not in COUNTING)


class ActionCounts(NamedTuple):
    every: jax.Array  # [A], over all slots
    episode: jax.Array  # [N, A]
    salt: jax.Array


@dataclass(frozen=True)
class RareActions(Bonus):
    """Bonus 1/√N, divided by the action's count in the episode; breaks one law."""

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
            return bonus + max_over_seeds(state.salt)
        return bonus


@pytest.mark.parametrize(
    ("breach", "sentence"),
    [
        ("dtype", "not a float32 for each step"),
        ("finite", "the bonus is not finite"),
        ("pairs", "bonus for a next observation that is not in the rollout"),
        ("ahead", "later steps changed earlier bonuses"),
        ("reward", "rewards or values changed a bonus"),
        ("weight", "a slot of weight 0 changed other slots' bonuses: value"),
        ("later", "changed other slots' bonuses in a later rollout"),
        ("forget", "an episode's observations changed a bonus of the slot's next episode"),
        ("trace", "a slot of weight 0 left a trace beyond its episode"),
        ("parts", "a rollout played in parts gets different bonuses"),
        ("agents", "agents under vmap get different bonuses"),
    ],
)
def test_bonus_laws_bite(breach, sentence):
    with pytest.raises(AssertionError, match=sentence):
        testing.check_bonus(tiny_env(), RareActions(breach))


def test_a_lawful_bonus_breaks_no_law():
    testing.check_bonus(tiny_env(), RareActions("none"))
