"""Elliptical distances of a sequence of vectors, computed in one of two equivalent forms.

    b = φᵀ C⁻¹ φ,   C = λ I + Σ φᵢ φᵢᵀ over the earlier vectors of the episode

P = C⁻¹ is carried from one rollout to the next. The form `scan` adds one vector at a time: with
u = P φ and b = φ·u, P becomes P − u uᵀ / (1 + b). The form `dual` adds several vectors at once. Let
the vectors be the rows of Φ. Each row of V = Φ P is a row of Φ times the matrix P at the start of
the episode of that row. Let A = I + V Φᵀ, where entries of V Φᵀ between different episodes are set
to 0. The Cholesky factor L of A then satisfies L_tt² = 1 + b_t. With W = L⁻¹ V, P becomes P − Wᵀ W.

Source: Henaff et al., 2022, "Exploration via Elliptical Episodic Bonuses", algorithm 1, which is
`scan`.

`scan` is slow for large d because it reads and writes all of P at every step. Time per step and
slot in µs, on one CPU core with 256 slots and rollouts of 128 steps:

    d                   32    64   128   256
    dual, chunk 16     0.7   1.2     6    19
    dual, chunk 128    2.6   4.1     9    24
    scan               1.6   4.3    24    73

Time of a rollout of 128 steps in ms, on an H200 with 1,024 slots:

    d                   64   128   256
    dual, chunk 16     1.3   2.5   6.5
    dual, chunk 32     1.0   2.0   4.7
    scan               2.9   9.4    29
"""

from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Form: TypeAlias = Literal["dual", "scan"]
FORMS = ("dual", "scan")


class Steps(NamedTuple):
    """Vectors of a rollout, in order of time."""

    phi: Float[Array, "T N d"]  # scored, then added to the covariance
    begin: Float[Array, "T N d"] | tuple[()]  # added without a score where an episode begins
    first: Bool[Array, "T N"]  # True where an episode begins; the covariance is then reset
    known: Bool[Array, "T N"]  # False where `phi` is neither scored nor added


class Followed(NamedTuple):
    """Inverse covariances after a rollout, the bonus of each step, and the number of resets."""

    inverse: Float[Array, "N d d"]  # P
    bonus: Float[Array, "T N"]
    resets: Int[Array, " N"]  # times that P was reset because a result was not finite


def round_ellipse(num_slots: int, size: int, ridge: float) -> Float[Array, "N d d"]:
    """Return P = I/λ for each slot, the inverse covariance before any vector is added."""
    return jnp.broadcast_to(jnp.eye(size) / ridge, (num_slots, size, size))


def follow(
    inverse: Float[Array, "N d d"], steps: Steps, ridge: float, form: Form, chunk: int = 16
) -> Followed:
    """Compute the bonus of each step of a rollout, and update P of each slot.

    Args:
        inverse: P of each slot's running episode before the rollout.
        steps: Steps of the rollout, in order of time.
        ridge: λ.
        form: `dual` or `scan`; their results differ only by rounding.
        chunk: Number of steps that the dual form processes at once.
    """
    dual = form == "dual"
    one = partial(_dual if dual else _scan, ridge)
    axes = (0, jax.tree.map(lambda _: 1, steps))
    # Slots are axis 0 of P and of the resets, and axis 1 of the bonus.
    every = jax.vmap(one, axes, Followed._make((0, 1, 0)))
    num_steps = steps.first.shape[0]
    # A Cholesky factorisation is cubic in the number of steps, so long rollouts are split.
    if not dual or num_steps <= chunk:
        return every(inverse, steps)

    def some(inverse: Array, part: Steps) -> tuple[Array, tuple[Array, Array]]:
        found = every(inverse, part)
        return found.inverse, found[1:]

    inverse, (bonus, resets) = jax.lax.scan(some, inverse, _cut(steps, chunk))
    return Followed(inverse, bonus.reshape(-1, bonus.shape[-1])[:num_steps], resets.sum(0))


def _cut(steps: Steps, chunk: int) -> Steps:
    """Split steps into C chunks [C, chunk, N, ...]; `known` is False for the padding steps."""
    missing = -steps.first.shape[0] % chunk

    # The padding values are False and 0, so no episode begins, and nothing is scored or added.
    def cut(x: Array) -> Array:
        x = jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) if missing else x
        return x.reshape(-1, chunk, *x.shape[1:])

    return jax.tree.map(cut, steps)


def _begun(ridge: float, begin: Array | tuple[()], size: int) -> Float[Array, "d d"]:
    """Return P of an episode whose only vector is `begin`."""
    if isinstance(begin, tuple):
        return jnp.eye(size) / ridge
    # Sherman-Morrison: (λ I + φ φᵀ)⁻¹ = (I − φ φᵀ / (λ + φ·φ)) / λ.
    scale = 1 / (ridge + (begin**2).sum())
    return (jnp.eye(size) - scale * (begin[:, None] * begin[None])) / ridge


def _scan(ridge: float, inverse: Float[Array, "d d"], steps: Steps) -> Followed:
    """Process one slot step by step.

    Matrix products are written as elementwise products and sums. P then stays exactly symmetric,
    and accelerators do not use reduced precision.
    """
    size = inverse.shape[0]
    fresh = jnp.eye(size) / ridge

    def step(inverse: Array, xs: Steps) -> tuple[Array, tuple[Array, Array]]:
        base = jnp.where(xs.first, _begun(ridge, xs.begin, size), inverse)
        u = (base * xs.phi[None]).sum(1)
        # b_t = φ·u.
        reach = (u * xs.phi).sum()
        bad = xs.known & ~jnp.isfinite(reach)
        # If rounding made P indefinite, the bonus is 0 and P is not changed.
        grown = xs.known & (reach > 0)
        # The inner `where` keeps 1 / (1 + reach) finite if reach is −1 or NaN.
        gain = jnp.where(grown, 1 / (1 + jnp.where(grown, reach, 0.0)), 0.0)
        met = base - gain * (u[:, None] * u[None])
        bonus = jnp.where(grown & ~bad, reach, 0.0)
        return jnp.where(bad, fresh, met), (bonus, bad)

    inverse, (bonus, bad) = jax.lax.scan(step, inverse, steps)
    return Followed(inverse, bonus, bad.sum())


def _dual(ridge: float, inverse: Float[Array, "d d"], steps: Steps) -> Followed:
    """Process one slot's steps at once, by matrix products and a Cholesky factorisation."""
    num_steps, size = steps.phi.shape
    # GPUs may use TF32 by default, which is too coarse for the differences below.
    dot = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    # [T]: index of the episode; 0 is the episode that was running before these steps.
    episode = jnp.cumsum(steps.first)
    # A row of zeros has bonus 0 and leaves P unchanged.
    phi = jnp.where(steps.known[:, None], steps.phi, 0.0)
    # `cummax` of `start` is, for each step, the index of the step at which the episode began. At
    # this index, `steps.begin` contains the first vector of the episode.
    start = jnp.where(steps.first, jnp.arange(num_steps), 0)
    begin = () if isinstance(steps.begin, tuple) else steps.begin[jax.lax.cummax(start)]
    # V = Φ P, with the carried P for episode 0 and the P of `_begun` for later episodes.
    reached = jnp.where((episode == 0)[:, None], dot(phi, inverse), _from_begun(ridge, begin, phi))
    within = episode[:, None] == episode[None]
    # V Φᵀ is block diagonal over episodes, and so is the Cholesky factor: episodes do not mix.
    gram = jnp.where(within, dot(reached, phi.T), 0.0)
    # The matrix is symmetrised, because rounding breaks the symmetry that Cholesky assumes.
    factor = jnp.linalg.cholesky(jnp.eye(num_steps) + (gram + gram.T) / 2)
    # b_t = L_tt² - 1, as in the module docstring; rounding may make it slightly negative.
    bonus = jnp.where(steps.known, jnp.maximum(jnp.diagonal(factor) ** 2 - 1, 0.0), 0.0)

    # Only the episode that is still running at the end determines the next P.
    going = episode == episode[-1]
    last = () if isinstance(begin, tuple) else begin[-1]
    base = jnp.where(episode[-1] == 0, inverse, _begun(ridge, last, size))
    rows = jnp.where(going[:, None], reached, 0.0)
    rows = jax.scipy.linalg.solve_triangular(factor, rows, lower=True)
    after = base - dot(rows.T, rows)  # P − Wᵀ W
    # All steps depend on one factorisation, so a failure invalidates the whole chunk. In `_scan`, a
    # failure invalidates a single step.
    bad = ~(jnp.isfinite(bonus).all() & jnp.isfinite(after).all())
    after = jnp.where(bad, jnp.eye(size) / ridge, after)
    return Followed(after, jnp.where(bad, 0.0, bonus), bad.astype(jnp.int32))


def _from_begun(ridge: float, begin: Array | tuple[()], phi: Float[Array, "T d"]) -> Array:
    """Multiply each row of Φ by P of an episode whose only vector is the same row of `begin`."""
    if isinstance(begin, tuple):
        return phi / ridge
    share = (begin * phi).sum(1) / (ridge + (begin**2).sum(1))
    return (phi - share[:, None] * begin) / ridge


class Places(NamedTuple):
    """Like `Steps`, but for one-hot vectors; each vector is given by the index of its 1."""

    phi: Int[Array, "T N"]
    begin: Int[Array, "T N"] | tuple[()]
    first: Bool[Array, "T N"]


def follow_places(
    inverse: Float[Array, "N Z"], places: Places, ridge: float
) -> tuple[Float[Array, "N Z"], Float[Array, "T N"]]:
    """Like `follow`, for one-hot φ: P is diagonal, and b = 1 / (n + λ) after n earlier visits.

    Args:
        inverse: Diagonal of P for each slot, before the rollout.
        places: Features of each step.
        ridge: λ.

    Returns:
        The diagonals of P after the rollout, and the bonus of each step.
    """
    slots = jnp.arange(inverse.shape[0])

    def step(inverse: Array, xs: Places) -> tuple[Array, Array]:
        # Adding a one-hot φ changes the entry p = 1 / (n + λ) to p / (1 + p) = 1 / (n + 1 + λ).
        inverse = jnp.where(xs.first[:, None], 1 / ridge, inverse)
        if not isinstance(xs.begin, tuple):
            here = inverse[slots, xs.begin]
            met = jnp.where(xs.first, here / (1 + here), here)
            inverse = inverse.at[slots, xs.begin].set(met)
        bonus = inverse[slots, xs.phi]
        return inverse.at[slots, xs.phi].set(bonus / (1 + bonus)), bonus

    return jax.lax.scan(step, inverse, places)
