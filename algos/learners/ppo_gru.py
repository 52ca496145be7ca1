"""PPO with a gated recurrent unit (GRU), which has fewer weights than an LSTM.

A GRU of H units has three weight matrices with H outputs each; an LSTM has four such matrices.

Sources: Schulman et al., 2017, "Proximal Policy Optimization Algorithms"; Cho et al., 2014,
"Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation".
"""

from typing import Any

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return PPO with a GRU for an environment."""
    return PPO(env, ActorCritic(core="gru"), **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="gru", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2, bptt_steps=4)
