"""Advantage actor-critic: one step up the policy gradient for each rollout.

Source: Mnih et al., 2016, "Asynchronous Methods for Deep Reinforcement Learning", section 4, its
workers in step with one another.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen import registry
from rlgen.nn import distributions
from rlgen.nn.actor_critic import ActorCritic, ActorCriticLearner
from rlgen.nn.approximators import MLP, Separate, Table, check_actions
from rlgen.nn.optimizers import Optimizer, global_norm
from rlgen.protocols import Learner, LevelEnv, Network, check_numbers
from rlgen.returns import discounting, gae
from rlgen.types import Key, Metrics, PyTree, Rollout


class A2CState(NamedTuple):
    """An agent."""

    params: PyTree
    opt_state: PyTree  # of each group, where the network has groups
    num_updates: Int[Array, ""]  # rollouts learned from


class Batch(NamedTuple):
    """What a rollout teaches, [T, N]; constants of the loss."""

    advantage: Float[Array, "T N"]
    target: Float[Array, "T N"]
    weight: Float[Array, "T N"]  # sums to 1


@dataclass(frozen=True)
class A2C(ActorCriticLearner):
    """One gradient step a rollout; rollouts are best short, episodes running on between them.

    Each step's log-probability is weighted by its own advantage. Where the network's parameters
    fall into groups that share nothing (`rlgen.nn.approximators.Separate`), each has its own
    optimiser state, clipping and step size.

    Attributes:
        learning_rate: step size.
        critic_learning_rate: step size of the network's group `critic`, if it has groups.
        discount: γ, per step.
        gae_lambda: λ of the advantage estimate.
        entropy_coef: weight of the entropy bonus.
        value_coef: weight of the value loss, a mean squared error.
        normalize_advantage: to mean 0 and deviation 1 over the rollout.
        bootstrap_truncation: whether a time limit bootstraps (`False`: it counts as termination).

    Raises:
        ValueError: a field outside its range.
    """

    env: LevelEnv
    network: Network = field(default_factory=lambda: ActorCritic(core="none"))
    optimizer: Optimizer = field(default_factory=lambda: Optimizer("adam"))
    learning_rate: float = 7e-4
    critic_learning_rate: float = 7e-4
    discount: float = 0.99
    gae_lambda: float = 0.95
    entropy_coef: float = 0.01
    value_coef: float = 0.5
    normalize_advantage: bool = True
    bootstrap_truncation: bool = True

    def __post_init__(self):
        check_numbers(self, "learning_rate", "critic_learning_rate", above=0, owner="A2C's ")
        check_numbers(self, "entropy_coef", "value_coef", least=0, owner="A2C's ")
        check_numbers(self, "discount", "gae_lambda", least=0, most=1, owner="A2C's ")

    def check(self, num_steps: int, num_slots: int) -> None:
        """Refuse an environment that the network cannot take; any rollout will do.

        Raises:
            ValueError: with what to choose instead.
        """
        del num_steps, num_slots
        check_actions(self.env)
        self.network.check(self.env)

    def init(self, key: Key) -> A2CState:
        """An untrained agent."""
        params = self.network.init(key, self.env)
        groups = {name: self.optimizer.init(part) for name, part in self._groups(params).items()}
        return A2CState(params, groups, jnp.int32(0))

    def discounting(self) -> dict[str, Any]:
        """What the advantages of a score share with this learner's."""
        return discounting(self)

    def offers(self, capability: Callable) -> bool:
        """A log-policy, if the network has no memory; else what actor-critic learners offer."""
        if capability is Learner.log_policy and jax.tree.leaves(self.network.initial_carry(1)):
            return False
        return super().offers(capability)

    def log_policy(self, state: A2CState, obs: PyTree) -> Float[Array, "B A"]:
        """Log-probabilities of all actions, of a network without memory.

        Raises:
            MissingCapability: the network remembers, so its policy is no function of the
                observation.
        """
        self.must_offer(
            Learner.log_policy, "log_policy needs a network without memory, such as core='none'"
        )
        size = jax.tree.leaves(obs)[0].shape[0]
        carry = self.network.initial_carry(size)
        first = jnp.zeros(size, bool)
        return jax.nn.log_softmax(self.network.step(self.env, state.params, carry, obs, first)[1])

    def update(
        self, key: Key, state: A2CState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[A2CState, Metrics]:
        """One step on a rollout [T, N]; the key is not used."""
        del key
        batch = self._batch(rollout, weight)
        grads, metrics = jax.grad(self._loss, has_aux=True)(state.params, rollout, batch)
        params, opt_state = {}, {}
        groups, grads_of = self._groups(state.params), self._groups(grads)
        for name, part in groups.items():
            rate = self.critic_learning_rate if name == "critic" else self.learning_rate
            params[name], opt_state[name] = self.optimizer.step(
                part, state.opt_state[name], grads_of[name], rate
            )
        params = params if self._has_groups else params["all"]
        metrics["grad_norm"], metrics["param_norm"] = global_norm(grads), global_norm(params)
        return A2CState(params, opt_state, state.num_updates + 1), metrics

    @property
    def _has_groups(self) -> bool:
        return bool(self.network.groups)

    def _groups(self, params: PyTree) -> dict[str, PyTree]:
        return dict(params) if self._has_groups else {"all": params}

    def _batch(self, rollout: Rollout, weight: Float[Array, " N"]) -> Batch:
        advantage = gae(rollout, self.discount, self.gae_lambda, self.bootstrap_truncation)
        # Weights multiply, and 0 times NaN is NaN: what must not count is taken out altogether.
        used = weight[None] > 0
        advantage = jnp.where(used, advantage, 0.0)
        target = advantage + jnp.where(used, rollout.value, 0.0)
        weights = jnp.broadcast_to(weight, advantage.shape)
        weights /= jnp.maximum(weights.sum(), 1e-8)
        if self.normalize_advantage:
            centred = advantage - (weights * advantage).sum()
            advantage = centred / (jnp.sqrt((weights * centred**2).sum()) + 1e-8)
        return Batch(advantage, target, weights)

    def _loss(self, params: PyTree, rollout: Rollout, batch: Batch) -> tuple[Array, Metrics]:
        carry = jax.tree.map(lambda x: x[0], rollout.carry)
        _, logits, value = self.network.unroll(self.env, params, carry, rollout.obs, rollout.first)

        def mean(x: Float[Array, "T N"]) -> Float[Array, ""]:
            return (batch.weight * x).sum()

        policy_loss = -mean(distributions.log_prob(logits, rollout.action) * batch.advantage)
        value_loss = mean((value - batch.target) ** 2)
        entropy = mean(distributions.entropy(logits))
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        return loss, {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
        }


def build(env: LevelEnv, **fields: Any) -> A2C:
    """Tables and plain gradient steps where the environment enumerates its states, else a network.

    Source: the tabular agent's step sizes are the antagonist's in Jackson et al., 2023,
    "Discovering General Reinforcement Learning Algorithms with Adversarial Environment Design".
    """
    if not registry.has(env, LevelEnv.num_states):
        return A2C(env, **fields)
    tabular = {
        "network": Separate(Table()),
        "optimizer": Optimizer("sgd"),
        "learning_rate": 40.0,
        "critic_learning_rate": 4.0,
        "value_coef": 1.0,
    }
    return A2C(env, **tabular | fields)


def tiny(env: LevelEnv) -> A2C:
    """Return the smallest instance, for the law tests."""
    return A2C(env, Separate(MLP((8,))), learning_rate=1e-3)
