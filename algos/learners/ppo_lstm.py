"""PPO with an LSTM, for partially observable levels.

The network is trained by backpropagation through time, either over whole rollouts or over shorter
sequences that start from stored recurrent states.

Sources: Schulman et al., 2017, "Proximal Policy Optimization Algorithms"; Kapturowski et al., 2019,
"Recurrent Experience Replay in Distributed RL", for the stored states.
"""

from typing import Any

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return PPO with an LSTM for an environment."""
    return PPO(env, ActorCritic(core="lstm"), **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="lstm", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2, bptt_steps=4)
