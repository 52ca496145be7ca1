"""Presets for curricula with a teacher; the settings of students and level buffers are in `ued`.

`parity` has the settings of JaxUED, where the teacher has the same settings as the students.
`strong` has the settings of minimax, where mazes have 60 walls and the entropy coefficient of the
teacher is fifty times as large as that of the students.

Sources: Coward et al., 2024, "JaxUED: A simple and useable UED library in Jax"; Jiang et al., 2023,
"minimax: Efficient Baselines for Autocurricula in JAX".
"""

from rlgen.algos.recipes.presets.ued import LEARNING, REPLAY
from rlgen.types import Preset

_TEACHER_PARITY: Preset = {
    # Number of steps in an episode of JaxUED's editor.
    "editor.horizon": 50,
    "teacher.learning_rate": 1e-4,
    "teacher.anneal": True,
    "teacher.discount": 0.995,
    "teacher.gae_lambda": 0.98,
    "teacher.clip": 0.2,
    "teacher.value_clip": 0.2,
    "teacher.entropy_coef": 1e-3,
    "teacher.value_coef": 0.5,
    "teacher.num_epochs": 5,
    "teacher.num_minibatches": 1,
    "teacher.bptt_steps": 0,
    "teacher.max_grad_norm": 0.5,
    "teacher.normalize_advantage": True,
    "teacher.target_kl": 0.0,
    "teacher.adam_eps": 1e-5,
}

_TEACHER_STRONG: Preset = {
    **_TEACHER_PARITY,
    "editor.horizon": 62,  # 60 walls, the goal and the agent
    "teacher.anneal": False,
    "teacher.entropy_coef": 0.05,
}

_TEACHER_FAST: Preset = {
    **_TEACHER_PARITY,
    "teacher.learning_rate": 1e-3,
    "teacher.entropy_coef": 0.05,
}

_TEACHERS = {"parity": _TEACHER_PARITY, "strong": _TEACHER_STRONG, "fast": _TEACHER_FAST}

_STUDENTS: dict[str, Preset] = {
    # In JaxUED, the students of PAIRED use tanh, although the students of other methods do not. In
    # JaxUED, regret may be negative.
    "parity": {"student.learner.network.activation": "tanh", "score.non_negative": False},
    "strong": {
        # In minimax, the students of PAIRED have these values. The values for PLR differ; they are
        # in `ued.STRONG`.
        "student.learner.learning_rate": 1e-4,
        "student.learner.discount": 0.995,
        "student.learner.entropy_coef": 1e-3,
        "score.discount": 0.995,
        "score.non_negative": True,
    },
    "fast": {"score.non_negative": True},
}


def _with_teacher(learning: dict[str, Preset], owner: str) -> dict[str, Preset]:
    """Return the presets `learning` with the settings of the teacher and its students added.

    `owner` is the path of the sampler that contains the teacher, such as `sampler.source`.
    """
    return {
        name: {
            **preset,
            **_STUDENTS[name],
            **{f"{owner}.{path}": value for path, value in _TEACHERS[name].items()},
        }
        for name, preset in learning.items()
    }


TAUGHT = _with_teacher(LEARNING, "sampler")
"""Presets for levels that a teacher builds and that are played once."""

_REPAIRED = _with_teacher(REPLAY, "sampler.source")
TAUGHT_REPLAY: dict[str, Preset] = {
    # The replay probability of the REPAIRED runs in the code of Jiang et al., 2021.
    name: {**preset, "sampler.decision.replay_prob": 0.95}
    for name, preset in _REPAIRED.items()
}
"""Presets for levels that a teacher builds and a buffer keeps; 95 % of the updates replay."""
