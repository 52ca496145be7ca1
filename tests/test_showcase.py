"""The animation in a report: the shortest solved episode on the hardest level that was solved."""

import io
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageSequence

from rlgen.envs import maze
from rlgen.evaluation.showcase import episode_gif, level_images
from rlgen.evaluation.zero_shot import Policies, evaluate
from rlgen.levels import Suite, make_level_set


@dataclass(frozen=True)
class Forward:
    """Walks straight on; its rollouts come in parts that do not divide the time limit."""

    bptt_steps: int = 7

    def init(self, key):
        return ()

    def initial_carry(self, num_slots):
        return ()

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jnp.full(first.shape, maze.FORWARD), zero, zero

    def value(self, state, carry, obs, first):
        return jnp.zeros(first.shape)

    def update(self, key, state, rollout, weight):
        return state, {}


def make_suite():
    """Three corridors: the goal two and four cells ahead, and behind."""
    env = maze.tiny()
    mazes = (">.G..\n", ">...G\n", "G.<..\n", "G.>..\n")
    levels = [env.from_text(row + "#####\n" * 4) for row in mazes]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *levels)
    names = ("near", "far", "left", "never")
    return Suite("maze/rows", env, make_level_set(env, stacked, names))


def test_evaluation_and_animation_of_a_policy_that_is_known():
    suite = make_suite()
    policies = Policies("forward", suite.env, Forward(), jnp.zeros(2), {})
    found = evaluate(policies, suite, attempts=3)
    success = np.asarray(found.success)
    assert success.shape == (2, 4, 3)
    np.testing.assert_array_equal(success.all((0, 2)), [True, True, True, False])
    np.testing.assert_array_equal(found.length[0, :, 0], [2, 4, 2, 20])
    np.testing.assert_allclose(found.relative_return[:, :3], 1.0, rtol=1e-6)

    ((caption, gif),) = episode_gif(policies, suite, found).items()
    assert "far: 4 steps" in caption
    assert len(list(ImageSequence.Iterator(Image.open(io.BytesIO(gif))))) == 4
    assert list(level_images(suite)) == ["near", "far", "left", "never"]
