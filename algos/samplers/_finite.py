"""What `DRED` remembers of its levels, and how it judges what was played."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rlgen.buffer import LevelBuffer, update
from rlgen.protocols import Score
from rlgen.registry import require
from rlgen.types import REPLAY, Episodes, Outcome, PyTree, Slots

from ._lineage import Lineage


class Known(NamedTuple):
    """What the buffer keeps of each level beside its score; [K, ...] there."""

    score: PyTree  # the score's memory
    lineage: Lineage
    solved: Bool[Array, "*K"]  # at least once
    mean_return: Float[Array, "*K"]  # when it was last played to an end; -inf: never


class Trial(NamedTuple):
    """What came of the proposal in each slot, over all places of its queue."""

    score: Float[Array, " N"]
    solved: Bool[Array, " N"]
    mean_return: Float[Array, " N"]  # -inf if no episode was completed
    memory: PyTree  # [N, ...] the score's


def check_fields(dred: Any) -> None:
    """Refuse fields of a `DRED` that are out of range or at odds.

    Raises:
        ValueError: with what is allowed instead.
    """
    num_data = len(dred.data.level_set)
    needed = num_data + dred.has_proposals
    if dred.capacity < needed:
        raise ValueError(
            f"capacity={dred.capacity} is below the {num_data} levels of the set"
            f"{' and a row for proposals' if dred.has_proposals else ''}; set it to at least "
            f"{needed}"
        )
    if dred.num_edits < 0 or dred.num_parents < 1:
        raise ValueError(
            f"num_edits must be at least 0 and num_parents at least 1, got {dred.num_edits} and "
            f"{dred.num_parents}"
        )
    if dred.num_edits > 0:
        require(dred.env, "mutate_levels", "a curriculum that edits levels (num_edits > 0)")
        if not isinstance(dred.source, tuple):
            raise ValueError(
                f"num_edits={dred.num_edits} makes proposals by edits, and a source is given "
                "too; set num_edits to 0 or source to ()"
            )
    for name, known in (("parents", ("batch", "easiest")), ("admit", ("solved", "any"))):
        if getattr(dred, name) not in known:
            raise ValueError(
                f"{name} must be {known[0]!r} or {known[1]!r}, got {getattr(dred, name)!r}"
            )


def first_known(score: Score, lineage: Lineage) -> Known:
    """Of a level that was never played."""
    return Known(score.memory(), lineage, jnp.zeros((), bool), jnp.full((), -jnp.inf))


def take_back(
    buffer: LevelBuffer, slots: Slots, score: Float[Array, "N R"], outcome: Outcome
) -> LevelBuffer:
    """The buffer once it has taken in what came of the levels that it had given away.

    Rows are stamped if they were played. If a row was in several places, the last of those with a
    score counts, and it is solved if it was in any.
    """
    stats = outcome.episodes
    assert isinstance(stats, Episodes)
    given = (outcome.done & (slots.origin == REPLAY))[:, None] & (slots.row >= 0)
    row = jnp.where(given, slots.row, buffer.score.size)  # out of bounds is dropped
    safe = jnp.where(given, slots.row, 0)
    held = jax.tree.map(lambda x: x[safe], buffer.memory)
    solved = given & (stats.num_success > 0)
    mean = jnp.where(stats.num > 0, stats.mean_return, held.mean_return)
    known = Known(slots.memory, slots.note.lineage, held.solved | solved, mean)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), known)
    buffer = update(buffer, slots.row.ravel(), score.ravel(), flat, given.ravel())
    played = given & _played(outcome, slots.row.shape)
    stamp = buffer.clock + jnp.cumsum(played.ravel()).reshape(played.shape)
    at = jnp.where(played, row, buffer.score.size)
    memory = buffer.memory._replace(solved=buffer.memory.solved.at[row].max(solved, mode="drop"))
    return buffer._replace(
        memory=memory,
        timestamp=buffer.timestamp.at[at].max(stamp, mode="drop"),
        clock=buffer.clock + played.sum(),
    )


def judge(slots: Slots, score: Float[Array, "N R"], outcome: Outcome, single_chance: bool) -> Trial:
    """What came of the proposals, of which every slot has one in all its places.

    Scores and returns are means over the places that have any. The memory is that of the place with
    the best episode.

    Args:
        slots: as played.
        score: of each place.
        outcome: with episodes.
        single_chance: judge by the first place alone.
    """
    stats = outcome.episodes
    assert isinstance(stats, Episodes)
    if single_chance:
        score, stats = jax.tree.map(lambda x: x[:, :1], (score, stats))
    scored = jnp.isfinite(score)
    mean = jnp.where(scored, score, 0.0).sum(1) / jnp.maximum(scored.sum(1), 1)
    num = stats.num.sum(1)
    mean_return = (stats.mean_return * stats.num).sum(1) / jnp.maximum(num, 1)
    best = stats.max_return.argmax(1)
    return Trial(
        score=jnp.where(scored.any(1), mean, -jnp.inf),
        solved=(stats.num_success > 0).any(1),
        mean_return=jnp.where(num > 0, mean_return, -jnp.inf),
        memory=jax.tree.map(lambda x: x[jnp.arange(best.size), best], slots.memory),
    )


def _played(outcome: Outcome, shape: tuple[int, ...]) -> Bool[Array, "N R"]:
    """Which places were reached within the update."""
    if not outcome.rollout:
        return jnp.ones(shape, bool)
    turn = outcome.rollout.turn[0]
    here: Int[Array, "N R"] = jnp.broadcast_to(jnp.arange(shape[1])[None], shape)
    return (turn[:, :, None] == here[None]).any(0)
