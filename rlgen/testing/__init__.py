"""Laws that every component must satisfy, and probe environments with known answers, for tests.

    from rlgen.testing import check_env

    def test_laws():
        check_env(MyEnvironment())

If a law is violated, the `check_…` function raises `AssertionError` with an explanation. Each of
these functions compiles a few small programs and takes seconds. `solve_probes` trains a learner on
seven probe tasks at once.
"""

from rlgen.testing.bonus import check_bonus
from rlgen.testing.common import assert_close, assert_same, assert_shapes, new_slots, random_rollout
from rlgen.testing.curriculum import check_sampler, check_score
from rlgen.testing.env import check_env, check_held_out
from rlgen.testing.learner import check_fields_matter, check_learner
from rlgen.testing.probes import PROBES, Answer, Probe, ProbeLevel, solve_probes
from rlgen.testing.suites import check_suites

__all__ = [
    "PROBES",
    "Answer",
    "Probe",
    "ProbeLevel",
    "assert_close",
    "assert_same",
    "assert_shapes",
    "check_bonus",
    "check_env",
    "check_fields_matter",
    "check_held_out",
    "check_learner",
    "check_sampler",
    "check_score",
    "check_suites",
    "new_slots",
    "random_rollout",
    "solve_probes",
]
