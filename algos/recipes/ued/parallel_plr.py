"""Parallel robust PLR: new levels and replayed ones side by side in every update.

Source: Jiang et al., 2023, "minimax: Efficient Baselines for Autocurricula in JAX".
"""

import dataclasses

from rlgen.algos.recipes.presets.ued import REPLAY, in_blocks
from rlgen.algos.samplers.plr import PLR, Blocks
from rlgen.algos.samplers.random import Random
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = in_blocks(REPLAY, 2)


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """Half of the slots are learned from, so every update has a gradient once replay has begun."""
    student, judge = student_and_score(env, learner, score)
    sampler = PLR(env, Random(env), train_on_new=False, decision=Blocks())
    student = dataclasses.replace(student, train_share=sampler.train_share)
    return Curriculum(student, sampler, judge, num_slots=64)
