"""Streams share no level, count rejected levels, and are reproducible."""

import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.envs.chain import Chain
from rlgen.envs.classic_control.cart_pole import CartPole
from rlgen.envs.corridors import Corridors
from rlgen.envs.maze import Maze
from rlgen.evaluation.ladder.ladder import (
    Trained,
    climb,
    is_one_level,
    shifted,
    shifts_of,
    trained_on,
)
from rlgen.evaluation.ladder.streams import VERSION, TooFewError, digest, draw_streams, suite_stream
from rlgen.levels import DistributionShift, Suite, make_level_set, words
from tests.standins.stubs import Unrun

NAMES = ("train", "validation", "test")
SHORT = Chain(length=(2, 6))  # ten levels
SMALL = Maze(height=2, width=3, num_walls=3, max_steps=20)


def contents(levels):
    """Return each level's arrays as bytes, which the hashes represent."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(levels.level)]
    return [b"".join(x.tobytes() for x in row) for row in zip(*leaves, strict=True)]


@pytest.fixture(scope="module")
def mazes():
    return draw_streams(SMALL, NAMES, 60, set())


def test_no_level_is_in_two_streams_or_twice_in_one_and_all_can_be_solved(mazes):
    every = [one for stream in mazes for one in contents(stream.suite.levels)]
    assert len(every) == len(set(every)) == 180
    for stream in mazes:
        assert (np.asarray(stream.suite.levels.optimal_steps) > 0).all()
    assert mazes[0].rejected["of an earlier stream"] == 0
    assert mazes[2].rejected["of an earlier stream"] > 0
    assert all(stream.rejected["unsolvable"] > 0 for stream in mazes)


def test_rejected_levels_are_counted_as_a_slow_loop_counts_them():
    found = draw_streams(SHORT, NAMES, 3, set())
    seen: set[bytes] = set()
    for name, stream in zip(NAMES, found, strict=True):
        key = jax.random.key(zlib.crc32(f"chain/{name}/v{VERSION}".encode()))
        own: list[bytes] = []
        again = earlier = i = 0
        while len(own) < 3:
            level = _sample(jax.random.split(jax.random.fold_in(key, i), 128))
            for content in contents(SimpleNamespace(level=level)):
                if len(own) == 3:
                    break
                again += content in own
                earlier += content in seen
                if content not in own and content not in seen:
                    own.append(content)
            i += 1
        seen |= set(own)
        assert contents(stream.suite.levels) == own
        assert stream.rejected == {
            "repeated": again, "of an earlier stream": earlier, "unsolvable": 0,
        }  # fmt: skip


@jax.jit
def _sample(keys):
    return jax.vmap(SHORT.sample_level)(keys)


def test_a_name_gives_the_same_levels_for_ever():
    found = draw_streams(SHORT, NAMES, 3, set())
    assert [digest(stream.suite.levels) for stream in found] == DIGESTS
    assert [stream.suite.name for stream in found] == [f"chain/{name}" for name in NAMES]
    assert [stream.suite.levels.split for stream in found] == list(NAMES)


def test_a_small_family_gives_all_that_it_has_and_is_refused_more():
    found = draw_streams(SHORT, ["train", "test"], 5, set())
    assert len({one for stream in found for one in contents(stream.suite.levels)}) == 10
    with pytest.raises(TooFewError, match=r"gave 2 levels for the stream test, .* needs 4"):
        draw_streams(SHORT, ["train", "validation", "test"], 4, set())


def test_levels_of_training_are_on_no_other_rung():
    sampler = Fixed(SHORT, num_levels=4, seed=3)
    curriculum = SimpleNamespace(student=Unrun(), sampler=sampler)
    loaded = SimpleNamespace(env=SHORT, curriculum=curriculum)
    trained = trained_on(Path(), loaded)
    assert trained is not None
    found = climb(SHORT, 2, {"run": trained, "other": None}, [curriculum], ("V0", "V1"))
    assert set(words(found.own["run"].stream.suite.levels.hash)) <= set(words(trained.hashes))
    assert len(found.own["run"].stream.suite.levels) == 2
    new = [found.own["other"], *found.rungs]  # without knowledge of the run, V0 is `train`
    assert [rung.name for rung in new] == ["train", "test"]
    every = [*words(trained.hashes), *(w for r in new for w in words(r.stream.suite.levels.hash))]
    assert len(every) == len(set(every)) == 8


def test_the_set_of_training_can_use_a_family_up():
    level = jax.vmap(SHORT.sample_level)(jax.random.split(jax.random.key(0), 200))
    trained = Trained(level, np.asarray(make_level_set(SHORT, level).hash), "all")
    with pytest.raises(TooFewError, match="chain gave 0 levels for the stream train"):
        climb(SHORT, 2, {"run": trained})


def test_a_family_of_one_level_has_nothing_but_v0():
    env = Corridors(num_corridors=3, length=2, max_steps=4)
    assert is_one_level(env) and not is_one_level(SHORT)
    found = climb(env, 5, chosen=("V0", "V1"))
    assert [len(rung.stream.suite.levels) for rung in found.of("")] == [1]
    assert found.missing == ("V1: corridors has a single level, so V0 is the only rung",)


def test_a_suite_gives_the_levels_that_are_left():
    level = jax.vmap(SHORT.sample_level)(jax.random.split(jax.random.key(0), 200))
    whole = make_level_set(SHORT, level)
    taken = set(words(whole.hash[:3]))
    found = suite_stream(Suite("chain/whole", SHORT, whole), "ood-some", 4, taken.copy())
    assert len(found.suite.levels) == 4 and found.suite.levels.split == "ood-some"
    assert taken.isdisjoint(words(found.suite.levels.hash))
    again = [words(whole.hash).count(word) for word in taken]
    assert found.rejected["of an earlier stream"] == sum(again)
    assert found.rejected["repeated"] == 200 - 10 - sum(again) + len(taken)
    with pytest.raises(TooFewError, match="every level of chain/whole"):
        suite_stream(Suite("chain/whole", SHORT, whole), "test", 4, set(words(whole.hash)))


def test_shifts_change_what_they_say():
    denser = shifted(
        SMALL, "dense", DistributionShift("V2", "of no walls", fields={"num_walls": 0}), 2, set()
    )
    assert denser.suite.env == replace(SMALL, num_walls=0)
    beyond = climb(CartPole(), 4, chosen=("V2",)).rungs
    assert [(one.rung, one.name) for one in beyond] == [("V2", "beyond"), ("V2", "far")]
    low, high = CartPole().gravity
    names = [n for one in beyond for n in one.stream.suite.levels.names]
    levels = [x for one in beyond for x in np.asarray(one.stream.suite.levels.level.gravity)]
    pairs = zip(names, levels, strict=True)
    assert all((x < low or x > high) == name.startswith("gravity") for name, x in pairs)
    with pytest.raises(ValueError, match="needs either a suite or fields"):
        shifted(SMALL, "none", DistributionShift("V2", "nothing"), 2, set())


def test_a_ladder_follows_from_the_fields():
    assert list(shifts_of(Maze())) == [
        "dense", "large", "named", "four-rooms", "crossing", "perfect",
    ]  # fmt: skip
    assert "dense" not in shifts_of(Maze(num_walls=100))
    assert shifts_of(Corridors(sharing=0.0)) == {}


DIGESTS = ["54f7fc59", "df1c1224", "f7cce764"]
