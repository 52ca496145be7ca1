"""Slots filled with edited levels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rlgen.branching import any_seed, where
from rlgen.protocols import LevelEnv
from rlgen.types import MUTANT, Key, PyTree, Slots

from ._lineage import Note, born


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
        slots: as they were; their notes are `Note`s.
        mutant: which slots to fill.
        now: number of this update, which the mutants are born in.
    """

    def edit() -> Slots:
        level, depth = parents()
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), level)
        mutate = getattr(env, "mutate_levels")  # noqa: B009 (an optional ability)
        flat = mutate(key, flat, num_edits)
        child = Slots(
            level=jax.tree.map(lambda x, y: x.reshape(y.shape), flat, slots.level),
            memory=slots.memory,
            row=jnp.full_like(slots.row, -1),
            origin=jnp.full_like(slots.origin, MUTANT),
            weight=jnp.zeros_like(slots.weight),
            note=Note(slots.note.source, born(MUTANT, depth + 1, now)),
        )
        return where(mutant, child, slots)

    return jax.lax.cond(any_seed(mutant.any()), edit, lambda: slots)
