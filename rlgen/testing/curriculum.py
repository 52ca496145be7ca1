"""Laws that samplers and scores must satisfy; see `rlgen.testing`.

A slot keeps its levels for one or more updates, its *tenancy*, during which the slot is *busy*.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from rlgen.protocols import Sampler, Score
from rlgen.returns import episodes
from rlgen.testing.common import (
    assert_close,
    assert_component,
    assert_same,
    assert_shapes,
    new_slots,
    random_rollout,
)
from rlgen.types import MUTANT, NEW, Keys, LifetimeResults, Outcome, PyTree, Rollout, Slots


def check_sampler(
    sampler: Sampler, num_slots: int = 4, levels_per_slot: int = 2, memory: PyTree = 0.0
) -> None:
    """Check that a sampler changes no busy slot and no shape, and replays only observed levels.

    Runs 24 updates with random scores; each update ends half of the tenancies on average.

    - Busy slots are returned unchanged, bit for bit.
    - States and slots keep their structure, shapes and dtypes, so that updates can be scanned.
    - Rows of the buffer lie in -1 .. `capacity` - 1; weights are finite and 0 or more.
    - A level from a row was scored in an earlier update, or belongs to the sampler's finite set.

    Args:
        sampler: sampler to check.
        num_slots, levels_per_slot: number of slots, N, and of levels in the queue of each slot, R.
        memory: initial memory of a score for one level.
    """
    assert_component(sampler, Sampler)
    memory = jax.tree.map(jnp.asarray, memory)
    slots = _first_slots(sampler, (num_slots, levels_per_slot), memory)
    state = jax.jit(sampler.init)(jax.random.key(0), memory)
    free = jnp.ones(num_slots, bool)
    evidence = _evidence(num_slots, levels_per_slot)

    @jax.jit
    def update(key: Array, state: PyTree, slots: Slots, free: Array) -> tuple:
        key_sampler, key_score, key_done = jax.random.split(key, 3)
        keys = Keys(key_sampler, key_sampler)  # may be equal, since there is only one seed
        proposed, slots = sampler.propose(keys, state, slots, free)
        score = jax.random.uniform(key_score, slots.buffer_index.shape)
        done = jax.random.bernoulli(key_done, 0.5, free.shape)
        outcome = evidence._replace(done=done)
        return sampler.observe(keys, proposed, slots, score, outcome), slots, done

    assert_shapes(
        jax.eval_shape(update, jax.random.key(0), state, slots, free)[:2],
        (state, slots),
        f"{type(sampler).__name__}'s state and slots",
    )
    observed = _given(sampler)
    for i in range(24):
        state, after, done = update(jax.random.key(i), state, slots, free)
        busy = ~np.asarray(free)
        kept, before = jax.tree.map(lambda x, busy=busy: x[busy], (after, slots))
        assert_same(kept, before, "propose changed a busy slot")
        held = sampler.buffer(state)
        _check_proposed(after, observed, None if held is None else held.score.shape[0])
        ended = np.flatnonzero(done).tolist()
        observed |= {_bytes(after.level, n, r) for n in ended for r in range(levels_per_slot)}
        slots, free = after, done


def _first_slots(sampler: Sampler, shape: tuple[int, int], memory: PyTree) -> Slots:
    """Slots whose levels are all the example level."""
    level = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), sampler.example_level()
    )
    return new_slots(level, memory, sampler.level_info())


def _evidence(num_slots: int, levels_per_slot: int) -> Outcome:
    """Synthetic outcome of two learners, with the episode statistics of the first learner."""
    played = random_rollout(0, 24, num_slots, levels_per_slot)
    rollout = jax.tree.map(lambda x: jnp.stack([x, x]), played)
    stats = episodes(played, levels_per_slot, played.terminated)
    return Outcome(jnp.ones(num_slots, bool), rollout, episodes=stats)


def _given(sampler: Sampler) -> set[bytes]:
    """Levels of the sampler's finite set, as bytes."""
    if sampler.level_set is None:
        return set()
    level = jax.tree.map(lambda x: x[:, None], sampler.level_set.level)
    return {_bytes(level, m, 0) for m in range(len(sampler.level_set))}


def check_score(score: Score, levels_per_slot: int = 2, population: int = 2) -> None:
    """Check that the score of a slot depends only on the slot's own extrinsic data.

    - Scores are [N, R] and never NaN. The score's memories of levels keep their structure, shapes
      and dtypes.
    - Reordering the slots reorders the scores accordingly.
    - Scores do not depend on the bonus.

    Args:
        score: score to check.
        levels_per_slot: number of levels in the queue of a slot, R.
        population: P, number of learners whose rollouts are scored.
    """
    assert_component(score, Score)
    num_slots = 6
    rollouts = [random_rollout(seed, 40, num_slots, levels_per_slot) for seed in range(population)]
    rollout = jax.tree.map(lambda *x: jnp.stack(x), *rollouts)
    slots = new_slots(_levels(score, num_slots, levels_per_slot), score.initial_state())
    lifetimes, done = _lives(num_slots), jnp.ones(num_slots, bool)

    @jax.jit
    def judge(slots: Slots, rollout: Rollout, lifetimes: LifetimeResults) -> tuple:
        one = jax.tree.map(lambda x: x[0], rollout)
        stats = episodes(one, levels_per_slot, one.terminated)
        return score(jax.random.key(0), slots, Outcome(done, rollout, lifetimes, stats))

    value, memory = judge(slots, rollout, lifetimes)
    assert value.shape == (num_slots, levels_per_slot), (
        f"scores have shape {value.shape}, not [N, R]"
    )
    assert not np.isnan(value).any(), "a score is NaN"
    assert_shapes(memory, slots.score_state, "the memories of levels")

    order = np.array([3, 0, 5, 1, 4, 2])
    # The carry has axes other than [P, T, N], so it is not reordered; scores do not read it.
    moved = rollout._replace(carry=())
    moved = jax.tree.map(lambda x: x[:, :, order], moved)._replace(carry=rollout.carry)
    slots_moved, lives_moved, expected = jax.tree.map(
        lambda x: x[order], (slots, lifetimes, (value, memory))
    )
    judged = judge(slots_moved, moved, lives_moved)
    assert_close(judged, expected, "scores depend on the order of the slots")
    # Compared bit for bit, because a score that reads only extrinsic data does the same computation
    # for any bonus.
    curious = rollout._replace(bonus=rollout.bonus + 7.0)
    assert_same(judge(slots, curious, lifetimes), (value, memory), "a bonus changed a score")


def _lives(num_slots: int) -> LifetimeResults:
    """Synthetic lifetimes, some without an antagonist and some incomplete."""
    rng = np.random.default_rng(0)
    student, antagonist = jnp.asarray(rng.normal(size=(2, num_slots)), jnp.float32)
    slot = jnp.arange(num_slots)
    return LifetimeResults(
        student, jnp.where(slot % 3 == 1, jnp.nan, antagonist), complete=slot % 4 != 2
    )


def _levels(score: Score, num_slots: int, levels_per_slot: int) -> PyTree:
    """Levels [N, R, ...] of the score's environment; zeros if the score has no environment."""
    env = getattr(score, "env", None)  # a field of some scores only
    if env is None:
        return jnp.zeros((num_slots, levels_per_slot))
    keys = jax.random.split(jax.random.key(1), (num_slots, levels_per_slot))
    return jax.jit(jax.vmap(jax.vmap(env.sample_level)))(keys)


def _check_proposed(slots: Slots, observed: set[bytes], capacity: int | None) -> None:
    row, weight, origin = (np.asarray(x) for x in (slots.buffer_index, slots.weight, slots.origin))
    assert (row >= -1).all(), f"row {row.min()} is below -1"
    assert capacity is None or (row < capacity).all(), f"row {row.max()} >= {capacity}"
    assert np.isfinite(weight).all() and (weight >= 0).all(), f"weights {weight}"
    assert ((origin >= NEW) & (origin <= MUTANT)).all(), f"origins {origin}"
    for n, r in np.argwhere(row >= 0).tolist():
        known = _bytes(slots.level, n, r) in observed
        assert known, f"slot {n} replays row {row[n, r]}, whose level was never observed"


def _bytes(level: PyTree, n: int, r: int) -> bytes:
    # Levels are compared by content, because the number of a row does not show whether the level in
    # the row was observed.
    return b"".join(np.asarray(x)[n, r].tobytes() for x in jax.tree.leaves(level))
