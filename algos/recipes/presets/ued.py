"""Presets for curricula over random levels, as data: dotted path of a field -> value.

`parity` has the configuration of JaxUED, for comparison, with mazes of 25 walls. `strong` has the
settings of minimax, the best published ones, with mazes of 60 walls. `fast` was chosen by the
measured time that training takes to reach a given score on held-out levels. A path is skipped if
the curriculum has no such field, for example because another score was chosen. The environment's
part of a preset comes from `env.presets()`.

Sources: Coward et al., 2024, "JaxUED: A simple and useable UED library in Jax"; Jiang et al., 2023,
"minimax: Efficient Baselines for Autocurricula in JAX".
"""

from rlgen.types import Preset


def _advantage(discount: float, gae_lambda: float, bootstrap_truncation: bool) -> Preset:
    """Return equal advantage settings for the learner and for value-loss scores."""
    fields = {
        "discount": discount,
        "gae_lambda": gae_lambda,
        "bootstrap_truncation": bootstrap_truncation,
    }
    owners = ("student.learner", "score")
    return {f"{owner}.{name}": value for owner in owners for name, value in fields.items()}


PARITY: Preset = {
    "num_slots": 32,
    "levels_per_slot": 1,
    "student.num_steps": 256,
    "student.learner.network.hidden_size": 256,
    "student.learner.learning_rate": 1e-4,
    "student.learner.anneal": True,
    "student.learner.anneal_end": 0.0,
    "student.learner.clip": 0.2,
    "student.learner.value_clip": 0.2,
    "student.learner.entropy_coef": 1e-3,
    "student.learner.value_coef": 0.5,
    "student.learner.num_epochs": 5,
    "student.learner.num_minibatches": 1,
    "student.learner.bptt_steps": 0,
    "student.learner.max_grad_norm": 0.5,
    "student.learner.normalize_advantage": True,
    "student.learner.target_kl": 0.0,
    "student.learner.adam_eps": 1e-5,
    # JaxUED scores only completed episodes, and treats a time limit as a termination.
    "score.completed_only": True,
    **_advantage(0.995, 0.98, bootstrap_truncation=False),
}

# Settings of PLR in minimax: a constant learning rate, no entropy bonus and a discount of 0.999.
# Two settings differ from minimax: values are bootstrapped at time limits, and unfinished episodes
# are scored.
STRONG: Preset = {
    **PARITY,
    "student.learner.learning_rate": 3e-4,
    "student.learner.anneal": False,
    "student.learner.entropy_coef": 0.0,
    "score.completed_only": False,
    **_advantage(0.999, 0.98, bootstrap_truncation=True),
}

# Small, frequent batches: at equal CPU time, 16 gradient steps per 8,192 env steps learned faster
# than 16 gradient steps per 32,768 env steps (docs/benchmarks.md). On a GPU, larger batches are
# better: --num-slots 256.
FAST: Preset = {
    **PARITY,
    "student.learner.network.hidden_size": 128,
    "student.learner.learning_rate": 1e-3,
    "student.learner.num_epochs": 2,
    "student.learner.num_minibatches": 8,
    "student.learner.bptt_steps": 64,
    "score.completed_only": False,
    **_advantage(0.99, 0.95, bootstrap_truncation=True),
}

LEARNING: dict[str, Preset] = {"parity": PARITY, "strong": STRONG, "fast": FAST}
"""Presets for the student and its rollouts, for any sampler."""


def on_learning(parity: Preset, strong: Preset, fast: Preset) -> dict[str, Preset]:
    """Return `LEARNING` updated with the fields of a method, which take precedence."""
    own = {"parity": parity, "strong": strong, "fast": fast}
    return {name: {**LEARNING[name], **fields} for name, fields in own.items()}


_PLR_PARITY: Preset = {
    "sampler.capacity": 4000,
    "sampler.decision.replay_prob": 0.8,
    "sampler.priority.temperature": 0.3,
    "sampler.priority.staleness_coef": 0.3,
    "sampler.min_fill": 0.5,
    "sampler.priority.kind": "rank",
    "sampler.sequential": True,
    "sampler.deduplicate": True,
}

_PLR_STRONG: Preset = {
    **_PLR_PARITY,
    # minimax's value for PLR; JaxUED's is 0.8.
    "sampler.decision.replay_prob": 0.5,
    "sampler.sequential": False,
}

# The temperature is 1, because at 0.3 a single level fills most of a batch. Replay begins early,
# because runs are short.
_PLR_FAST: Preset = {
    **_PLR_PARITY,
    "sampler.sequential": False,
    "sampler.priority.temperature": 1.0,
    "sampler.min_fill": 0.1,
}

REPLAY = on_learning(_PLR_PARITY, _PLR_STRONG, _PLR_FAST)
"""Presets with a level buffer."""

# JaxUED's learning-rate schedule spans the number of all updates but advances only in updates that
# train. These are 4 of 5 updates in robust PLR and 4 of 9 in ACCEL, so the rate ends above 0.
ROBUST: dict[str, Preset] = {
    **REPLAY,
    "parity": {**REPLAY["parity"], "student.learner.anneal_end": 1 - 4 / 5},
}
"""Presets with a level buffer, for training on replayed levels alone."""

_EDITS: Preset = {"sampler.mutator.num_edits": 5, "sampler.source.simple": False}

# The settings of minimax: simple initial levels, four times as many edits, and a larger weight of
# staleness.
_EDITS_STRONG: Preset = {
    "sampler.mutator.num_edits": 20,
    "sampler.decision.replay_prob": 0.8,
    "sampler.priority.staleness_coef": 0.5,
    "sampler.source.simple": True,
}

EDITING: dict[str, Preset] = {
    "parity": {**REPLAY["parity"], **_EDITS, "student.learner.anneal_end": 1 - 4 / 9},
    "strong": {**REPLAY["strong"], **_EDITS_STRONG},
    "fast": {**REPLAY["fast"], **_EDITS},
}
"""Presets with a level buffer and mutants."""


def in_blocks(presets: dict[str, Preset], num_blocks: int) -> dict[str, Preset]:
    """Adapt presets to a parallel curriculum with `num_blocks` equal blocks of slots.

    The number of slots that train stays the same, and the other blocks add slots. The staleness
    coefficient is that of minimax's parallel runs. The replay probability is removed, because one
    block replays in every update.
    """
    own: Preset = {
        "sampler.priority.staleness_coef": 0.5,
        # Every update trains, so the learning-rate schedule reaches its end.
        "student.learner.anneal_end": 0.0,
    }

    def parallel(fields: Preset) -> Preset:
        kept = {path: x for path, x in fields.items() if path != "sampler.decision.replay_prob"}
        return {**kept, **own, "num_slots": num_blocks * int(fields["num_slots"])}

    return {name: parallel(fields) for name, fields in presets.items()}
