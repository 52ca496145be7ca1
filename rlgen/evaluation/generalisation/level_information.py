"""Level information: information about a level's identity in a policy's representation.

Level information is the mutual information I(L; b). L is a level that is drawn uniformly from n
levels, and b is the representation from which the policy and the value are computed. The estimate,
in nats, is ln n minus the cross-entropy of a classifier that predicts L from b. The estimate of any
classifier is a lower bound on the level information, which is at most ln n.

Source: the classifier (probe) follows Garcin et al., 2024, "DRED: Zero-Shot Transfer in
Reinforcement Learning via Data-Regularised Environment Design", and an earlier study of level
sampling by the same authors. The level information limits the generalisation gap through the bound
of Bertran et al., 2020, "Instance-based Generalization in Reinforcement Learning".
Differs from Garcin et al. by default: the cross-entropy is measured on held-out episodes, so that
memorised episodes do not count. The function `online` follows the code of Garcin et al.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from rlgen.nn.layers import orthogonal
from rlgen.protocols import Actor, Learner, LevelEnv
from rlgen.rollout import rollout
from rlgen.types import Key, PyTree, Rollout

STEP_SIZE = 2.0  # 1 / curvature: on whitened features the loss has a curvature of at most 1/2


class Estimate(NamedTuple):
    """Estimate of the level information by a classifier."""

    raw: Float[Array, ""]  # ln n minus the cross-entropy, in nats; can be below 0 by chance
    accuracy: Float[Array, ""]  # weighted fraction of steps that are classified correctly

    @property
    def nats(self) -> Float[Array, ""]:
        """Reported estimate: `raw` clipped at 0, since mutual information is not negative."""
        return jnp.maximum(self.raw, 0.0)


@dataclass(frozen=True)
class Probe:
    """Settings of the classifier that `heldout` fits with Nesterov's gradient descent.

    All weights start at zero. Features are whitened first, which makes the step size safe for any
    features. Directions of low variance are then learned as easily as others. Noise is learned
    less easily than with Adam, because Adam's steps have the same length in all directions.

    Attributes:
        num_checks: Number of times that the classifier is tested during the fit. The fit can stop
            at any of these checks.
        steps_per_check: Number of gradient steps between two checks.
        shrinkage: Variance that whitening adds to every direction, as a fraction of the mean
            variance.
    """

    num_checks: int = 30
    steps_per_check: int = 5
    shrinkage: float = 0.01


def heldout(
    feature: Float[Array, "2 B F"],
    label: Int[Array, "2 B"],
    num_levels: int,
    probe: Probe | tuple[()] = (),
) -> Estimate:
    """Estimate the level information with a linear classifier, tested on held-out episodes.

    The classifier is fitted on each half of the episodes in turn and tested on the other half. All
    levels have equal weight, independently of the number of steps played on them. Each of the two
    fits is stopped early, at the time that was best for the other fit. No half is therefore used
    both to choose a stopping time and to test the classifier that is stopped at this time.

    Args:
        feature: Features of both halves; no episode may be in both.
        label: Index of the level, from 0 to n - 1; each level must be in both halves.
        num_levels: Number of levels n.
        probe: Settings of the fit; `()` for the defaults.
    """
    chosen = probe if isinstance(probe, Probe) else Probe()

    def fit(x: Array, y: Array, x_test: Array, y_test: Array) -> tuple[Array, Array]:
        x, x_test = _whitened(x, x_test, chosen.shrinkage)
        return _fit((x, y), (x_test, y_test), num_levels, chosen)

    # `[::-1]` pairs each half with the other one.
    loss, right = jax.vmap(fit)(feature, label, feature[::-1], label[::-1])  # [2, C + 1]
    stop = jnp.argmin(loss, axis=1)[::-1, None]  # the other fit's best stopping time
    cross_entropy, accuracy = (jnp.take_along_axis(x, stop, 1).mean() for x in (loss, right))
    return Estimate(jnp.log(num_levels) - cross_entropy, accuracy)


def online(
    key: Key, feature: Float[Array, "B F"], label: Int[Array, " B"], num_levels: int
) -> Estimate:
    """Estimate the level information as in the code of Garcin et al., for comparison.

    The classifier is trained for one epoch of 8 minibatches. It is tested on each minibatch before
    it is trained on that minibatch. Features are not standardised and the classifier is barely
    fitted, so the estimate is far below that of `heldout`. In the code of Garcin et al. the
    classifier is trained alongside the agent and keeps its weights from one update to the next. In
    this function the classifier starts from new weights.
    """
    key_params, key_order = jax.random.split(key)
    size = len(label) // 8 * 8
    order = jax.random.permutation(key_order, len(label))[:size].reshape(8, -1)
    kernel = orthogonal(0.01)(key_params, (feature.shape[-1], num_levels), jnp.float32)
    params = (kernel, jnp.zeros((1, num_levels)))
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(5e-4, eps=1e-5))

    def step(carry: tuple, rows: Array) -> tuple[tuple, tuple]:
        params, opt_state = carry
        part = feature[rows], label[rows]
        grads, told = jax.grad(_loss, has_aux=True)(params, *part, jnp.ones(len(rows)))
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), told

    _, (loss, right) = jax.lax.scan(step, (params, optimizer.init(params)), order)
    return Estimate(jnp.log(num_levels) - loss.mean(), right.mean())


def play_on(
    key: Key, env: LevelEnv, learner: Learner, state: PyTree, level: PyTree, num_steps: int
) -> Rollout:
    """Play T steps of consecutive episodes on each of N levels [N, ...].

    All value estimates in the rollout are 0, because nothing is learned from it.
    """
    queues = jax.tree.map(lambda x: x[:, None], level)  # [N, 1, ...]: one level per slot
    return rollout(key, env, _Player(learner), state, queues, num_steps)[0]


def some_features(
    key: Key,
    learner: Learner,
    state: PyTree,
    obs: PyTree,
    first: Bool[Array, "T N"],
    num_kept: int,
) -> Float[Array, "K N F"]:
    """Features of `num_kept` evenly spaced steps of a rollout, with a random offset.

    Episodes must start at the first step of the rollout, because the initial carry is used. If the
    rollout has fewer than `num_kept` steps, all steps are kept.
    """
    num_steps, num_slots = first.shape
    kept = min(num_kept, num_steps)
    found = learner.features(state, learner.initial_carry(num_slots), obs, first)[1]
    offset = jax.random.uniform(key)
    return found[((jnp.arange(kept) + offset) * num_steps / kept).astype(jnp.int32)]


def in_halves(
    feature: Float[Array, "K N F"], num_levels: int
) -> tuple[Float[Array, "2 B F"], Int[Array, "2 B"]]:
    """Split features by slot into the two halves that `heldout` expects, and add level indices.

    Args:
        feature: Features of N slots, where N is an even multiple of n. Slot i plays level i mod n.
        num_levels: Number of levels n.
    """
    num_kept, num_slots, size = feature.shape
    halves = feature.reshape(num_kept, 2, -1, size).swapaxes(0, 1)  # [2, K, N / 2, F]
    label = jnp.broadcast_to(jnp.arange(num_slots // 2) % num_levels, halves.shape[:3])
    return halves.reshape(2, -1, size), label.reshape(2, -1)


@dataclass(frozen=True)
class _Player(Actor):
    """Actor that uses a learner's policy and returns values of 0, since nothing is learned."""

    learner: Learner

    def initial_carry(self, num_slots: int) -> PyTree:
        return self.learner.initial_carry(num_slots)

    def act(
        self, key: Key, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> tuple[PyTree, Int[Array, " N"], Float[Array, " N"], Float[Array, " N"]]:
        return self.learner.act(key, state, carry, obs, first)

    def value(
        self, state: PyTree, carry: PyTree, obs: PyTree, first: Bool[Array, " N"]
    ) -> Float[Array, " N"]:
        del state, carry, obs
        return jnp.zeros(first.shape)


_Data = tuple[Float[Array, "B F"], Int[Array, " B"]]


def _fit(
    train: _Data, test: _Data, num_levels: int, probe: Probe
) -> tuple[Float[Array, " C"], Float[Array, " C"]]:
    """Cross-entropy and accuracy on `test` before the fit and at each check during it.

    Source: Nesterov, 1983, "A method for solving the convex programming problem with convergence
    rate O(1/k²)". If the covariance of the features has no eigenvalue above 1, the curvature of the
    loss is at most 1/2.
    """
    weight, weight_test = (_per_level(y, num_levels) for _, y in (train, test))
    zero = (jnp.zeros((train[0].shape[-1], num_levels)), jnp.zeros((1, num_levels)))
    optimizer = optax.inject_hyperparams(optax.sgd)(STEP_SIZE, momentum=_momentum, nesterov=True)
    slope = jax.grad(_loss, has_aux=True)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        params, opt_state = carry
        grads = slope(params, *train, weight)[0]
        updates, opt_state = optimizer.update(grads, opt_state)
        return (optax.apply_updates(params, updates), opt_state), None

    def check(carry: tuple, _: None) -> tuple[tuple, tuple]:
        carry, _ = jax.lax.scan(step, carry, length=probe.steps_per_check)
        return carry, _loss(carry[0], *test, weight_test)[1]

    start = _loss(zero, *test, weight_test)[1]
    _, later = jax.lax.scan(check, (zero, optimizer.init(zero)), length=probe.num_checks)
    loss, right = (jnp.append(x, y) for x, y in zip(start, later, strict=True))
    return loss, right


def _momentum(step: Int[Array, ""]) -> Float[Array, ""]:
    """Nesterov's momentum schedule: 0, 0, 1/4, 2/5, ..., converging to 1."""
    return jnp.maximum(step - 1, 0) / (step + 2)


def _whitened(
    x: Float[Array, "B F"], y: Float[Array, "B F"], shrinkage: float
) -> tuple[Float[Array, "B F"], Float[Array, "B F"]]:
    """Whiten both arrays with the mean and covariance of the first array.

    Afterwards the variance of the first array is at most 1 in every direction.
    """
    mean, deviation = x.mean(0, keepdims=True), x.std(0, keepdims=True)
    # The floor keeps constant features at 0 instead of dividing by 0.
    x, y = ((z - mean) / jnp.maximum(deviation, 1e-6) for z in (x, y))
    exact = jax.lax.Precision.HIGHEST  # reduced precision could break the Cholesky decomposition
    covariance = jnp.matmul(x.T, x, precision=exact) / len(x) + shrinkage * jnp.eye(x.shape[-1])
    root = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    whiter, other = (jnp.matmul(z, root.T, precision=exact) for z in (x, y))
    return whiter, other


def _loss(
    params: PyTree, feature: Array, label: Array, weight: Array
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
    """Weighted cross-entropy, and as auxiliary output the pair (cross-entropy, accuracy)."""
    kernel, bias = params
    logits = feature @ kernel + bias
    weight = weight / weight.sum()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    right = (logits.argmax(-1) == label) * weight
    loss = (weight * losses).sum()
    return loss, (loss, right.sum())


def _per_level(label: Int[Array, " B"], num_levels: int) -> Float[Array, " B"]:
    """Weight of each step, chosen so that every level has the same total weight."""
    held = jnp.zeros(num_levels).at[label].add(1.0)
    return 1.0 / held[label]
