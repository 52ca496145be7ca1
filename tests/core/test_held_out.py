"""No level of a sealed suite enters training, however the level was made."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import held_out
from rlgen.algos.samplers import dred, fixed, generated, lifetimes, ncc, paired, plr, random, sfl
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.envs.maze import Maze
from rlgen.levels import Suite, make_level_set, plain_level, words
from rlgen.types import Keys
from tests.standins.idle import AnyScore, Idle

N, UPDATES = 9, 24
ENV = Maze(height=3, width=3, num_walls=2, max_steps=20)


@pytest.fixture(autouse=True)
def half_held_out(monkeypatch):
    """Hold out half of the sampled levels of small mazes, so that every sampler meets many."""
    monkeypatch.setattr(Maze, "suites", lambda self: {"half": lambda: half(self)})
    monkeypatch.setattr(Maze, "suite_fields", None)
    forget()
    yield
    forget()


def forget():
    held_out._held_out.cache_clear()
    held_out._rejection.cache_clear()
    fixed._sample.cache_clear()


def half(env, split="test"):
    level = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(7), 4096))
    word = np.asarray(jax.vmap(env.level_hash)(level))
    rows = np.flatnonzero(word[:, 1] % 2 == 0)
    held = make_level_set(env, jax.tree.map(lambda x: x[rows], level), split=split)
    return Suite("maze/half", env, held)


def of_suite():
    return set().union(*map(words, held_out.held_out(ENV).values()))


SAMPLERS = {
    "random": lambda: random.tiny(ENV),
    "plr": lambda: plr.tiny(ENV),
    "accel": lambda: replace(plr.tiny(ENV), mutator=Mutator(num_edits=2)),
    "parallel-accel": lambda: replace(
        plr.tiny(ENV), decision=plr.Blocks(), mutator=Mutator(num_edits=2)
    ),
    "paired": lambda: paired.tiny(ENV),
    "repaired": lambda: replace(plr.tiny(ENV), source=paired.tiny(ENV)),
    "sfl": lambda: sfl.tiny(ENV),
    "ncc": lambda: ncc.tiny(ENV),
    "generated": lambda: generated.tiny(ENV),
    "dred": lambda: dred.DRED(
        ENV, fixed.Fixed(ENV, num_levels=4), generated.tiny(ENV), capacity=16
    ),
    "accel-d": lambda: dred.DRED(
        ENV, fixed.Fixed(ENV, num_levels=4), mutator=Mutator(num_edits=2), capacity=16
    ),
    "lifetimes": lambda: lifetimes.tiny(ENV),
}


def trained(sampler, tenancy=1, num_seeds=1):
    """Hashes and origins of all levels in the slots, [S, U, N], and the final states."""
    curriculum = Curriculum(Idle(ENV, 1, tenancy), sampler, AnyScore(), num_slots=N)

    def show(met):
        level = jax.tree.map(lambda x: x[:, 0], plain_level(met.slots.level))
        return jax.vmap(ENV.level_hash)(level), met.slots.origin

    @jax.jit
    def run(key, shared):
        ts = curriculum.init(key)
        ts, _, shown = curriculum.train_and_show(ts, Keys(key, shared), jnp.int32(0), UPDATES, show)
        return ts, shown

    keys = jax.random.split(jax.random.key(3), num_seeds)
    run = jax.vmap(run, (0, None)) if num_seeds > 1 else run
    ts, (hashes, origin) = run(keys if num_seeds > 1 else keys[0], jax.random.key(4))
    return ts, np.asarray(hashes), np.asarray(origin)


@pytest.mark.parametrize(
    "name",
    [
        "accel",
        *(pytest.param(x, marks=pytest.mark.thorough) for x in SAMPLERS if x != "accel"),
    ],
)
def test_no_sampler_trains_on_held_out_levels(name, monkeypatch):
    ts, hashes, origin = trained(SAMPLERS[name]())
    bad = of_suite()
    assert bad.isdisjoint(words(hashes.reshape(-1, 2)))
    buffer = SAMPLERS[name]().buffer(ts.sampler)
    if buffer is not None:
        assert int(buffer.size) > 0
        assert bad.isdisjoint(words(np.asarray(buffer.hash)[: int(buffer.size)]))
    # Without the rejection, the levels of each origin include held-out levels.
    monkeypatch.setattr("rlgen.curriculum.rejection", lambda env: None)
    _, before, kinds = trained(SAMPLERS[name]())
    for kind in set(kinds.ravel().tolist()) - {1} | set(origin.ravel().tolist()) - {1}:
        assert not bad.isdisjoint(words(before[kinds == kind])), f"no held-out level of {kind}"
