"""Means over ended episodes: null where none ended, weighted, and with a warning of their bias.

Episodes of `standins.ticking` have a known length and reward, so that all means are known.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.samplers.fixed import Fixed
from rlgen.curriculum import Curriculum
from rlgen.runs import training
from rlgen.runs.callbacks import Callback, Chunk
from rlgen.runs.episode_limit import longest_episode, start_warnings
from rlgen.runs.metrics import Counters
from rlgen.runs.progress import Silent, Status, describe
from rlgen.runs.spec import RunSpec, build
from rlgen.students import OnPolicy
from rlgen.testing import new_slots
from tests.paths import TESTS
from tests.standins.idle import Idle, Unscored
from tests.standins.stubs import Unplayed
from tests.standins.ticking import REWARD, Ticking

T = 6  # steps of a rollout
ENV = Ticking(limit=100)


@pytest.fixture(autouse=True)
def _standins(monkeypatch):
    monkeypatch.syspath_prepend(TESTS)


def played(lengths, num_updates=1, **fields):
    """Play one tenancy in slots whose episodes have the given lengths; metrics of each update."""
    student = OnPolicy(ENV, Idle(), T, **fields)
    level = jax.vmap(jax.vmap(ENV.make_level))(jnp.asarray(lengths)[:, None])
    slots = new_slots(level, ())

    def update(state, xs):
        key, fresh = xs
        fresh = jnp.broadcast_to(fresh, (len(lengths),))
        state, _, metrics = student.run(key, state, slots, fresh)
        return state, metrics

    xs = jax.random.split(jax.random.key(2), num_updates), jnp.arange(num_updates) == 0
    state = student.init(jax.random.key(1), len(lengths))
    return jax.jit(lambda: jax.lax.scan(update, state, xs))()[1]


def by_hand(lengths, num_updates):
    """Play the slots one step at a time; returns of ended and of cut off episodes, by update."""
    ended, cut = [[] for _ in range(num_updates)], []
    for length in lengths:
        steps = 0
        for t in range(num_updates * T):
            steps += 1
            if steps == length:
                ended[t // T].append(REWARD * steps)
                steps = 0
        cut += [REWARD * steps] * (steps > 0)
    return ended, cut


def test_without_an_ended_episode_there_is_no_mean():
    found = played([10, 10])
    assert found["num_episodes"] == 0 and found["num_unfinished"] == 2
    assert np.isnan(found["episode_return"]) and np.isnan(found["episode_length"])
    assert found["unfinished_return"] == REWARD * T


def test_without_an_episode_that_is_cut_off_there_is_no_return_so_far():
    found = played([3, 6])
    assert found["num_unfinished"] == 0 and np.isnan(found["unfinished_return"])
    assert found["episode_return"] == pytest.approx(REWARD * (3 + 3 + 6) / 3)


@pytest.mark.parametrize("num_updates", [1, 2])
@pytest.mark.parametrize("population", [1, 2])
def test_ended_and_unfinished_episodes_are_those_of_a_slow_loop(num_updates, population):
    """In a tenancy of several updates, an episode that continues is not cut off."""
    lengths = [2, 3, 4, 10, 7, 40]
    found = played(lengths, num_updates, updates_per_level=num_updates, population=population)
    ended, cut = by_hand(lengths, num_updates)
    for name in ("", "antagonist_")[:population]:
        for u in range(num_updates):
            assert found[f"{name}num_episodes"][u] == len(ended[u])
            assert found[f"{name}episode_return"][u] == pytest.approx(np.mean(ended[u]))
        assert found[f"{name}num_unfinished"].tolist() == [0] * (num_updates - 1) + [len(cut)]
        assert found[f"{name}unfinished_return"][-1] == pytest.approx(np.mean(cut))
        assert np.isnan(found[f"{name}unfinished_return"][:-1]).all()


def test_a_mean_over_a_chunk_gives_every_episode_the_same_weight():
    """Means of each seed first: (3 * 1 + 1 * 5) / 4 = 2 and 4; the third seed has no episode."""
    nan = np.nan
    values = {
        "episode_return": np.array([[1.0, nan, nan], [5.0, 4.0, nan]]),
        "num_episodes": np.array([[3, 0, 0], [1, 7, 0]]),
        "solve_rate": np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 1.0]]),
        "loss": np.full((2, 3), nan),
    }
    counts = {"episode_return": "num_episodes"}
    chunk = Chunk((), values, (), {}, [Counters()], 1.0, True, counts)  # pyright: ignore
    means = chunk.means()
    assert means["episode_return"] == pytest.approx((2 + 4) / 2)
    assert means["solve_rate"] == pytest.approx(4 / 6)  # over slots, so not weighted by episodes
    assert np.isnan(means["loss"])


def test_what_is_averaged_over_episodes_is_declared_with_its_count():
    counts = OnPolicy(ENV, Idle(), T, population=2, updates_per_level=2).averaged_over
    assert counts["antagonist_solve_rate"] == "antagonist_num_episodes"
    assert counts["solve_rate"] == "num_episodes"
    assert "solve_rate" not in OnPolicy(ENV, Idle(), T).averaged_over
    found = played([2, 10], 2, updates_per_level=2, population=2)
    assert set(counts.values()) <= set(found)


def test_progress_says_that_no_episode_ended():
    nan = float("nan")
    some = {"episode_return": nan, "unfinished_return": 3.0, "solve_rate": 0.0}
    text = describe(Status(1, 2, 10.0, 1.0, 1.0, some))
    assert "no episode ended  unfinished return 3.00  solved 0%" in text
    some["episode_return"] = 2.0
    text = describe(Status(1, 2, 10.0, 1.0, 1.0, some))
    assert "return 2.00" in text and "no episode" not in text and "unfinished" not in text
    text = describe(Status(1, 2, 10.0, 1.0, 1.0, {"loss": 1.0}))  # a student without episodes
    assert "no episode" not in text


class Heard(Silent):
    """Reporter that keeps all messages and statuses."""

    def __init__(self):
        self.said, self.shown = [], []

    def say(self, text):
        self.said.append(text)

    def show(self, status):
        self.shown.append(describe(status))


class Means(Callback):
    """Callback that keeps the means of the chunks."""

    def __init__(self):
        self.means = []

    def after_chunk(self, run, chunk):
        self.means.append(chunk.means())


def spec(limit=10, num_steps=6, updates_per_level=1, length=10, **changes):
    """Return a spec of 4 updates in chunks of 2."""
    fields = {"length": length, "limit": limit}
    overrides = {"student.num_steps": num_steps, "student.updates_per_level": updates_per_level}
    base = RunSpec("standins.idle", "standins.ticking", "", env_fields=fields, overrides=overrides)
    return dataclasses.replace(base, steps=4 * 2 * num_steps, chunk=2, **changes)


def test_a_run_whose_episodes_never_end_writes_null_and_says_so(tmp_path):
    heard, kept = Heard(), Means()
    training.train(spec(seeds=2), tmp_path / "run", training.Options(heard, callbacks=(kept,)))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4
    for line in map(json.loads, lines):
        assert line["episode_return"] == line["episode_length"] == [None, None]
        assert line["unfinished_return"] == [REWARD * T] * 2 and line["num_unfinished"] == [2, 2]
    assert len(heard.shown) == 2
    assert all("no episode ended  unfinished return 3.00" in text for text in heard.shown)
    warned = [text for text in heard.said if text.startswith("warning: ")]
    assert len(warned) == 1 and "episodes can last 10 steps" in warned[0]


def test_in_a_tenancy_of_two_updates_one_update_has_no_episode_and_the_chunk_has(tmp_path):
    heard, kept = Heard(), Means()
    long = spec(updates_per_level=2)
    training.train(long, tmp_path / "run", training.Options(heard, callbacks=(kept,)))
    lines = [
        json.loads(line)["episode_return"]
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == [[None], [REWARD * 10]] * 2
    assert [means["episode_return"] for means in kept.means] == [REWARD * 10] * 2
    assert not [text for text in heard.said if text.startswith("warning: ")]


@pytest.mark.parametrize(
    ("limit", "num_steps", "updates_per_level"),
    [(6, 6, 1), (7, 6, 1), (12, 6, 2), (13, 6, 2), (1000, 20, 25), (500, 20, 25), (501, 20, 25)],
)
def test_the_warning_appears_where_the_limit_exceeds_the_tenancy(
    limit, num_steps, updates_per_level
):
    told = start_warnings(*build(spec(limit, num_steps, updates_per_level)))
    assert bool(told) == (limit > num_steps * updates_per_level)
    if not told:
        return
    assert f"can last {limit:,} steps" in told[0]
    assert f"after {num_steps * updates_per_level:,} steps" in told[0]
    words = told[0].split()
    for option, own in (("updates-per-level", updates_per_level), ("num-steps", num_steps)):
        better = int(words[words.index(f"--student.{option}") + 1])
        given = {"num_steps": num_steps, "updates_per_level": updates_per_level}
        given[option.replace("-", "_")] = better
        assert start_warnings(*build(spec(limit, **given))) == [], "the advice does not help"
        one_less = given | {option.replace("-", "_"): better - own}
        assert limit > one_less["num_steps"] * one_less["updates_per_level"], "more than needed"


def test_the_longest_episode_is_that_of_the_training_set():
    data = Fixed(ENV, num_levels=1)
    of_set = dataclasses.replace(data.level_set.level, max_steps_in_episode=jnp.array([77]))
    object.__setattr__(data, "level_set", dataclasses.replace(data.level_set, level=of_set))
    curriculum = Curriculum(OnPolicy(ENV, Idle(), T), data, Unscored(), num_slots=2)
    assert longest_episode(ENV, curriculum) == 77


def test_levels_without_a_time_limit_give_no_warning():
    class Endless(Unplayed):
        def sample_level(self, key):
            return jnp.zeros(())

    _, curriculum = build(spec())
    assert longest_episode(Endless(), curriculum) == 0
    assert start_warnings(Endless(), curriculum) == []
