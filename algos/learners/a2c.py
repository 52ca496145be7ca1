"""Advantage actor-critic (A2C): one policy-gradient step for each rollout.

Source: Mnih et al., 2016, "Asynchronous Methods for Deep Reinforcement Learning", section 4. Here
all slots are stepped synchronously.
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
    """Parameters and optimiser state of an agent."""

    params: PyTree
    opt_state: PyTree  # {parameter group: state}; without groups, the only key is "all"
    num_updates: Int[Array, ""]  # number of rollouts on which the agent was trained


class Batch(NamedTuple):
    """Advantages, value targets and weights of a rollout, which are constants of the loss."""

    advantage: Float[Array, "T N"]
    target: Float[Array, "T N"]
    weight: Float[Array, "T N"]  # sums to 1


@dataclass(frozen=True)
class A2C(ActorCriticLearner):
    """Advantage actor-critic with one gradient step per rollout.

    Short rollouts work best. An episode may continue in the next rollout. If the policy and the
    critic share no parameters (`rlgen.nn.approximators.Separate`), their parameters form two
    groups, each with its own optimiser state, gradient clipping and step size. The log-probability
    of each action is weighted by the advantage of that step.

    Attributes:
        network: Policy and value network.
        optimizer: Optimiser of each group of parameters.
        learning_rate: Step size.
        critic_learning_rate: Step size of the parameter group `critic`; not used if the network has
            no groups.
        discount: Discount γ per step.
        gae_lambda: λ of the generalised advantage estimate.
        entropy_coef: Weight of the entropy bonus.
        value_coef: Weight of the value loss, a mean squared error.
        normalize_advantage: Whether advantages are normalised to mean 0 and standard deviation 1
            over the rollout.
        bootstrap_truncation: Whether the return is bootstrapped where an episode is truncated at
            the time limit; if false, truncation is treated as termination.

    Raises:
        ValueError: If a field is out of range.
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
        """Check that the network fits the environment; rollouts may have any size.

        Raises:
            ValueError: If the network does not fit; the message names an alternative.
        """
        del num_steps, num_slots
        check_actions(self.env)
        self.network.check(self.env)

    def init(self, key: Key) -> A2CState:
        """Return an untrained agent."""
        params = self.network.init(key, self.env)
        groups = {name: self.optimizer.init(part) for name, part in self._groups(params).items()}
        return A2CState(params, groups, jnp.int32(0))

    def discounting(self) -> dict[str, Any]:
        """Return the settings of advantage estimation that scores share with this learner."""
        return discounting(self)

    def offers(self, capability: Callable) -> bool:
        """Return whether a capability is offered; recurrent networks do not offer `log_policy`."""
        if capability is Learner.log_policy and jax.tree.leaves(self.network.initial_carry(1)):
            return False
        return super().offers(capability)

    def log_policy(self, state: A2CState, obs: PyTree) -> Float[Array, "B A"]:
        """Return the log-probabilities of all actions.

        Raises:
            MissingCapability: If the network is recurrent, because the policy then depends on more
                than the observation.
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
        """Make one gradient step on a rollout [T, N]; the key is not used."""
        del key
        batch = self._batch(rollout, weight)
        grads, metrics = jax.grad(self._loss, has_aux=True)(state.params, rollout, batch)
        params, opt_state = {}, {}
        groups, grads_of = self._groups(state.params), self._groups(grads)
        for name, part in groups.items():
            rate = self.critic_learning_rate if name == "critic" else self.learning_rate
            # Each group's gradient is clipped separately, so that large gradients of the critic do
            # not shrink the gradients of the policy.
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
        # In slots of weight 0, values are replaced by 0, because 0 times NaN would be NaN.
        used = weight[None] > 0
        advantage = jnp.where(used, advantage, 0.0)
        # A + v is the λ-return, the target of the critic. It is computed before advantages are
        # normalised, so it is in units of reward.
        target = advantage + jnp.where(used, rollout.value, 0.0)
        weights = jnp.broadcast_to(weight, advantage.shape)
        weights /= jnp.maximum(weights.sum(), 1e-8)
        # The weights sum to 1, so weighted sums are means. If all weights are 0, the sums are 0.
        if self.normalize_advantage:
            centred = advantage - (weights * advantage).sum()
            advantage = centred / (jnp.sqrt((weights * centred**2).sum()) + 1e-8)
        return Batch(advantage, target, weights)

    def _loss(self, params: PyTree, rollout: Rollout, batch: Batch) -> tuple[Array, Metrics]:
        # The recurrent state before the first step; the unroll recomputes all later states.
        carry = jax.tree.map(lambda x: x[0], rollout.carry)
        _, logits, value = self.network.unroll(self.env, params, carry, rollout.obs, rollout.first)

        def mean(x: Float[Array, "T N"]) -> Float[Array, ""]:
            return (batch.weight * x).sum()

        policy_loss = -mean(distributions.log_prob(logits, rollout.action) * batch.advantage)
        # Unlike PPO's value loss, this has no factor ½.
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
    """Return A2C with a table if the environment's states are enumerable, else with a network.

    The table is trained by SGD with the step sizes of the antagonist in GROOVE: Jackson et al.,
    2023, "Discovering General Reinforcement Learning Algorithms with Adversarial Environment
    Design".
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
    """Return the smallest instance, for the tests in `tests/laws`."""
    return A2C(env, Separate(MLP((8,))), learning_rate=1e-3)
