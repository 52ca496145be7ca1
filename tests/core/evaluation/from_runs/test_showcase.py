"""The animations of a report: a failed episode on the worst level, and the best solved one."""

import io
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageSequence

from rlgen.envs import maze
from rlgen.envs.grid.bitboard import FORWARD
from rlgen.evaluation.from_runs.showcase import Tries, _best, _told, _worst, level_images, replays
from rlgen.evaluation.report.images import gif_bytes
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import Suite, make_level_set, take
from tests.standins.stubs import Untaught


@dataclass(frozen=True)
class Forward(Untaught):
    """Learner that walks straight on, with rollout lengths that do not divide the time limit."""

    bptt_steps: int = 7

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jnp.full(first.shape, FORWARD), zero, zero


def make_suite():
    """Return a suite of corridors: the goal is 2 or 4 cells ahead, or behind the agent."""
    env = maze.tiny()
    mazes = (">.G..\n", ">...G\n", "G.<..\n", "G.>..\n")
    levels = [env.from_text(row + "#####\n" * 4) for row in mazes]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *levels)
    names = ("near", "far", "left", "never")
    return Suite("maze/rows", env, make_level_set(env, stacked, names))


@pytest.mark.thorough
def test_evaluation_and_animation_of_a_policy_that_is_known():
    suite = make_suite()
    policies = Policies("forward", suite.env, Forward(), jnp.zeros(2), {})
    found = evaluate(policies, suite, attempts=3)
    success = np.asarray(found.success)
    assert success.shape == (2, 4, 3)
    np.testing.assert_array_equal(success.all((0, 2)), [True, True, True, False])
    np.testing.assert_array_equal(found.length[0, :, 0], [2, 4, 2, 20])
    np.testing.assert_allclose(found.relative_return[:, :3], 1.0, rtol=1e-6)

    failed, solved = replays(policies, suite, found).items()
    assert failed[0] == (
        "forward, seed 0, on never: not solved in 20 steps (solved 0 % of the time, 2 × 3 episodes)"  # noqa: RUF001
    )
    assert "far: solved in 4 steps (solved 100 % of the time" in solved[0]
    assert [num_frames(gif) for _, gif in (failed, solved)] == pytest.approx([20, 4], abs=0.3)
    assert list(level_images(suite)) == ["near", "far", "left", "never"]

    easy = suite._replace(levels=take(suite.levels, slice(3)))
    (caption,) = replays(policies, easy, evaluate(policies, easy, attempts=3))
    assert "far: solved in 4 steps" in caption  # the longest of the tied levels; no episode failed


def num_frames(gif):
    """Count frames by duration, since equal ones merge: 12 per second, plus a second at the end."""
    shown = ImageSequence.Iterator(Image.open(io.BytesIO(gif)))
    return (sum(frame.info["duration"] for frame in shown) - 1000) * 12 / 1000


def tries(solved, length, total, over=True):
    return Tries(solved, np.full(len(length), over), np.array(length), np.array(total), ())


def test_the_first_failure_and_the_shortest_success_are_picked():
    some = tries(np.array([True, False, True, False]), [9, 20, 5, 18], [1.0, 0, 1, 0])
    assert (_worst(some), _best(some)) == (1, 2)
    assert _worst(tries(np.ones(2, bool), [9, 7], [1.0, 1])) is None
    assert _best(tries(np.zeros(2, bool), [9, 7], [0.0, 0])) is None


def test_without_success_the_lowest_and_the_highest_return_are_picked():
    some = tries((), [9, 20, 5], [0.5, -2.0, 3.25])
    assert (_worst(some), _best(some)) == (1, 2)
    assert _told(some, 2, "return over all 1") == "return 3.25 in 5 steps (return over all 1)"


def test_an_unfinished_episode_is_reported_as_such():
    some = tries(np.zeros(1, bool), [400], [0.0], over=False)
    assert _told(some, 0, "of all") == "not solved within the first 400 steps (of all)"


def test_gif_frames_come_back_exactly_and_the_last_is_held():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 6, (5, 8, 10, 3), dtype=np.uint8) * 50
    with Image.open(io.BytesIO(gif_bytes(frames, fps=20, hold=2))) as gif:
        shown, times = [], []
        for frame in ImageSequence.Iterator(gif):
            shown.append(np.asarray(frame.convert("RGB")))
            times.append(frame.info["duration"])
        assert gif.info["loop"] == 0
    np.testing.assert_array_equal(shown, frames)
    assert times == [50, 50, 50, 50, 2050]


def test_gif_of_many_colours_is_close():
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    frame = np.stack([*np.meshgrid(ramp, ramp), np.zeros((32, 32), np.uint8)], axis=-1)
    frames = np.stack([frame, frame[::-1]])
    with Image.open(io.BytesIO(gif_bytes(frames))) as gif:
        error = np.abs(np.asarray(gif.convert("RGB"), int) - frames[0])
    assert error.mean() < 10


@pytest.mark.parametrize(
    ("shape", "fps", "message"),
    [
        ((0, 2, 2, 3), 10, "must be uint8"),
        ((1, 2, 2, 3), 99, "at most 50"),
        ((1, 2, 2, 3), 0, "50"),
    ],
)
def test_a_gif_that_cannot_be_is_refused(shape, fps, message):
    with pytest.raises(ValueError, match=message):
        gif_bytes(np.zeros(shape, np.uint8), fps)
