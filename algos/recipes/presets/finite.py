"""Presets for curricula over a finite set, built on those in `ued`.

`parity`: the agent, the sizes and the quirks of the released code. `strong`: that agent without the
quirks. `fast`: small batches, as in all `fast` presets, and less greedy priorities, because short
runs play each level only a few times.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", and the code released with it.
"""

from rlgen.algos.recipes.presets.ued import FAST, PARITY
from rlgen.types import Preset

_QUEUE: Preset = {"levels_per_slot": 8}
"""Number of levels drawn for each slot: a good agent completes several episodes in one rollout."""

_AGENT: Preset = {
    **PARITY,
    **_QUEUE,
    "num_slots": 36,  # actors of the released code
    "student.learner.network.activation": "tanh",
    "student.learner.anneal": False,
    "student.learner.entropy_coef": 0.0,
    "student.learner.gae_lambda": 0.95,
    "score.gae_lambda": 0.95,
}

_MIXTURE: Preset = {
    # The values of the released code. With P_S at temperature 0.1, nearly all of its probability is
    # on the level with the highest score.
    "sampler.capacity": 4000,
    "sampler.admit": "solved",
    "sampler.mixture.temperature": 0.1,
    "sampler.mixture.secondary_temperature": 1.0,
    "sampler.mixture.staleness_coef": 0.3,
    "sampler.mixture.share_start": 0.0,
    "sampler.mixture.share_end": 1.0,
    "sampler.mixture.stale": "data",
}

# Behaviour of the released code that is not needed for the method.
_QUIRKS: Preset = {
    # The first pass through the set only scores it.
    "sampler.train_in_warmup": False,
    # Only the first completed episode of a proposal decides.
    "sampler.single_chance": True,
    "sampler.sequential": True,
}

# Without the quirks: time limits bootstrap, and unfinished episodes count for the score.
_WITHOUT: Preset = {
    "student.learner.bootstrap_truncation": True,
    "score.bootstrap_truncation": True,
    "score.completed_only": False,
}

GROUNDED: dict[str, Preset] = {
    "parity": {**_AGENT, **_MIXTURE, **_QUIRKS},
    "strong": {**_AGENT, **_WITHOUT, **_MIXTURE},
    "fast": {**FAST, **_QUEUE, **_MIXTURE, "sampler.mixture.temperature": 1.0},
}
"""Presets for a finite set with generated levels."""

_EDITS: Preset = {
    # The edits of the released ACCEL-D and EL-DRED: four parents share all mutants of an update.
    "sampler.mutator.num_edits": 5,
    "sampler.mutator.parents": "easiest",
    "sampler.mutator.num_parents": 4,
}

EDITED: dict[str, Preset] = {name: {**preset, **_EDITS} for name, preset in GROUNDED.items()}
"""Presets for a finite set with levels created by edits."""


def _from(presets: dict[str, Preset], **changes: bool | float | str) -> dict[str, Preset]:
    # A keyword cannot contain a dot: mixture__stale stands for sampler.mixture.stale.
    own = {f"sampler.{path.replace('__', '.')}": value for path, value in changes.items()}
    return {name: {**preset, **own} for name, preset in presets.items()}


DATA_ONLY = _from(GROUNDED, mixture__share_end=0.0)
"""Presets for prioritised replay of the set alone."""

# η = 1 throughout: one priority P_S' for the set and the edited levels, as sharp as P_S.
UNMIXED = _from(
    EDITED,
    mixture__share_start=1.0,
    mixture__share_end=1.0,
    mixture__stale="all",
    mixture__secondary_temperature=0.1,
    admit="any",
)
"""Presets for the set and edited levels under one priority."""

UNIFORM: dict[str, Preset] = {
    "parity": _AGENT,
    "strong": {**_AGENT, **_WITHOUT},
    "fast": {**FAST, **_QUEUE},
}
"""Presets for uniform sampling of the set."""
