"""ACCEL-D: ACCEL whose level buffer starts with a finite set of levels.

The set is never removed from the buffer. The replay probability of a level is computed in the same
way whether the level belongs to the set or is a mutant.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", where ACCEL-D is a baseline.
"""

from rlgen.algos.recipes.presets.finite import UNMIXED
from rlgen.algos.samplers.dred import DRED, Mixture
from rlgen.algos.samplers.fixed import own_set
from rlgen.algos.samplers.replay.pool import Mutator
from rlgen.curriculum import Curriculum
from rlgen.protocols import LevelEnv
from rlgen.students import student_and_score

PRESETS = UNMIXED


def build(env: LevelEnv, learner: str = "ppo-lstm", score: str = "l1-value-loss") -> Curriculum:
    """Build ACCEL-D over the environment's suite `train`, or else over sampled levels.

    `sampler.data.path` selects another set.
    """
    student, judge = student_and_score(env, learner, score)
    # η = 1 leaves only P_S', to which this recipe gives the temperature of P_S. Staleness covers
    # all levels. The set and the mutants are therefore treated alike. `Mixture` explains the
    # symbols.
    mixture = Mixture(secondary_temperature=0.1, share_start=1.0, stale="all")
    sampler = DRED(
        env, own_set(env), mixture=mixture, mutator=Mutator(parents="easiest"), admit="any"
    )
    return Curriculum(student, sampler, judge, levels_per_slot=8)
