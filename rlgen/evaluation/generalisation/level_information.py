"""Level information: how much of a level's identity a policy's representation gives away.

The mutual information I(L; b) between a level L, drawn uniformly from n, and the representation b
that policy and value are computed from, as ln n less the cross-entropy of a classifier that guesses
the level. Any classifier's is a bound from below, in nats, of at most ln n.

Source: the probe of Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", and of their earlier study of level sampling; with the bound
of Bertran et al., 2020, "Instance-based Generalization in Reinforcement Learning", it limits the
generalisation gap.
Differs from it by default: the cross-entropy is of episodes that the classifier did not learn from,
so that learning them by heart counts for nothing; `online` is as released.
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

STEP_SIZE = 2.0  # of the classifier's fit: one over the greatest curvature


class Estimate(NamedTuple):
    """What a classifier says of I(L; b)."""

    raw: Float[Array, ""]  # nats, ln n less the cross-entropy; below 0 by chance
    accuracy: Float[Array, ""]  # share of steps whose level was guessed, on the same data

    @property
    def nats(self) -> Float[Array, ""]:
        """What is reported: information is never below 0."""
        return jnp.maximum(self.raw, 0.0)


@dataclass(frozen=True)
class Probe:
    """How the classifier of `heldout` is fitted: by Nesterov's gradient descent from zero weights.

    Features are whitened, so that the step size is safe whatever they are; and directions in which
    few features differ are then as easily learned as others, while the noise in the remaining ones
    is not, as by Adam, whose steps in all of them are of one length.

    Attributes:
        num_checks: looks at the other half; how long is learned is chosen among these.
        steps_per_check: gradient steps between two looks.
        shrinkage: share of the mean variance that whitening adds to every direction's own.
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
    """The information that a linear classifier finds, judged on episodes that it has not seen.

    Each half of the episodes is learned from in turn and judged on the other, and all levels count
    alike, however many steps were played on them. Learning stops early; when, is what was best for
    the fit of the other half, so no half chooses for itself what it is judged by.

    Args:
        feature: by half; no episode may lie in both.
        label: the level's number, from 0 to n - 1, each in both halves.
        num_levels: n.
        probe: of the fit; `()` for the default one.
    """
    chosen = probe if isinstance(probe, Probe) else Probe()

    def fit(x: Array, y: Array, x_test: Array, y_test: Array) -> tuple[Array, Array]:
        x, x_test = _whitened(x, x_test, chosen.shrinkage)
        return _fit((x, y), (x_test, y_test), num_levels, chosen)

    loss, right = jax.vmap(fit)(feature, label, feature[::-1], label[::-1])  # [2, C + 1]
    stop = jnp.argmin(loss, axis=1)[::-1, None]
    cross_entropy, accuracy = (jnp.take_along_axis(x, stop, 1).mean() for x in (loss, right))
    return Estimate(jnp.log(num_levels) - cross_entropy, accuracy)


def online(
    key: Key, feature: Float[Array, "B F"], label: Int[Array, " B"], num_levels: int
) -> Estimate:
    """The estimate as released: one epoch of 8 minibatches, each judged before it is learned from.

    Not standardised and hardly fitted, so it is far below `heldout` unless it goes on from one
    update to the next, as it does in its source: there the classifier is trained along with the
    agent. For comparisons with the published procedure.
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
    """T steps on each of N levels [N, ...], episode after episode; values are left at 0."""
    queues = jax.tree.map(lambda x: x[:, None], level)
    return rollout(key, env, _Player(learner), state, queues, num_steps)[0]


def some_features(
    key: Key,
    learner: Learner,
    state: PyTree,
    obs: PyTree,
    first: Bool[Array, "T N"],
    num_kept: int,
) -> Float[Array, "K N F"]:
    """The features of some steps of a rollout from the start of episodes, spread evenly over it."""
    num_steps, num_slots = first.shape
    kept = min(num_kept, num_steps)
    found = learner.features(state, learner.initial_carry(num_slots), obs, first)[1]
    offset = jax.random.uniform(key)
    return found[((jnp.arange(kept) + offset) * num_steps / kept).astype(jnp.int32)]


def in_halves(
    feature: Float[Array, "K N F"], num_levels: int
) -> tuple[Float[Array, "2 B F"], Int[Array, "2 B"]]:
    """Features and levels as `heldout` takes them, of slots that play levels 0 to n - 1 in turn.

    Args:
        feature: of N slots, an even multiple of n; slot i plays level i mod n.
        num_levels: n.
    """
    num_kept, num_slots, size = feature.shape
    halves = feature.reshape(num_kept, 2, -1, size).swapaxes(0, 1)
    label = jnp.broadcast_to(jnp.arange(num_slots // 2) % num_levels, halves.shape[:3])
    return halves.reshape(2, -1, size), label.reshape(2, -1)


@dataclass(frozen=True)
class _Player(Actor):
    """A learner that only acts: no stored states, no values of what it will not learn from."""

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
    """Cross-entropy and accuracy on `test` before the fit and at each check of it.

    Source: Nesterov, 1983, "A method for solving the convex programming problem with convergence
    rate O(1/k²)". With features of covariance at most 1, the loss has curvature of at most 1/2.
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
    """Nesterov's schedule: 0, 0, 1/4, 2/5 ..., towards 1."""
    return jnp.maximum(step - 1, 0) / (step + 2)


def _whitened(
    x: Float[Array, "B F"], y: Float[Array, "B F"], shrinkage: float
) -> tuple[Float[Array, "B F"], Float[Array, "B F"]]:
    """Both by the mean and covariance of the first, so that no direction varies more than 1."""
    mean, deviation = x.mean(0, keepdims=True), x.std(0, keepdims=True)
    x, y = ((z - mean) / jnp.maximum(deviation, 1e-6) for z in (x, y))
    exact = jax.lax.Precision.HIGHEST
    covariance = jnp.matmul(x.T, x, precision=exact) / len(x) + shrinkage * jnp.eye(x.shape[-1])
    root = jnp.linalg.inv(jnp.linalg.cholesky(covariance))
    whiter, other = (jnp.matmul(z, root.T, precision=exact) for z in (x, y))
    return whiter, other


def _loss(
    params: PyTree, feature: Array, label: Array, weight: Array
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Float[Array, ""]]]:
    """Weighted cross-entropy, and it again with the accuracy."""
    kernel, bias = params
    logits = feature @ kernel + bias
    weight = weight / weight.sum()
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    right = (logits.argmax(-1) == label) * weight
    loss = (weight * losses).sum()
    return loss, (loss, right.sum())


def _per_level(label: Int[Array, " B"], num_levels: int) -> Float[Array, " B"]:
    """Weights by which every level counts alike."""
    held = jnp.zeros(num_levels).at[label].add(1.0)
    return 1.0 / held[label]
