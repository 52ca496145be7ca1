"""Proximal policy optimisation (PPO), with a feed-forward or recurrent network.

Source: Schulman et al., 2017, "Proximal Policy Optimization Algorithms".
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rlgen.nn import distributions
from rlgen.nn.actor_critic import ActorCritic, ActorCriticLearner
from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import LevelEnv, Network, check_numbers
from rlgen.returns import discounting, gae
from rlgen.types import Key, Metrics, PyTree, Rollout


class PPOState(NamedTuple):
    """Parameters and optimiser state of an agent."""

    params: PyTree
    opt_state: PyTree
    num_updates: Int[Array, ""]  # number of rollouts on which the agent was trained


class Batch(NamedTuple):
    """Training data: a rollout [T, N, ...], or M sequences [L, M, ...] after `PPO._cut`."""

    rollout: Rollout
    advantage: Float[Array, "T N"]
    target: Float[Array, "T N"]
    weight: Float[Array, "T N"]
    # Value of the bonus and target of this value; `()` if the bonus has no separate value function.
    bonus_value: Float[Array, "T N"] | tuple[()] = ()
    bonus_target: Float[Array, "T N"] | tuple[()] = ()


@runtime_checkable
class Surrogate(Protocol):
    """Surrogate objective of each step, valid near the policy that collected the data."""

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """Return the maximised objective; its gradient at ratio 1 is that of ratio × advantage."""
        ...


@dataclass(frozen=True)
class IntrinsicStream:
    """Settings of the bonus's separate value function and advantage estimate.

    Attributes:
        discount: Discount γ of the bonus per step.
        gae_lambda: λ of the bonus's generalised advantage estimate.
        episodic: Whether the return of the bonus ends with the episode. If false, the return
            includes the bonuses of the following episodes, so that ending an episode forgoes no
            future bonus.
        coef: Weight of the bonus's advantage.
        extrinsic_coef: Weight of the extrinsic reward's advantage.

    Raises:
        ValueError: If `discount` or `gae_lambda` is outside [0, 1].

    Source: Burda et al., 2019, "Exploration by Random Network Distillation", 2.3, with `coef` 1 and
    `extrinsic_coef` 2.
    """

    discount: float = 0.99
    gae_lambda: float = 0.95
    episodic: bool = False
    coef: float = 1.0
    extrinsic_coef: float = 1.0

    def __post_init__(self):
        check_numbers(self, "discount", "gae_lambda", least=0, most=1, owner="intrinsic.")

    def advantage(
        self, rollout: Rollout, values: Float[Array, "following N"]
    ) -> Float[Array, "T N"]:
        """Return generalised advantage estimates of the bonus alone.

        Args:
            rollout: Rollout [T, N].
            values: Values [T + 1, N] of the bonus at the observation before each step and at the
                observation after the last step. After a step that ends an episode, the next value
                is that of the next episode's first observation.
        """
        # If `episodic` is false, a step that ends an episode bootstraps from the first observation
        # of the next episode.
        follows = jnp.where(rollout.done & self.episodic, 0.0, self.discount)
        # δ_t = b_t + γ v(s_{t+1}) - v(s_t). The factor `follows` also ends the sum over later δ in
        # `step`.
        delta = rollout.bonus + follows * values[1:] - values[:-1]

        def step(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            delta_t, follows_t = xs
            advantage = delta_t + follows_t * self.gae_lambda * advantage
            return advantage, advantage

        start = jnp.zeros_like(delta[0])
        return jax.lax.scan(step, start, (delta, follows), reverse=True, unroll=8)[1]


@dataclass(frozen=True)
class PPO(ActorCriticLearner):
    """PPO, whose default hyperparameters are those of JaxUED for mazes.

    Attributes:
        network: Policy and value network.
        learning_rate: Step size of Adam.
        anneal: Whether the learning rate is lowered linearly over `num_updates` updates.
        anneal_end: Fraction of the learning rate that remains at the end of annealing.
        num_updates: Number of updates over which the learning rate is annealed; `rlgen train`
            computes it from `--steps` and the fraction of updates that train the agent.
        discount: Discount γ per step.
        gae_lambda: λ of the generalised advantage estimate.
        clip: Clipping range ε of the importance ratio.
        value_clip: Largest difference between a value prediction and the old prediction in the
            value loss; 0 disables clipping.
        entropy_coef: Weight of the entropy bonus.
        value_coef: Weight of the value loss.
        num_epochs: Number of passes over each rollout.
        num_minibatches: Number of gradient steps per pass; each uses an equal part of the
            sequences.
        bptt_steps: Length of the sequences for backpropagation through time; 0 uses whole
            rollouts. Shorter sequences start from the recurrent states stored while playing.
        max_grad_norm: Maximum global norm of the gradient; 0 disables clipping.
        normalize_advantage: Whether advantages are normalised to mean 0 and standard deviation 1
            in each minibatch.
        bootstrap_truncation: Whether the return is bootstrapped where an episode is truncated at
            the time limit; if false, truncation is treated as termination.
        target_kl: Largest KL divergence from the old policy, in nats. If the divergence exceeds
            this value after an epoch, no further epoch is run on the rollout; 0 disables this early
            stopping.
        adam_eps: ε of Adam.
        two_streams: Whether the bonus has a separate value function, configured by `intrinsic`; if
            false, the bonus is added to the reward.
        intrinsic: Settings of the bonus's value function, used if `two_streams` is true.
        surrogate: Objective that replaces the clipped surrogate; `()` uses clipping.

    Raises:
        ValueError: If a field is out of range, or `two_streams` is set for a network that supports
            only one value.
    """

    env: LevelEnv
    network: Network = field(default_factory=lambda: ActorCritic(core="none"))
    learning_rate: float = 1e-4
    anneal: bool = False
    anneal_end: float = 0.0
    num_updates: int = 0
    discount: float = 0.995
    gae_lambda: float = 0.98
    clip: float = 0.2
    value_clip: float = 0.2
    entropy_coef: float = 1e-3
    value_coef: float = 0.5
    num_epochs: int = 5
    num_minibatches: int = 1
    bptt_steps: int = 0
    max_grad_norm: float = 0.5
    normalize_advantage: bool = True
    bootstrap_truncation: bool = True
    target_kl: float = 0.0
    adam_eps: float = 1e-5
    two_streams: bool = False
    intrinsic: IntrinsicStream = field(default_factory=IntrinsicStream)
    surrogate: Surrogate | tuple[()] = ()

    def __post_init__(self):
        check_numbers(self, "num_epochs", "num_minibatches", least=1, owner="PPO's ")
        check_numbers(self, "learning_rate", "clip", "adam_eps", above=0, owner="PPO's ")
        at_least_zero = ("value_clip", "entropy_coef", "value_coef", "bptt_steps", "max_grad_norm")
        check_numbers(self, *at_least_zero, "target_kl", "num_updates", least=0, owner="PPO's ")
        check_numbers(self, "discount", "gae_lambda", "anneal_end", least=0, most=1, owner="PPO's ")
        if self.two_streams and not self.network.offers(Network.values):
            raise ValueError(
                f"PPO's two_streams needs a network with several values, such as ActorCritic; "
                f"{type(self.network).__name__} has only one value"
            )

    @property
    def reads(self) -> frozenset[str]:
        """`last_obs` if `two_streams` is true, to compute the bonus's value after the last step."""
        return frozenset({"last_obs"} if self.two_streams else ())

    @property
    def least_slots(self) -> int:
        """Smallest supported number of slots: one slot for each minibatch."""
        return self.num_minibatches

    @property
    def _network(self) -> Any:
        """The network, with a second value output for the bonus if `two_streams` is true."""
        network: Any = self.network
        return replace(network, num_values=2) if self.two_streams else network

    def check(self, num_steps: int, num_slots: int) -> None:
        """Check that rollouts can be divided into this learner's sequences and minibatches.

        Raises:
            ValueError: If a rollout cannot be divided; the message names sizes that fit.
        """
        length = self.bptt_steps or num_steps
        if num_steps % length:
            raise ValueError(
                f"bptt_steps={length} does not divide num_steps={num_steps}; "
                "choose a divisor, or 0 for the whole rollout"
            )
        num_sequences = num_slots * (num_steps // length)
        if num_sequences % self.num_minibatches:
            fits = [m for m in range(1, num_sequences + 1) if num_sequences % m == 0]
            raise ValueError(
                f"num_minibatches={self.num_minibatches} does not divide the {num_sequences} "
                f"sequences of {num_slots} slots; choose one of {', '.join(map(str, fits))}"
            )

    def init(self, key: Key) -> PPOState:
        """Return an untrained agent."""
        params = self._network.init(key, self.env)
        return PPOState(params, self._optimizer().init(params), jnp.int32(0))

    def spanning(self, num_updates: int) -> "PPO":
        """Return a copy that anneals over `num_updates` updates."""
        return replace(self, num_updates=num_updates)

    def without_schedule(self) -> "PPO":
        """Return a copy with a constant learning rate."""
        return replace(self, anneal=False)

    def discounting(self) -> dict[str, Any]:
        """Return the settings for advantage estimation that scores share with this learner."""
        return discounting(self)

    def update(
        self, key: Key, state: PPOState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PPOState, Metrics]:
        """Run several epochs of policy-gradient steps on one rollout [T, N]."""
        # In slots of weight 0, values are replaced by 0, because 0 times NaN would be NaN.
        rollout = _without(weight <= 0, rollout)
        batch = self._cut(self._batch(state.params, rollout, weight))
        rate = self._rate(state.num_updates)

        def epoch(carry: tuple, key: Key) -> tuple[tuple, Metrics]:
            return self._epoch(key, carry, batch, rate)

        start = (state.params, state.opt_state, jnp.bool_(True))
        # Each epoch has its own key, so that it shuffles the sequences differently.
        keys = jax.random.split(key, self.num_epochs)
        (params, opt_state, _), metrics = jax.lax.scan(epoch, start, keys)
        # Metrics are means over the epochs that were run; skipped epochs report 0.
        num_run = metrics.get("epochs_run", jnp.ones(self.num_epochs)).sum()
        metrics = {name: values.sum() / num_run for name, values in metrics.items()}
        if self.target_kl > 0:
            metrics["epochs_run"] = num_run
        metrics["gradient_steps"] = jnp.float32(num_run * self.num_minibatches)
        metrics["learning_rate"] = rate
        metrics["param_norm"] = _norm(params)
        return PPOState(params, opt_state, state.num_updates + 1), metrics

    def _batch(self, params: PyTree, rollout: Rollout, weight: Float[Array, " N"]) -> Batch:
        """Compute advantages and targets, for reward and bonus separately if `two_streams`."""
        advantage = gae(
            rollout,
            self.discount,
            self.gae_lambda,
            self.bootstrap_truncation,
            include_bonus=not self.two_streams,
        )
        weights = jnp.broadcast_to(weight, advantage.shape)
        # Targets are λ-returns A + v. Advantages are normalised later, in each minibatch.
        # `last_obs` is dropped, because it has no time axis that `_cut` could divide.
        batch = Batch(rollout._replace(last_obs=()), advantage, advantage + rollout.value, weights)
        if not self.two_streams:
            return batch
        # The rollout does not contain the bonus's value, so one unroll computes it for all T + 1
        # observations.
        obs = jax.tree.map(lambda *x: jnp.concatenate(x), rollout.obs, rollout.last_obs)
        # If the last step ended an episode, the observation after it begins the next episode.
        first = jnp.concatenate([rollout.first, rollout.done[-1:]])
        carry = jax.tree.map(lambda x: x[0], rollout.carry)
        # The network returns values [T + 1, N, 2]; index 0 is for the reward, 1 for the bonus.
        values = self._network.values(self.env, params, carry, obs, first)[2][..., 1]
        values = jnp.where(weight[None] > 0, values, 0.0)
        of_bonus = self.intrinsic.advantage(rollout, values)
        both = self.intrinsic.extrinsic_coef * advantage + self.intrinsic.coef * of_bonus
        value = values[:-1]
        return batch._replace(advantage=both, bonus_value=value, bonus_target=of_bonus + value)

    def _optimizer(self) -> optax.GradientTransformation:
        """Adam without a step size; `_step` multiplies by the step size, which may be annealed."""
        adam = optax.scale_by_adam(eps=self.adam_eps)
        if self.max_grad_norm == 0:
            return adam
        # Gradients are clipped before Adam, so that an outlier does not stay in Adam's moments.
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)

    def _rate(self, num_updates: Int[Array, ""]) -> Float[Array, ""]:
        # The rate is constant over the epochs of a rollout: annealing counts updates and not
        # gradient steps.
        if not self.anneal:
            return jnp.float32(self.learning_rate)
        left = 1.0 - num_updates / max(self.num_updates, 1)
        left = self.anneal_end + (1.0 - self.anneal_end) * jnp.maximum(left, 0.0)
        return self.learning_rate * left

    def _cut(self, batch: Batch) -> Batch:
        """Divide a rollout into M = (T / L) N sequences of L = `bptt_steps` steps, [L, M].

        Sequence c N + n is the c-th part of slot n.
        """
        num_steps = batch.advantage.shape[0]
        length = self.bptt_steps or num_steps

        # [T, N] -> [T/L, L, N] -> [L, T/L, N] -> [L, M].
        def cut(x: Array) -> Array:
            x = x.reshape(num_steps // length, length, *x.shape[1:])
            return x.swapaxes(0, 1).reshape(length, -1, *x.shape[3:])

        # The stored states [T/L, N] become the initial states of the sequences, [1, M].
        carry = jax.tree.map(lambda x: x.reshape(1, -1, *x.shape[2:]), batch.rollout.carry)
        rollout = jax.tree.map(cut, batch.rollout._replace(carry=()))
        rest = jax.tree.map(cut, batch._replace(rollout=()))
        return rest._replace(rollout=rollout._replace(carry=carry))

    def _epoch(self, key: Key, carry: tuple, batch: Batch, rate: Array) -> tuple[tuple, Metrics]:
        def learn(params: PyTree, opt_state: PyTree) -> tuple[tuple, Metrics]:
            def minibatch(carry: tuple, part: Batch) -> tuple[tuple, Metrics]:
                params, opt_state = carry
                return self._step(params, opt_state, part, rate)

            parts = self._shuffle(key, batch)
            if self.num_minibatches == 1:
                return minibatch((params, opt_state), parts)
            carry, metrics = jax.lax.scan(minibatch, (params, opt_state), parts)
            return carry, {name: x.mean() for name, x in metrics.items()}

        params, opt_state, going = carry
        # This branch is chosen while tracing, so without early stopping no `cond` is compiled.
        if self.target_kl == 0:
            (params, opt_state), metrics = learn(params, opt_state)
            return (params, opt_state, going), metrics

        # Both branches of a `cond` must return the same structure, so `stop` returns zero metrics.
        def stop() -> tuple[tuple, Metrics]:
            shapes = jax.eval_shape(learn, params, opt_state)[1]
            return (params, opt_state), {name: jnp.zeros(s.shape) for name, s in shapes.items()}

        # When seeds are vmapped, `any_over_seeds` keeps the condition a scalar: an epoch is skipped
        # if all seeds have stopped. `tree_where` then selects the result of each seed.
        new, metrics = jax.lax.cond(any_over_seeds(going), lambda: learn(params, opt_state), stop)
        params, opt_state = tree_where(going, new, (params, opt_state))
        metrics = {name: jnp.where(going, x, 0.0) for name, x in metrics.items()}
        metrics["epochs_run"] = going.astype(jnp.float32)
        # The KL divergence is tested after an epoch, so at least one epoch is run.
        return (params, opt_state, going & (metrics["kl"] <= self.target_kl)), metrics

    def _shuffle(self, key: Key, batch: Batch) -> Batch:
        """Shuffle the sequences into minibatches, [minibatches, T, M / minibatches, ...].

        A single minibatch is returned unchanged, which avoids a copy.
        """
        if self.num_minibatches == 1:
            return batch
        num_sequences = batch.advantage.shape[1]
        order = jax.random.permutation(key, num_sequences)

        def split(x: Array) -> Array:
            x = x[:, order].reshape(x.shape[0], self.num_minibatches, -1, *x.shape[2:])
            return x.swapaxes(0, 1)

        return jax.tree.map(split, batch)

    def _step(self, params: PyTree, opt_state: PyTree, batch: Batch, rate: Array) -> tuple:
        grads, metrics = jax.grad(self._loss, has_aux=True)(params, batch)
        updates, new_opt_state = self._optimizer().update(grads, opt_state, params)
        # `scale_by_adam` keeps the sign of the gradient, hence the subtraction.
        new_params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        # If all weights of a minibatch are 0, the step is skipped, because Adam's momentum would
        # still change the parameters.
        state = tree_where(batch.weight.sum() > 0, (new_params, new_opt_state), (params, opt_state))
        return state, metrics | {"grad_norm": _norm(grads)}

    def _loss(self, params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        old = batch.rollout
        carry = jax.tree.map(lambda x: x[0], old.carry)
        _, logits, value, bonus_value = self._values(params, carry, old)
        # The weights of a minibatch are normalised to sum 1, so `mean` is a weighted mean.
        weight = batch.weight / jnp.maximum(batch.weight.sum(), 1e-8)

        def mean(x: Array) -> Array:
            return (weight * x).sum()

        advantage = batch.advantage
        if self.normalize_advantage:
            centred = advantage - mean(advantage)
            advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-5)
        log_ratio = distributions.log_prob(logits, old.action) - old.log_prob
        ratio = jnp.exp(log_ratio)
        policy_loss = -mean(self._gain(log_ratio, ratio, advantage))
        value_loss = 0.5 * mean(self._value_error(value, old.value, batch.target))
        streams = {}
        if self.two_streams:
            assert not isinstance(batch.bonus_value, tuple)
            assert not isinstance(batch.bonus_target, tuple)
            error = self._value_error(bonus_value, batch.bonus_value, batch.bonus_target)
            streams["bonus_value_loss"] = 0.5 * mean(error)
            value_loss += streams["bonus_value_loss"]
        entropy = mean(distributions.entropy(logits))
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        metrics = {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": entropy,
            # Schulman's estimator of KL(π_old ‖ π). The term ρ - 1 has mean 0 and lowers the
            # variance.
            "kl": mean(ratio - 1 - log_ratio),
            "clip_fraction": mean((jnp.abs(ratio - 1) > self.clip).astype(jnp.float32)),
        }
        return loss, metrics | streams

    def _values(self, params: PyTree, carry: PyTree, old: Rollout) -> tuple:
        """Return carry, logits, value, and the bonus's value, which is `()` without two streams."""
        if not self.two_streams:
            return *self.network.unroll(self.env, params, carry, old.obs, old.first), ()
        carry, logits, both = self._network.values(self.env, params, carry, old.obs, old.first)
        return carry, logits, both[..., 0], both[..., 1]

    def _gain(self, log_ratio: Array, ratio: Array, advantage: Array) -> Array:
        # An empty tuple stands for clipping. A surrogate may also be a tuple (a NamedTuple in LPO),
        # but this tuple is not empty.
        if not isinstance(self.surrogate, tuple) or self.surrogate:
            return self.surrogate(log_ratio, advantage)
        # Equation 7 of Schulman et al. The minimum is a lower bound of ρ A. Its gradient is 0 if
        # the ratio has left the clipping range in the direction that the advantage favours.
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        return jnp.minimum(ratio * advantage, clipped * advantage)

    def _value_error(self, value: Array, old_value: Array, target: Array) -> Array:
        error = (value - target) ** 2
        if self.value_clip == 0:
            return error
        # The larger of the two errors is used, so that clipping never lowers the loss.
        near = old_value + jnp.clip(value - old_value, -self.value_clip, self.value_clip)
        return jnp.maximum(error, (near - target) ** 2)


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return feed-forward PPO for an environment."""
    return PPO(env, **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)


def _without(unused: Bool[Array, " N"], rollout: Rollout) -> Rollout:
    """Return the rollout with rewards, bonuses and values of unused slots set to 0."""
    names = ("reward", "bonus", "value", "next_value")
    kept = {name: jnp.where(unused[None], 0.0, getattr(rollout, name)) for name in names}
    return rollout._replace(**kept)


def _norm(tree: PyTree) -> Float[Array, ""]:
    """Global L2 norm; optax's own function has different names in the supported versions."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
