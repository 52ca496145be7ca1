"""Presets for curricula over a finite set, built on the presets in `ued`.

`parity` has the agent, the sizes and the quirks of the code of Garcin et al. `strong` has the same
agent without the quirks. `fast` has small batches, like every preset `fast`, and less greedy
priorities, because short runs play each level only a few times. The symbols P_S, P_S' and η are
explained in `rlgen.algos.samplers.dred.Mixture`.

Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", and the code released with it.
"""

from rlgen.algos.recipes.presets.ued import FAST, PARITY
from rlgen.types import Preset

_QUEUE: Preset = {"levels_per_slot": 8}
"""Each slot gets 8 levels, because a good agent completes several episodes in one rollout."""

_AGENT: Preset = {
    **PARITY,
    **_QUEUE,
    "num_slots": 36,  # number of actors in the code of Garcin et al.
    "student.learner.network.activation": "tanh",
    "student.learner.anneal": False,
    "student.learner.entropy_coef": 0.0,
    "student.learner.gae_lambda": 0.95,
    "score.gae_lambda": 0.95,
}

_MIXTURE: Preset = {
    # The values of the code of Garcin et al. At temperature 0.1, P_S gives nearly all probability
    # to the level with the highest score.
    "sampler.capacity": 4000,
    "sampler.admit": "solved",
    "sampler.mixture.temperature": 0.1,
    "sampler.mixture.secondary_temperature": 1.0,
    "sampler.mixture.staleness_coef": 0.3,
    "sampler.mixture.share_start": 0.0,
    "sampler.mixture.share_end": 1.0,
    "sampler.mixture.stale": "data",
}

# Behaviour of the code of Garcin et al. that the method does not need.
_QUIRKS: Preset = {
    # The first pass through the set scores the levels without training on them.
    "sampler.train_in_warmup": False,
    # A proposal is evaluated only at the first position of its slot's queue.
    "sampler.single_chance": True,
    "sampler.sequential": True,
}

# Without the quirks, values are bootstrapped at time limits, and unfinished episodes are scored.
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
    # As in ACCEL-D and EL-DRED of Garcin et al., all mutants of an update are edits of 4 parents.
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

# η = 1 throughout, so that P_S' alone ranks the set and the edited levels. The temperature of P_S'
# is 0.1.
UNMIXED = _from(
    EDITED,
    mixture__share_start=1.0,
    mixture__share_end=1.0,
    mixture__stale="all",
    mixture__secondary_temperature=0.1,
    admit="any",
)
"""Presets for a finite set and edited levels, with one priority for all these levels."""

UNIFORM: dict[str, Preset] = {
    "parity": _AGENT,
    "strong": {**_AGENT, **_WITHOUT},
    "fast": {**FAST, **_QUEUE},
}
"""Presets for uniform sampling of the set."""
