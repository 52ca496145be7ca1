"""PPO with an LSTM, for partially observable levels.

Trained by backpropagation through time over whole rollouts, or over parts of them that start from
stored recurrent states.

Source: as in `ppo`; stored states after Kapturowski et al., 2019, "Recurrent Experience Replay in
Distributed RL".
"""

from typing import Any

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return PPO with an LSTM for an environment."""
    return PPO(env, ActorCritic(core="lstm"), **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the law tests."""
    network = ActorCritic(core="lstm", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2, bptt_steps=4)
