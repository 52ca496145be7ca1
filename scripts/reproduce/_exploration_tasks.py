"""The tasks of the exploration study, each with its dial, its length and its bonuses."""

from _exploration_run import Task

NONE = {"none": ("", 0.0)}


def four(key: str, episodic: float, counts: float, product: float) -> dict:
    """No bonus, the episodic one, the global one and their product, each with its α."""
    return {
        **NONE,
        "episodic": (f"episodic/{key}", episodic),
        "global": (f"counts/{key}", counts),
        "product": (f"counts/{key}*episodic/{key}", product),
    }


PPO = {
    "num_slots": 64,
    "num_queued": 4,
    "student.num_steps": 128,
    "student.tenancy": 8,
    "student.learner.network.hidden_size": 128,
    "student.learner.learning_rate": 3e-4,
    "student.learner.entropy_coef": 0.01,
    "student.learner.value_clip": 0.0,
    "student.learner.num_epochs": 2,
    "student.learner.num_minibatches": 8,
    "student.learner.bptt_steps": 64,
    "student.learner.discount": 0.99,
    "student.learner.gae_lambda": 0.95,
}
"""Short rollouts, often; levels stay for as long as their episodes take."""

TASKS = {
    "corridors": Task(
        env="corridors",
        dial="sharing",
        values=(0.0, 0.5, 1.0),
        steps=2e6,
        learner="a2c",
        settings={
            "num_slots": 32,
            "student.num_steps": 15,
            "student.learner.discount": 0.99,
            "student.learner.gae_lambda": 0.95,
        },
        bonuses=four("position", 0.1, 0.1, 0.1),
    ),
    "rooms": Task(
        env="rooms/n4",
        dial="contexts",
        values=(1, 3, 10, 0),
        steps=5e6,
        settings=PPO,
        bonuses=four("position", 0.1, 0.1, 0.1),
    ),
}
