"""Gaps, unseen levels, and measures of a run, against values worked out by hand."""

import dataclasses
import json
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from rlgen.algos.samplers.fixed import Fixed
from rlgen.algos.samplers.random import Random
from rlgen.envs import maze
from rlgen.evaluation.episodes import Evaluation
from rlgen.evaluation.generalisation import gap
from rlgen.evaluation.generalisation.gap import (
    Gap,
    Gaps,
    LevelInformation,
    gaps_of,
    level_information,
    measure,
    shift_gap,
)
from rlgen.evaluation.generalisation.unseen_levels import some_levels, unseen_levels
from rlgen.evaluation.report import results
from rlgen.evaluation.report.curriculum_section import CurriculumSummary
from rlgen.evaluation.report.gap_section import print_gaps
from rlgen.evaluation.report.report import write_report
from rlgen.evaluation.stats.settings import Intervals
from rlgen.evaluation.zero_shot import Loaded, evaluate, policies_of
from rlgen.levels import Suite, take
from rlgen.protocols import Learner
from tests.standins.corridors import Forward, corridors, worth
from tests.standins.stubs import Unasked, Unplayed, Unrun

QUICK = Intervals(reps=400)


def evaluation(returns: np.ndarray, first_hash: int, name: str = "suite") -> Evaluation:
    num_levels = returns.shape[1]
    bits = np.stack([np.zeros(num_levels), first_hash + np.arange(num_levels)], 1)
    return Evaluation(
        "run", name, "1", tuple(f"level-{i}" for i in range(num_levels)), bits,
        np.full(num_levels, -1), np.full(num_levels, np.nan), returns,
        np.ones_like(returns), returns > 0.5,
    )  # fmt: skip


def chosen_of(env, num: int):
    return Fixed(env, num_levels=num).level_set


def test_the_gap_is_train_minus_test_of_each_seed():
    env, rng = maze.tiny(), np.random.default_rng(0)
    chosen = chosen_of(env, 6)
    train, test = rng.random((3, 6, 2)), rng.random((3, 4, 2))
    train_side = dataclasses.replace(
        evaluation(train, 0, "train"), level_hashes=np.asarray(chosen.hash)
    )
    found = gaps_of(train_side, evaluation(test, 100), chosen)
    by_hand = train.mean((1, 2)) - test.mean((1, 2))
    np.testing.assert_allclose(found.returns.per_seed, by_hand)
    assert float(found.returns.gap.value) == pytest.approx(by_hand.mean())
    assert isinstance(found.solve_rate, Gap)
    assert float(found.solve_rate.gap.value) == pytest.approx(
        (train > 0.5).mean() - (test > 0.5).mean()
    )
    assert found.returns.gap.low < by_hand.mean() < found.returns.gap.high
    assert (found.num_levels, found.num_played, found.num_unseen) == (6, 6, 4)


def test_levels_of_the_suite_that_were_trained_on_are_no_test():
    env = maze.tiny()
    chosen = chosen_of(env, 3)
    returns = np.array([[[1.0], [0.25], [0.0]]])
    suite = evaluation(returns, 500)
    mixed = dataclasses.replace(
        suite, level_hashes=np.concatenate([np.asarray(chosen.hash)[:1], suite.level_hashes[1:]])
    )
    train = dataclasses.replace(
        evaluation(np.ones((1, 3, 1)), 0), level_hashes=np.asarray(chosen.hash)
    )
    found = gaps_of(train, mixed, chosen)
    assert (found.num_unseen, found.num_suite) == (2, 3)
    assert float(found.returns.test.value) == pytest.approx(0.125)
    own = dataclasses.replace(suite, level_hashes=np.asarray(chosen.hash))
    with pytest.raises(ValueError, match=r"every level of .* is in the training set"):
        gaps_of(train, own, chosen)


def test_the_gap_of_each_seed_counts_and_its_level_effect_does_not():
    """Seeds differ by up to 4 on both sides, but the gap of each is 2."""
    seed = np.arange(5.0)[:, None, None]
    rng = np.random.default_rng(0)
    x, y = (rng.normal(0, 0.1, (1, m, 1)) for m in (40, 60))
    train, test = evaluation(seed + x + 2, 0), evaluation(seed + y, 500)
    found = gaps_of(train, test, chosen_of(maze.tiny(), 3)).returns
    np.testing.assert_allclose(found.per_seed, 2 + x.mean() - y.mean())
    # All spread of the gap is between levels.
    alone = np.sqrt(x.var(ddof=1) / 40 + y.var(ddof=1) / 60)
    pooled = np.sqrt((39 * x.var(ddof=1) + 59 * y.var(ddof=1)) / 98 * (1 / 40 + 1 / 60))
    error = max(alone, pooled)
    assert float(found.gap.high - found.gap.low) == pytest.approx(2 * 1.98 * error, rel=0.02)
    assert float(found.train.high - found.train.low) > 3


def test_unseen_levels_of_a_sampled_set_are_fresh_samples():
    env = maze.tiny()
    sampler = Fixed(env, num_levels=40)
    fresh = unseen_levels(env, sampler, 30)
    assert fresh is not None and len(fresh) == 30
    hashes = {bytes(x) for x in np.asarray(fresh.hash)}
    assert len(hashes) == 30
    assert hashes.isdisjoint(bytes(x) for x in np.asarray(sampler.level_set.hash))
    again = unseen_levels(env, sampler, 30)
    assert again is not None
    np.testing.assert_array_equal(fresh.hash, again.hash)
    assert unseen_levels(env, Random(env), 30) is None


def test_levels_from_elsewhere_have_no_unseen_ones_but_a_suites():
    env = maze.tiny()
    given = Fixed(env, levels=chosen_of(env, 5))
    assert unseen_levels(env, given, 4) is None

    @dataclasses.dataclass(frozen=True)
    class Split(Unplayed):
        both: tuple

        def suites(self):
            names = ("train", "test")
            made = {n: Suite(n, env, one) for n, one in zip(names, self.both, strict=True)}
            return {name: lambda one=one: one for name, one in made.items()}

    test = chosen_of(env, 9)  # its first five are the training set
    found = unseen_levels(Split((given.level_set, test)), given, 4)
    assert found is not None
    np.testing.assert_array_equal(found.hash, np.asarray(test.hash)[5:])


def test_the_set_inside_another_sampler_is_found():
    @dataclasses.dataclass(frozen=True)
    class Outer(Unasked):
        data: Fixed

        @property
        def level_set(self):
            return self.data.level_set

        @property
        def is_set_sampled(self):
            return self.data.is_set_sampled

    env = maze.tiny()
    sampled, given = Fixed(env, num_levels=4), Fixed(env, levels=chosen_of(env, 4))
    assert unseen_levels(env, Outer(sampled), 3) is not None
    assert unseen_levels(env, Outer(given), 3) is None


def test_a_large_set_is_played_in_part_and_always_the_same():
    levels = chosen_of(maze.tiny(), 30)
    assert some_levels(levels, 30) is levels
    part = some_levels(levels, 10)
    assert len(set(part.names)) == 10
    assert part.names == some_levels(levels, 10).names
    assert set(part.names) < set(levels.names)


@dataclasses.dataclass(frozen=True)
class Looking(Forward):
    """Learner that uses its observations as features."""

    def features(self, state, carry, obs, first):
        leaves = jax.tree.leaves(maze.tiny().unpack(obs))
        flat = [jnp.asarray(x, jnp.float32).reshape(*first.shape, -1) for x in leaves]
        return carry, jnp.concatenate(flat, axis=-1)


class Held(NamedTuple):
    level: Any


class Draws(NamedTuple):
    buffer: Held
    weight: Any


@dataclasses.dataclass(frozen=True)
class Weighted(Unasked):
    """Sampler that draws from a buffer with given weights."""

    def buffer(self, state):
        return state.buffer

    def replay_probability(self, state):
        return state.weight


class Hidden(Unasked):
    """Sampler with a buffer that does not report replay probabilities."""

    def buffer(self, state):
        return state.buffer


@dataclasses.dataclass(frozen=True)
class Evaluated(Unrun):
    """Student whose states are its learner's states."""

    learner: Learner

    def policy(self, states):
        return self.learner, states


def loaded(sampler: Any, states: Any, learner: Any = None) -> Loaded:
    student = Evaluated(learner or Forward())
    curriculum = SimpleNamespace(sampler=sampler, student=student)
    return Loaded("run", maze.tiny(), curriculum, jnp.zeros(2), {}, states)


@pytest.mark.thorough
@pytest.mark.parametrize("most", [512, 2])
def test_the_shift_gap_is_of_returns_as_drawn(most, monkeypatch):
    monkeypatch.setattr(gap, "MOST_LEVELS", most)
    weight = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]], np.float32)
    if most == 2:  # two of three levels are drawn: almost always the same one
        weight = np.array([[1e-9, 1.0, 1e-9], [1.0, 1e-9, 1e-9]], np.float32)
    held = jax.tree.map(lambda x: jnp.stack([x, x]), corridors().level)
    run = loaded(Weighted(), Draws(Held(held), jnp.asarray(weight)))
    train = evaluation(np.array([0.5, 0.25])[:, None, None] + np.zeros((1, 4, 3)), 0)
    found = shift_gap(run, policies_of(run), train)
    np.testing.assert_allclose(found, weight @ worth() - [0.5, 0.25], atol=1e-5)


def test_without_a_buffer_nothing_shifts_and_without_weights_nothing_is_known():
    train = evaluation(np.full((2, 4, 3), 0.5), 0)
    uniform = loaded(Fixed(maze.tiny(), num_levels=3), ())
    np.testing.assert_array_equal(shift_gap(uniform, policies_of(uniform), train), [0.0, 0.0])
    hidden = loaded(Hidden(), Draws(Held(()), ()))
    assert shift_gap(hidden, policies_of(hidden), train) == ()


@pytest.mark.thorough
def test_what_is_seen_in_corridors_tells_what_it_should():
    run, levels = loaded(None, (), Looking()), corridors()
    every = level_information(policies_of(run), levels)
    # The distance to the end identifies the level.
    np.testing.assert_allclose(every.raw, np.log(3), rtol=0.02)
    np.testing.assert_allclose(every.accuracy, 1.0)
    found = level_information(policies_of(run), take(levels, [0, 2, 0]))  # two are identical
    np.testing.assert_allclose(found.raw, np.log(3) - 2 / 3 * np.log(2), atol=0.02)
    np.testing.assert_allclose(found.per_seed, found.raw)
    assert found.most == pytest.approx(np.log(3))
    assert level_information(policies_of(loaded(None, ())), corridors()) == ()


@pytest.mark.thorough
def test_a_run_is_measured_against_its_set_and_a_suite():
    env = maze.tiny()
    levels = corridors()
    run = loaded(Fixed(env, levels=take(levels, [0, 1])), (), Looking())
    tested = evaluate(policies_of(run), Suite("all", env, levels), attempts=2)
    found = measure(run, tested)
    assert found is not None and isinstance(found.solve_rate, Gap)
    assert (found.num_played, found.num_unseen, found.num_suite) == (2, 1, 3)
    np.testing.assert_allclose(found.returns.per_seed, worth()[:2].mean(), rtol=1e-5)
    assert float(found.solve_rate.gap.value) == 1.0
    np.testing.assert_array_equal(found.shift_gap, [0, 0])
    assert measure(loaded(Unasked(), ()), tested) is None
    # A run without a training set uses a reference set; its sampler reports no shift.
    reference = Suite("known", env, take(levels, [0, 1]))
    beside = measure(loaded(Unasked(), (), Looking()), tested, reference=reference)
    assert beside is not None and beside.shift_gap == ()
    np.testing.assert_allclose(beside.returns.per_seed, found.returns.per_seed)
    assert measure(loaded(Fixed(env, levels=levels), ()), tested) is None  # all are training levels
    assert "generalisation" not in results.to_json([tested], QUICK)
    content: Any = results.to_json([tested], QUICK, gaps=[found])
    (block,) = content["generalisation"]
    assert block["solve_rate"]["gap"]["value"] == 1.0
    assert len(block["information"]["raw"]) == 2
    json.dumps(block, allow_nan=False)


def made_up(run: str, told: bool = True) -> tuple[Evaluation, Gaps]:
    env, rng = maze.tiny(), np.random.default_rng(0)
    train = dataclasses.replace(evaluation(rng.random((3, 4, 2)), 0), run=run)
    test = dataclasses.replace(evaluation(rng.random((3, 4, 2)), 100), run=run)
    gaps = gaps_of(train, test, chosen_of(env, 3))
    if told:
        nats = np.array([0.5, 1.0, 1.5])
        gaps = gaps._replace(information=LevelInformation(nats, nats, nats, nats / 2, 1.7))
    return test, gaps._replace(num_levels=9)


@pytest.mark.thorough
def test_gaps_are_in_the_table_and_on_the_page(tmp_path):
    (first, gaps), (second, others) = made_up("<b>one</b>"), made_up("two", told=False)
    console = Console(record=True, width=80)
    print_gaps([gaps, others], console)
    text = console.export_text()
    assert "1.00 of 1.70" in text and "a random 4 of 9 levels" in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    stories = {first.run: CurriculumSummary(gaps=gaps), second.run: CurriculumSummary(gaps=others)}
    page = write_report(tmp_path, [first, second], intervals=QUICK, curricula=stories).read_text()
    assert "<h2>Generalisation</h2>" in page and "<b>one" not in page
    assert "<h2>Curriculum</h2>" not in page
    assert (tmp_path / "generalisation.png").is_file()
    write_report(tmp_path, [first, second], intervals=QUICK)
    assert not (tmp_path / "generalisation.png").exists()
