"""The lineage of levels: where they come from, which become parents, and how they are edited."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.parallel.seeds import any_over_seeds, tree_where
from rlgen.protocols import LevelEnv
from rlgen.types import MUTANT, Key, Outcome, PyTree, Slots


class Lineage(NamedTuple):
    """Where a level comes from; [K] in the buffer, [N, R] in the slots."""

    origin: Int[Array, "*B"]  # NEW or MUTANT
    depth: Int[Array, "*B"]  # edits of edits: 0 from the source, 1 its child, ...
    born: Int[Array, "*B"]  # the update in which it was first met


class StoredInfo(NamedTuple):
    """What the buffer keeps of each level beside its score."""

    score_state: PyTree  # the score's
    lineage: Lineage


class SlotInfo(NamedTuple):
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
    """
    assert outcome.episodes, "samplers that ask declare that they read episodes"
    ease = outcome.episodes.mean_return - score
    known = (outcome.episodes.num > 0) & jnp.isfinite(score) & (slots.buffer_index >= 0)
    ease = jnp.where(known & outcome.done[:, None], ease, -jnp.inf).ravel()
    row = slots.buffer_index.ravel()
    earlier = jnp.tril((row[:, None] == row[None]) & jnp.isfinite(ease)[None], k=-1).any(-1)
    num = min(num_parents, row.size)
    best, place = jax.lax.top_k(jnp.where(earlier, -jnp.inf, ease), num)
    chosen = jnp.where(jnp.isfinite(best), row[place], -1)
    return jnp.concatenate([chosen, jnp.full(num_parents - num, -1, jnp.int32)])


def edit_into(
    key: Key,
    env: LevelEnv,
    parents: Callable[[], tuple[PyTree, Int[Array, "N R"]]],
    num_edits: int,
    slots: Slots,
    mutant: Bool[Array, " N"],
    now: Int[Array, ""],
) -> Slots:
    """The slots with mutants, of weight 0, in those that are to have some; a branch.

    Args:
        key: consumed.
        env: which edits.
        parents: a parent for each place, [N, R, ...], and how deep it is.
        num_edits: of each mutant.
        slots: as they were; their `level_info` is a `SlotInfo`.
        mutant: which slots to fill.
        now: number of this update, which the mutants are born in.
    """

    def edit() -> Slots:
        level, depth = parents()
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), level)
        flat = env.mutate_levels(key, flat, num_edits)
        child = Slots(
            level=jax.tree.map(lambda x, y: x.reshape(y.shape), flat, slots.level),
            score_state=slots.score_state,
            buffer_index=jnp.full_like(slots.buffer_index, -1),
            origin=jnp.full_like(slots.origin, MUTANT),
            weight=jnp.zeros_like(slots.weight),
            level_info=SlotInfo(slots.level_info.source, born(MUTANT, depth + 1, now)),
        )
        return tree_where(mutant, child, slots)

    return jax.lax.cond(any_over_seeds(mutant.any()), edit, lambda: slots)
