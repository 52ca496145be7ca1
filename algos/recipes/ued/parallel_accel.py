"""Parallel ACCEL: every update plays new levels, replayed levels and mutants of replayed levels.

Source: Jiang et al., 2023, "minimax: Efficient Baselines for Autocurricula in JAX".
"""

import dataclasses

from rlgen.algos.recipes.presets.ued import EDITING, in_blocks
from rlgen.algos.samplers.plr import PLR, Blocks
from rlgen.algos.samplers.random import Random
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = in_blocks(EDITING, 3)


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "max-mc") -> Curriculum:
    """Build parallel ACCEL: once replay has begun, every update trains on a third of the slots."""
    student, judge = student_and_score(env, learner, score)
    sampler = PLR(
        env, Random(env), train_on_new=False, mutator=Mutator(num_edits=5), decision=Blocks()
    )
    # The learner's batches contain only as many slots as can have a weight above 0.
    student = dataclasses.replace(student, train_share=sampler.train_share)
    return Curriculum(student, sampler, judge, num_slots=96)
