"""Random levels and finite training sets."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.samplers import fixed
from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.random import Random
from rlgen.levels import LevelSet, make_level_set
from rlgen.types import REPLAY, Keys, Outcome, Slots
from tests.standins.stubs import Unplayed

N, R = 6, 3


@dataclass(frozen=True)
class Numbers(Unplayed, abstract=True):
    """Family of `num_kinds` levels; a level is a number and its square root."""

    num_kinds: int = 1_000_000

    def sample_level(self, key):
        number = jax.random.randint(key, (), 0, self.num_kinds)
        return {"number": number, "root": jnp.sqrt(number.astype(jnp.float32))}


class Filed(Numbers):
    """Numbers that can be loaded from a "file" whose name lists them."""

    def load_levels(self, path):
        numbers = jnp.asarray([int(x) for x in str(path).split("-")])
        return make_level_set(self, {"number": numbers, "root": jnp.sqrt(numbers)})


def slots_of(sampler, shape=(N, R)):
    blank = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), sampler.example_level()
    )
    return Slots(
        level=blank,
        score_state=jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape),
        buffer_index=jnp.full(shape, 7, jnp.int32),
        origin=jnp.full(shape[0], REPLAY, jnp.int32),
        weight=jnp.full(shape[0], 0.25),
    )


def keys_of(seed):
    return Keys(jax.random.key(seed), jax.random.key(1000 + seed))


def propose(sampler, seed, free=None, state=None, shape=(N, R)):
    state = sampler.init(jax.random.key(0), ()) if state is None else state
    free = jnp.ones(shape[0], bool) if free is None else free
    return sampler.propose(keys_of(seed), state, slots_of(sampler, shape), free)


SAMPLERS = {
    "random": Random(Numbers()),
    "fixed": Fixed(Numbers(), num_levels=5),
    "shuffled": Fixed(Numbers(), num_levels=5, shuffle=True),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", SAMPLERS)
def test_free_slots_get_new_levels_and_busy_ones_stay_bit_for_bit(name):
    sampler = SAMPLERS[name]
    free = jnp.arange(N) % 2 == 0
    before = slots_of(sampler)
    _, after = propose(sampler, 3, free)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        np.testing.assert_array_equal(x[~free], y[~free])
    assert (after.buffer_index[free] == -1).all()
    assert (after.origin[free] == 0).all()
    assert (after.weight[free] == 1.0).all()
    assert (after.level["number"][free] != before.level["number"][free]).any()
    np.testing.assert_allclose(
        after.level["root"], jnp.sqrt(after.level["number"].astype(jnp.float32)), rtol=1e-6
    )


def test_every_place_of_a_random_queue_gets_its_own_level():
    _, slots = propose(SAMPLERS["random"], 0)
    assert len(np.unique(slots.level["number"])) == N * R
    _, again = propose(SAMPLERS["random"], 0)
    _, other = propose(SAMPLERS["random"], 1)
    np.testing.assert_array_equal(slots.level["number"], again.level["number"])
    assert not (slots.level["number"] == other.level["number"]).any()


def test_levels_of_a_training_set_are_uniform_at_every_place():
    """A baseline meant to be uniform once played only 2 of its 512 levels."""
    num_levels, num_draws = 20, 2000
    sampler = Fixed(Numbers(), num_levels=num_levels)

    @jax.jit
    def number(seed):
        return propose_numbers(sampler, seed)

    drawn = np.asarray(jax.vmap(number)(jnp.arange(num_draws)))
    index = {int(x): i for i, x in enumerate(sampler.level_set.level["number"])}
    drawn = np.vectorize(index.__getitem__)(drawn)  # a level from outside the set fails here
    for place in np.ndindex(N, R):
        counts = np.bincount(drawn[(slice(None), *place)], minlength=num_levels)
        expected = num_draws / num_levels
        assert ((counts - expected) ** 2 / expected).sum() < 51  # 19 degrees of freedom; p = 1e-4
    # Two positions of one proposal are independent: all pairs are equally frequent.
    pairs = np.bincount(drawn[:, 0, 0] * num_levels + drawn[:, 1, 2], minlength=num_levels**2)
    expected = num_draws / num_levels**2
    assert ((pairs - expected) ** 2 / expected).sum() < 512  # 399 degrees of freedom; p = 1e-4


def propose_numbers(sampler, seed):
    keys = Keys(jax.random.key(seed), jax.random.key(0))
    state = sampler.init(jax.random.key(0), ())
    free = jnp.ones(N, bool)
    return sampler.propose(keys, state, slots_of(sampler), free)[1].level["number"]


@pytest.mark.thorough
def test_shuffled_epochs_hand_out_every_level_once():
    for num_levels in (5, 18, 50):  # smaller than, equal to and larger than a batch
        sampler = Fixed(Numbers(), num_levels=num_levels, shuffle=True)
        state, stream = sampler.init(jax.random.key(0), ()), []
        free = jnp.arange(N) != 2  # only levels given to free slots count
        for seed in range(20):
            state, slots = propose(sampler, seed, free, state)
            stream.extend(np.asarray(slots.level["number"])[np.asarray(free)].ravel())
        epochs = [stream[i : i + num_levels] for i in range(0, len(stream), num_levels)]
        whole = [e for e in epochs if len(e) == num_levels]
        members = sorted(np.asarray(sampler.level_set.level["number"]))
        assert all(sorted(e) == members for e in whole)
        assert len(whole) > 1
        assert whole[0] != whole[1]


def test_a_training_set_depends_on_its_seed_and_not_on_the_keys():
    first, same = Fixed(Numbers(), 50), Fixed(Numbers(), 50)
    other, fewer = Fixed(Numbers(), 50, seed=1), Fixed(Numbers(), 49)
    assert first == same
    assert hash(first) == hash(same)
    assert len({sampler.digest for sampler in (first, same, other, fewer)}) == 3
    assert len(first.level_set) == len(np.unique(first.level_set.level["number"])) == 50
    assert first.level_set.split == "train"
    assert replace(first, seed=1) == other


def test_a_small_family_gives_the_levels_it_has_with_a_warning():
    with pytest.warns(UserWarning, match="num_levels=100, but .* include only 7 distinct ones"):
        sampler = Fixed(Numbers(num_kinds=7), num_levels=100)
    assert len(sampler.level_set) == 7
    assert sorted(np.asarray(sampler.level_set.level["number"])) == list(range(7))


def test_levels_from_a_file_or_a_set_are_used_without_duplicates():
    env = Filed()
    by_path = fixed.build(env, levels="4-9-4-16")
    by_set = Fixed(env, levels=env.load_levels("4-9-16"))
    assert isinstance(by_path.level_set, LevelSet)
    for sampler in (by_path, by_set):
        np.testing.assert_array_equal(sampler.level_set.level["number"], [4, 9, 16])
        assert sampler.num_levels == 3
    assert by_path.digest == by_set.digest
    assert by_path.level_set.names == ("test-0000", "test-0001", "test-0003")


def test_impossible_training_sets_are_refused_with_the_reason():
    env = Filed()
    with pytest.raises(ValueError, match="num_levels must be at least 1, got 0"):
        Fixed(env, num_levels=0)
    with pytest.raises(ValueError, match="either path or levels"):
        Fixed(env, path="1-2", levels=env.load_levels("1"))
    with pytest.raises(ValueError, match="Numbers has no load_levels"):
        Fixed(Numbers(), path="1-2")


@pytest.mark.thorough
@pytest.mark.parametrize("name", SAMPLERS)
def test_seeds_under_vmap_equal_single_ones(name):
    sampler, seeds = SAMPLERS[name], jnp.arange(3)

    def run(seed):
        state = sampler.init(jax.random.key(seed), ())
        keys = Keys(jax.random.key(seed), jax.random.key(0))
        free, slots = jnp.ones(N, bool), slots_of(sampler)
        state, slots = sampler.propose(keys, state, slots, free)
        score = jnp.zeros((N, R))
        state = sampler.observe(keys, state, slots, score, Outcome(free))
        return sampler.propose(keys, state, slots, free)

    many = jax.vmap(run)(seeds)
    for i in range(3):
        one = run(seeds[i])
        jax.tree.map(lambda x, y, i=i: np.testing.assert_array_equal(x[i], y), many, one)
