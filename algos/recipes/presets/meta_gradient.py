"""Presets for meta-learning by meta-gradients, as data: dotted path of a field -> value.

`parity` has the settings of the code of Jackson et al. (GROOVE), for comparison. `strong` has the
settings of the papers: the discount is an input of the rule, meta-gradients are clipped, and agents
of all ages are trained from the start. `fast` is small enough for a CPU. The environment determines
whether the agents are tabular, and also the agents' step sizes; see
`rlgen.algos.learners.lpg.build_agent`.

Sources: Oh et al., 2020, "Discovering Reinforcement Learning Algorithms"; Jackson et al., 2023,
"Discovering General Reinforcement Learning Algorithms with Adversarial Environment Design".
"""

from rlgen.types import Preset

# 7,680 = (5 updates + 1 validation rollout) × 20 steps × 64 workers. A worker is one of the
# parallel environments of an agent.
_PUBLISHED_STEPS = 5_000 * 512 * 7_680  # meta-steps × agents × env steps per agent and meta-step
RULE_STEPS = {"fast": 320 * 32 * 7_680, "strong": _PUBLISHED_STEPS, "parity": _PUBLISHED_STEPS}
"""Env steps of a run that learns a rule, by preset."""


def _advantage(bootstrap_truncation: bool, *owners: str) -> Preset:
    """Return equal advantage settings for the agents and for value-loss scores."""
    fields = {
        "discount": 0.99,
        "gae_lambda": 0.95,
        "bootstrap_truncation": bootstrap_truncation,
    }
    return {f"{owner}.{name}": value for owner in owners for name, value in fields.items()}


_OWNERS = ("student.agent", "score")

_PARITY: Preset = {
    "num_slots": 512,
    "student.num_inner_updates": 5,
    "student.rollout_steps": 20,
    "student.num_workers": 64,
    "student.learning_rate": 1e-4,
    # The code of Jackson et al. does not clip the meta-gradient.
    "student.max_grad_norm": 0.0,
    # The four regularisation weights β0 to β3 in the paper and the code of Jackson et al.
    "student.policy_entropy_coef": 0.05,
    "student.prediction_entropy_coef": 0.001,
    "student.target_coef": 0.005,
    "student.target_prediction_coef": 0.001,
    # In the code of Jackson et al., a stop-gradient on the rule's inputs also blocks the
    # meta-gradient through these inputs.
    "student.meta_grad_through_inputs": False,
    # All agents begin together. Because their lifetimes are equal, they are replaced together.
    "student.stagger": False,
    "student.agent.kl_coef": 0.5,
    # These are the settings of the code of Jackson et al. The rule of Oh et al. has an LSTM that
    # receives the discount.
    "student.rule.core": "gru",
    "student.rule.hidden_size": 256,
    "student.rule.num_predictions": 8,
    "student.rule.discount_input": False,
    # Time limits count as terminations in the code of Jackson et al.
    **_advantage(False, *_OWNERS),
}

_STRONG: Preset = {
    **_PARITY,
    "student.max_grad_norm": 1.0,
    "student.meta_grad_through_inputs": True,
    "student.stagger": True,
    "student.rule.discount_input": True,
    **_advantage(True, *_OWNERS),
}

_FAST: Preset = {
    **_STRONG,
    "num_slots": 32,
    "student.learning_rate": 5e-4,
    "student.rule.hidden_size": 64,
}

_RULE: dict[str, Preset] = {"parity": _PARITY, "strong": _STRONG, "fast": _FAST}


def _living(owner: str, shortest: int, longest: int) -> Preset:
    return {f"{owner}.shortest": shortest, f"{owner}.longest": longest}


LEARNING: dict[str, Preset] = {
    # With `shortest` 0, all lifetimes are 250 updates, which take 50 meta-steps.
    "parity": {**_PARITY, **_living("sampler", 0, 250)},
    "strong": {**_STRONG, **_living("sampler", 0, 250)},
    "fast": {**_FAST, **_living("sampler", 0, 250)},
}
"""Presets for a rule and the lifetimes of its agents, for any source of levels."""

# The code of Jackson et al. begins to replay when the buffer contains as many levels as there are
# agents, and replays the levels in order of decreasing score. A low temperature without staleness
# approximates this order. With 4,000 rows, a `min_fill` of 0.128 means 512 rows, which is the
# number of agents.
_REPLAY_PARITY: Preset = {
    "sampler.capacity": 4000,
    "sampler.decision.replay_prob": 0.5,
    "sampler.priority.temperature": 0.1,
    "sampler.priority.staleness_coef": 0.0,
    "sampler.min_fill": 0.128,
    "sampler.priority.kind": "rank",
    **_living("sampler.source", 0, 250),
}

_REPLAY_STRONG: Preset = {
    **_REPLAY_PARITY,
    "sampler.priority.temperature": 0.3,
    "sampler.priority.staleness_coef": 0.2,
}

_REPLAY_FAST: Preset = {
    **_REPLAY_STRONG,
    "sampler.capacity": 128,
    "sampler.min_fill": 0.25,
}

REPLAY: dict[str, Preset] = {
    "parity": {**_PARITY, **_REPLAY_PARITY, **_advantage(False, "student.antagonist")},
    "strong": {**_STRONG, **_REPLAY_STRONG, **_advantage(True, "student.antagonist")},
    "fast": {**_FAST, **_REPLAY_FAST, **_advantage(True, "student.antagonist")},
}
"""Presets with a level buffer. The antagonist has the same advantage settings as the agents."""

_AGENT: Preset = {
    "num_slots": 64,
    "levels_per_slot": 1,
    "student.num_steps": 20,
    "student.updates_per_level": 25,
    "student.learner.agent.kl_coef": 0.5,
}

AGENT: dict[str, Preset] = {
    name: {**_AGENT, **_advantage(bootstrap, "student.learner.agent", "score")}
    for name, bootstrap in (("parity", False), ("strong", True), ("fast", True))
}
"""Presets for one agent that is trained by a learned rule."""
