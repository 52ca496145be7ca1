"""Proximal policy optimisation, feed-forward or recurrent.

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
    """An agent."""

    params: PyTree
    opt_state: PyTree
    num_updates: Int[Array, ""]  # rollouts learned from


class Batch(NamedTuple):
    """Sequences to learn from, [T, N, ...]."""

    rollout: Rollout
    advantage: Float[Array, "T N"]
    target: Float[Array, "T N"]
    weight: Float[Array, "T N"]
    # Of the bonus alone, where it has a value of its own; `()` otherwise.
    bonus_value: Float[Array, "T N"] | tuple[()] = ()
    bonus_target: Float[Array, "T N"] | tuple[()] = ()


@runtime_checkable
class Surrogate(Protocol):
    """What a policy gains by each step, if it is near the one that collected the data."""

    def __call__(
        self, log_ratio: Float[Array, "*B"], advantage: Float[Array, "*B"]
    ) -> Float[Array, "*B"]:
        """The gain, to be maximised; its gradient at ratio 1 is that of the ratio × advantage."""
        ...


@dataclass(frozen=True)
class IntrinsicStream:
    """How the bonus is summed where it has a value of its own.

    Attributes:
        discount: γ of the bonus, per step.
        gae_lambda: λ of its advantage estimate.
        episodic: whether its return ends with the episode; else it runs on into the next ones, so
            that dying costs what could still be found.
        coef: weight of its advantage.
        extrinsic_coef: weight of the reward's advantage beside it.

    Raises:
        ValueError: a discount or λ outside [0, 1].
    Source: Burda et al., 2019, "Exploration by Random Network Distillation", 2.3; the weights are
    1 and 2 there.
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
        """Generalised advantage estimates of the bonus alone.

        Args:
            rollout: [T, N].
            values: [T + 1, N], the bonus's, of every observation and of what follows the last step.
                Where an episode ended, what follows is the next one's start.
        """
        follows = jnp.where(rollout.done & self.episodic, 0.0, self.discount)
        delta = rollout.bonus + follows * values[1:] - values[:-1]

        def step(advantage: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
            delta_t, follows_t = xs
            advantage = delta_t + follows_t * self.gae_lambda * advantage
            return advantage, advantage

        start = jnp.zeros_like(delta[0])
        return jax.lax.scan(step, start, (delta, follows), reverse=True, unroll=8)[1]


@dataclass(frozen=True)
class PPO(ActorCriticLearner):
    """PPO with the field's usual options, each a field; the defaults are JaxUED's for mazes.

    Attributes:
        learning_rate: Adam's step size.
        anneal: lower the learning rate linearly over `num_updates` learned rollouts.
        anneal_end: share of the learning rate that is left at the end.
        num_updates: length of the annealing; `rlgen train` sets it from `--steps` and from the
            share of updates that the sampler lets learn.
        discount: γ, per step.
        gae_lambda: λ of the advantage estimate.
        clip: ε, how far the policy's ratio may move.
        value_clip: how far a value may move from its old one; 0 turns it off.
        entropy_coef: weight of the entropy bonus.
        value_coef: weight of the value loss.
        num_epochs: passes over a rollout.
        num_minibatches: gradient steps in a pass; they split the sequences.
        bptt_steps: length of the sequences that a recurrent policy is trained on; 0 is the whole
            rollout. Shorter ones start from the states stored when playing.
        max_grad_norm: clips the gradient's global norm; 0 turns it off.
        normalize_advantage: to mean 0 and deviation 1 in each minibatch.
        bootstrap_truncation: whether a time limit bootstraps (`False`: it counts as termination).
        target_kl: stop the epochs of a rollout once the policy has moved this far, in nats; 0
            turns it off.
        adam_eps: Adam's ε.
        two_streams: whether the bonus has a value of its own, as `intrinsic` says; else it is added
            to the reward.
        intrinsic: how the bonus is summed with two streams.
        surrogate: what is maximised in place of the clipped ratio times the advantage; `()` clips.

    Raises:
        ValueError: a field outside its range.
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
                f"{type(self.network).__name__} has one"
            )

    @property
    def reads(self) -> frozenset[str]:
        """What follows a rollout's last step, where the bonus has a value of its own."""
        return frozenset({"last_obs"} if self.two_streams else ())

    @property
    def least_slots(self) -> int:
        """One for each minibatch."""
        return self.num_minibatches

    @property
    def _network(self) -> Any:
        """The network, with as many values as there are streams."""
        network: Any = self.network
        return replace(network, num_values=2) if self.two_streams else network

    def check(self, num_steps: int, num_slots: int) -> None:
        """Refuse rollouts that do not divide into this learner's sequences and minibatches.

        Raises:
            ValueError: with the sizes that would fit.
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
        """An untrained agent."""
        params = self._network.init(key, self.env)
        return PPOState(params, self._optimizer().init(params), jnp.int32(0))

    def spanning(self, num_updates: int) -> "PPO":
        """The same, annealing over so many updates."""
        return replace(self, num_updates=num_updates)

    def without_schedule(self) -> "PPO":
        """The same, with a constant learning rate."""
        return replace(self, anneal=False)

    def discounting(self) -> dict[str, Any]:
        """What the advantages of a score share with this learner's."""
        return discounting(self)

    def update(
        self, key: Key, state: PPOState, rollout: Rollout, weight: Float[Array, " N"]
    ) -> tuple[PPOState, Metrics]:
        """Some epochs of clipped policy gradient on one rollout [T, N]."""
        # Weights multiply, and 0 times NaN is NaN: what must not count is taken out altogether.
        rollout = _without(weight <= 0, rollout)
        batch = self._cut(self._batch(state.params, rollout, weight))
        rate = self._rate(state.num_updates)

        def epoch(carry: tuple, key: Key) -> tuple[tuple, Metrics]:
            return self._epoch(key, carry, batch, rate)

        start = (state.params, state.opt_state, jnp.bool_(True))
        keys = jax.random.split(key, self.num_epochs)
        (params, opt_state, _), metrics = jax.lax.scan(epoch, start, keys)
        num_run = metrics.get("epochs_run", jnp.ones(self.num_epochs)).sum()
        metrics = {name: values.sum() / num_run for name, values in metrics.items()}
        if self.target_kl > 0:
            metrics["epochs_run"] = num_run
        metrics["gradient_steps"] = jnp.float32(num_run * self.num_minibatches)
        metrics["learning_rate"] = rate
        metrics["param_norm"] = _norm(params)
        return PPOState(params, opt_state, state.num_updates + 1), metrics

    def _batch(self, params: PyTree, rollout: Rollout, weight: Float[Array, " N"]) -> Batch:
        """Advantages and targets; with two streams, of the reward and of the bonus apart."""
        advantage = gae(
            rollout,
            self.discount,
            self.gae_lambda,
            self.bootstrap_truncation,
            include_bonus=not self.two_streams,
        )
        weights = jnp.broadcast_to(weight, advantage.shape)
        batch = Batch(rollout._replace(last_obs=()), advantage, advantage + rollout.value, weights)
        if not self.two_streams:
            return batch
        # One pass over what was seen, and over what follows: acting asked for no such value.
        obs = jax.tree.map(lambda *x: jnp.concatenate(x), rollout.obs, rollout.last_obs)
        first = jnp.concatenate([rollout.first, rollout.done[-1:]])
        carry = jax.tree.map(lambda x: x[0], rollout.carry)
        values = self._network.values(self.env, params, carry, obs, first)[2][..., 1]
        values = jnp.where(weight[None] > 0, values, 0.0)
        of_bonus = self.intrinsic.advantage(rollout, values)
        both = self.intrinsic.extrinsic_coef * advantage + self.intrinsic.coef * of_bonus
        value = values[:-1]
        return batch._replace(advantage=both, bonus_value=value, bonus_target=of_bonus + value)

    def _optimizer(self) -> optax.GradientTransformation:
        """Adam's direction; the step size, which anneals with the rollouts, is applied apart."""
        adam = optax.scale_by_adam(eps=self.adam_eps)
        if self.max_grad_norm == 0:
            return adam
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)

    def _rate(self, num_updates: Int[Array, ""]) -> Float[Array, ""]:
        if not self.anneal:
            return jnp.float32(self.learning_rate)
        left = 1.0 - num_updates / max(self.num_updates, 1)
        left = self.anneal_end + (1.0 - self.anneal_end) * jnp.maximum(left, 0.0)
        return self.learning_rate * left

    def _cut(self, batch: Batch) -> Batch:
        """The rollout as sequences [bptt_steps, M]: slots first, then the slots' later parts."""
        num_steps = batch.advantage.shape[0]
        length = self.bptt_steps or num_steps

        def cut(x: Array) -> Array:
            x = x.reshape(num_steps // length, length, *x.shape[1:])
            return x.swapaxes(0, 1).reshape(length, -1, *x.shape[3:])

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
        if self.target_kl == 0:
            (params, opt_state), metrics = learn(params, opt_state)
            return (params, opt_state, going), metrics

        def stop() -> tuple[tuple, Metrics]:
            shapes = jax.eval_shape(learn, params, opt_state)[1]
            return (params, opt_state), {name: jnp.zeros(s.shape) for name, s in shapes.items()}

        new, metrics = jax.lax.cond(any_over_seeds(going), lambda: learn(params, opt_state), stop)
        params, opt_state = tree_where(going, new, (params, opt_state))
        metrics = {name: jnp.where(going, x, 0.0) for name, x in metrics.items()}
        metrics["epochs_run"] = going.astype(jnp.float32)
        return (params, opt_state, going & (metrics["kl"] <= self.target_kl)), metrics

    def _shuffle(self, key: Key, batch: Batch) -> Batch:
        """The sequences in random order, [minibatches, T, M / minibatches, ...].

        One minibatch needs no order, so nothing is copied.
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
        new_params = jax.tree.map(lambda p, u: p - rate * u, params, updates)
        # A minibatch without weight is no step: Adam would go on by its momentum.
        state = tree_where(batch.weight.sum() > 0, (new_params, new_opt_state), (params, opt_state))
        return state, metrics | {"grad_norm": _norm(grads)}

    def _loss(self, params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        old = batch.rollout
        carry = jax.tree.map(lambda x: x[0], old.carry)
        _, logits, value, bonus_value = self._values(params, carry, old)
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
            "kl": mean(ratio - 1 - log_ratio),  # Schulman's low-variance estimate
            "clip_fraction": mean((jnp.abs(ratio - 1) > self.clip).astype(jnp.float32)),
        }
        return loss, metrics | streams

    def _values(self, params: PyTree, carry: PyTree, old: Rollout) -> tuple:
        """Carry, logits, value and, with two streams, the bonus's value."""
        if not self.two_streams:
            return *self.network.unroll(self.env, params, carry, old.obs, old.first), ()
        carry, logits, both = self._network.values(self.env, params, carry, old.obs, old.first)
        return carry, logits, both[..., 0], both[..., 1]

    def _gain(self, log_ratio: Array, ratio: Array, advantage: Array) -> Array:
        if not isinstance(self.surrogate, tuple) or self.surrogate:
            return self.surrogate(log_ratio, advantage)
        clipped = jnp.clip(ratio, 1 - self.clip, 1 + self.clip)
        return jnp.minimum(ratio * advantage, clipped * advantage)

    def _value_error(self, value: Array, old_value: Array, target: Array) -> Array:
        error = (value - target) ** 2
        if self.value_clip == 0:
            return error
        near = old_value + jnp.clip(value - old_value, -self.value_clip, self.value_clip)
        return jnp.maximum(error, (near - target) ** 2)


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Feed-forward PPO for an environment."""
    return PPO(env, **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the law tests."""
    network = ActorCritic(core="none", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2)


def _without(unused: Bool[Array, " N"], rollout: Rollout) -> Rollout:
    """The rollout with zeros for whatever was paid or expected in some slots."""
    names = ("reward", "bonus", "value", "next_value")
    kept = {name: jnp.where(unused[None], 0.0, getattr(rollout, name)) for name in names}
    return rollout._replace(**kept)


def _norm(tree: PyTree) -> Float[Array, ""]:
    """Global L2 norm; optax renamed its own between the versions that rlgen admits."""
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))
