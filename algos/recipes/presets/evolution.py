"""Presets for evolution, as data: dotted path of a field -> value.

For update rules, `parity` has the settings of the code of Jackson et al. For drift functions,
`parity` has the settings of Goldie et al. For update rules, `strong` has the sizes of `parity`, but
the search starts from an initialised network, and the discount is an input of the rule. For drift
functions, `strong` equals `parity`. `fast` is small enough for a CPU. A rule or a drift function
with a clock receives the elapsed fraction of the agent's lifetime.

Sources: Jackson et al., 2024, "Discovering Temporally-Aware Reinforcement Learning Algorithms"; Lu
et al., 2022, "Discovered Policy Optimisation" (LPO); Goldie et al., 2025, "How Should We Meta-Learn
Reinforcement Learning Algorithms?", for LPO on MinAtar.
"""

from rlgen.types import Preset

_MEAN_LIFE = 75  # mean in updates of lifetimes that are log-uniform from 10 to 250
# generations × agents × updates × env steps per update. In an update, each of an agent's 64 workers
# (parallel environments) takes 20 steps.
_PUBLISHED_STEPS = 2_500 * 1_024 * _MEAN_LIFE * 1_280
EVOLUTION_STEPS = {
    "fast": 200 * 64 * _MEAN_LIFE * 320,
    "strong": _PUBLISHED_STEPS,
    "parity": _PUBLISHED_STEPS,
}
"""Env steps of a run that evolves an update rule, by preset.

A run has 2,500 generations, or 200 with the preset `fast`.
"""

_PARITY: Preset = {
    # 512 antithetic pairs, which are 1,024 agents. Both agents of a pair have the same level and
    # the same lifetime.
    "num_slots": 512,
    "student.rollout_steps": 20,
    "student.num_workers": 64,
    "student.pair_batch_size": 32,
    # In the code of Jackson et al., the search starts from zeros and does not use the network's
    # initial parameters.
    "student.from_zeros": True,
    "student.strategy.name": "open-es",
    "student.strategy.shaping": "pair-rank",
    # Values of the code of Jackson et al., who corrected the values that they first reported.
    "student.strategy.learning_rate": 0.01,
    "student.strategy.learning_rate_decay": 0.999,
    "student.strategy.learning_rate_end": 1e-5,
    "student.strategy.beta1": 0.99,
    "student.strategy.sigma": 0.1,
    # The rule of Jackson et al. has a GRU, 8 predictions and no discount input. The original LPG
    # (Oh et al., 2020) has an LSTM that receives the discount.
    "student.learner.net.core": "gru",
    "student.learner.net.hidden_size": 256,
    "student.learner.net.num_predictions": 8,
    "student.learner.net.discount_input": False,
    "student.learner.agent.kl_coef": 0.5,
    "student.learner.agent.discount": 0.99,
    "sampler.shortest": 10,
    "sampler.longest": 250,
}

_STRONG: Preset = {
    **_PARITY,
    "student.from_zeros": False,
    "student.learner.net.discount_input": True,
}

_FAST: Preset = {
    **_STRONG,
    "num_slots": 32,
    "student.num_workers": 16,
    "student.pair_batch_size": 1,
    "student.strategy.learning_rate": 0.03,
    "student.strategy.beta1": 0.9,
    "student.learner.net.hidden_size": 32,
}

_RULE: dict[str, Preset] = {"parity": _PARITY, "strong": _STRONG, "fast": _FAST}


def _with_clock(presets: dict[str, Preset], clock: bool) -> dict[str, Preset]:
    return {name: {**x, "student.learner.net.clock": clock} for name, x in presets.items()}


TIMELESS = _with_clock(_RULE, False)
"""Presets for a rule without a clock."""

TEMPORAL = _with_clock(_RULE, True)
"""Presets for a rule with a clock."""

_DRIFT_UPDATES = 1_220  # updates of 128 steps in 64 environments, 1e7 env steps in total
# generations × agents × updates × env steps per update (128 × 64, or 64 × 32 in `fast`)
DRIFT_STEPS = {
    "fast": 80 * 32 * 20 * 2_048,
    "strong": 800 * 64 * _DRIFT_UPDATES * 8_192,
    "parity": 800 * 64 * _DRIFT_UPDATES * 8_192,
}
"""Env steps of a run that evolves a drift function, by preset."""

_DRIFT_PARITY: Preset = {
    "num_slots": 32,
    "student.rollout_steps": 128,
    "student.num_workers": 64,
    "student.pair_batch_size": 32,
    "student.from_zeros": False,
    "student.strategy.name": "open-es",
    "student.strategy.shaping": "centred-rank",
    # The learning rate, σ, the decay rates of the learning rate and of σ, and the centred ranks are
    # those of Goldie et al.
    "student.strategy.learning_rate": 0.03,
    "student.strategy.learning_rate_decay": 0.99,
    "student.strategy.learning_rate_end": 0.0,
    "student.strategy.beta1": 0.99,
    "student.strategy.sigma": 0.03,
    "student.strategy.sigma_decay": 0.99,
    "student.learner.net.hidden_size": 128,
    "student.learner.agent.learning_rate": 5e-4,
    "student.learner.agent.discount": 0.99,
    "student.learner.agent.gae_lambda": 0.95,
    "student.learner.agent.entropy_coef": 0.01,
    "student.learner.agent.num_epochs": 4,
    "student.learner.agent.num_minibatches": 8,
    "sampler.shortest": _DRIFT_UPDATES,
    "sampler.longest": _DRIFT_UPDATES,
}

_DRIFT_FAST: Preset = {
    **_DRIFT_PARITY,
    "num_slots": 16,
    "student.pair_batch_size": 1,
    "student.rollout_steps": 64,
    "student.num_workers": 32,
    "student.eval_episodes": 16,
    "student.strategy.shaping": "pair-rank",
    "student.strategy.learning_rate": 0.01,
    "student.strategy.learning_rate_decay": 1.0,
    "student.strategy.beta1": 0.9,
    "student.strategy.sigma_decay": 1.0,
    # The search starts from a random drift instead of PPO's; see `DRIFT`.
    "student.learner.net.on_clipping": False,
    "student.learner.agent.learning_rate": 2.5e-3,
    "student.learner.agent.network.hidden_size": 32,
    "student.learner.agent.network.conv_features": 8,
    "sampler.shortest": 20,
    "sampler.longest": 20,
}

_DRIFT: dict[str, Preset] = {
    "parity": _DRIFT_PARITY,
    "strong": _DRIFT_PARITY,
    "fast": _DRIFT_FAST,
}

DRIFT = _with_clock(_DRIFT, False)
"""Presets for a drift function without a clock.

`fast` starts from a random drift. Within lifetimes of 20 updates, PPO's clipping is hard to improve
on, so a run that starts from PPO's drift would show little progress.
"""

TEMPORAL_DRIFT = _with_clock(_DRIFT, True)
"""Presets for a drift function with a clock."""
