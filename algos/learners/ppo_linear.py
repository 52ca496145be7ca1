"""PPO with a linear recurrent network, which is trained in parallel over time.

Sources: Schulman et al., 2017, "Proximal Policy Optimization Algorithms"; Feng et al., 2024, "Were
RNNs All We Needed?", for the recurrent network.
"""

from typing import Any

from rlgen.algos.learners.ppo import PPO
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import LevelEnv


def build(env: LevelEnv, **fields: Any) -> PPO:
    """Return PPO with a linear recurrent network for an environment."""
    return PPO(env, ActorCritic(core="linear"), **fields)


def tiny(env: LevelEnv) -> PPO:
    """Return the smallest instance, for the tests in `tests/laws`."""
    network = ActorCritic(core="linear", hidden_size=8, head_size=8, conv_features=2)
    return PPO(env, network, learning_rate=1e-3, num_epochs=2, num_minibatches=2, bptt_steps=4)
