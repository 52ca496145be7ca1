"""What the presets say of curricula over a finite set; see `ued` for the rest.

`parity`: the agent, the sizes and the quirks of the released code. `strong`: the same agent without
the quirks. `fast`: small batches as everywhere, and priorities that are less greedy, as short runs
see each level only a few times.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", and the code released with it.
"""

from rlgen.algos.recipes.presets.ued import FAST, PARITY
from rlgen.types import Preset

_QUEUE: Preset = {"levels_per_slot": 8}
"""Levels drawn for each slot; episodes of a good agent are short."""

_AGENT: Preset = {
    **PARITY,
    **_QUEUE,
    "num_slots": 36,
    "student.learner.network.activation": "tanh",
    "student.learner.anneal": False,
    "student.learner.entropy_coef": 0.0,
    "student.learner.gae_lambda": 0.95,
    "score.gae_lambda": 0.95,
}

_MIXTURE: Preset = {
    "sampler.capacity": 4000,
    "sampler.admit": "solved",
    "sampler.mixture.temperature": 0.1,
    "sampler.mixture.secondary_temperature": 1.0,
    "sampler.mixture.staleness_coef": 0.3,
    "sampler.mixture.share_start": 0.0,
    "sampler.mixture.share_end": 1.0,
    "sampler.mixture.stale": "data",
}

_QUIRKS: Preset = {
    "sampler.train_in_warmup": False,
    "sampler.single_chance": True,
    "sampler.sequential": True,
}

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
"""A finite set and what is added to it."""

_EDITS: Preset = {
    "sampler.mutator.num_edits": 5,
    "sampler.mutator.parents": "easiest",
    "sampler.mutator.num_parents": 4,
}

EDITED: dict[str, Preset] = {name: {**preset, **_EDITS} for name, preset in GROUNDED.items()}
"""The same, where edits are added."""


def _from(presets: dict[str, Preset], **changes: bool | float | str) -> dict[str, Preset]:
    own = {f"sampler.{path.replace('__', '.')}": value for path, value in changes.items()}
    return {name: {**preset, **own} for name, preset in presets.items()}


DATA_ONLY = _from(GROUNDED, mixture__share_end=0.0)
"""The set alone, by priority."""

UNMIXED = _from(
    EDITED,
    mixture__share_start=1.0,
    mixture__share_end=1.0,
    mixture__stale="all",
    mixture__secondary_temperature=0.1,
    admit="any",
)
"""The set and edits, all by one priority."""

UNIFORM: dict[str, Preset] = {
    "parity": _AGENT,
    "strong": {**_AGENT, **_WITHOUT},
    "fast": {**FAST, **_QUEUE},
}
"""The set alone, every level alike."""
