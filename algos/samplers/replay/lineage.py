"""Where replayed and edited levels come from, and which of them become parents."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from rlgen.types import Outcome, PyTree, Slots


class Lineage(NamedTuple):
    """Where a level comes from; [K] in the buffer, [N, R] in the slots."""

    origin: Int[Array, "*B"]  # NEW or MUTANT
    depth: Int[Array, "*B"]  # edits of edits: 0 from the source, 1 its child, ...
    born: Int[Array, "*B"]  # the update in which it was first met


class Remembered(NamedTuple):
    """What the buffer keeps of each level beside its score."""

    score: PyTree  # the score's memory
    lineage: Lineage


class Note(NamedTuple):
    """What is noted of each level in the slots."""

    source: PyTree  # the source's own
    lineage: Lineage


def born(origin: int, depth: Int[Array, "N R"], update: Int[Array, ""]) -> Lineage:
    """The lineage of levels that are met for the first time."""
    return Lineage(jnp.full_like(depth, origin), depth, jnp.ones_like(depth) * update)


def easiest_rows(
    slots: Slots, score: Float[Array, "N R"], outcome: Outcome, num_parents: int
) -> Int[Array, " P"]:
    """Rows of the replayed levels of highest mean return minus score; -1 where there are fewer.

    A row that was drawn twice counts once; one without a completed episode or a score, not at all.

    Source: Parker-Holder et al., 2022, "Evolving Curricula with Regret-Based Environment Design":
    the levels that the agent solves with the least regret. (The code released with it sorts by the
    same difference but takes the lowest values.)

    Raises:
        ValueError: the student does not report its episodes.
    """
    if not outcome.episodes:
        raise ValueError("parents='easiest' needs a student that reports its episodes")
    ease = outcome.episodes.mean_return - score
    known = (outcome.episodes.num > 0) & jnp.isfinite(score) & (slots.row >= 0)
    ease = jnp.where(known & outcome.done[:, None], ease, -jnp.inf).ravel()
    row = slots.row.ravel()
    earlier = jnp.tril((row[:, None] == row[None]) & jnp.isfinite(ease)[None], k=-1).any(-1)
    num = min(num_parents, row.size)
    best, place = jax.lax.top_k(jnp.where(earlier, -jnp.inf, ease), num)
    chosen = jnp.where(jnp.isfinite(best), row[place], -1)
    return jnp.concatenate([chosen, jnp.full(num_parents - num, -1, jnp.int32)])
