"""Tasks of the exploration study, each with a dial, a training length and bonuses.

The dial of a task is the parameter that controls how much structure the levels of the task share.
"""

from _exploration_run import Task

NONE = {"no bonus": ("", 0.0)}


def four(key: str, episodic: float, counts: float, product: float) -> dict:
    """Return the bonuses none, episodic, global and product (episodic × global).

    The last three bonuses are multiplied by the factors `episodic`, `counts` and `product`.
    """
    return {
        **NONE,
        "episodic": (f"episodic/{key}", episodic),
        "global": (f"counts/{key}", counts),
        "product": (f"counts/{key}*episodic/{key}", product),
    }


PPO = {
    "num_slots": 64,
    "levels_per_slot": 4,
    "student.num_steps": 128,
    "student.updates_per_level": 8,
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
"""Settings of PPO.

Rollouts are short. A level stays in its slot for eight updates, because an episode may span several
rollouts.
"""

TABLES = {
    "num_slots": 64,
    "student.num_steps": 12,
    "student.learner.optimizer.kind": "adam",
    "student.learner.optimizer.max_grad_norm": 0.0,
    "student.learner.optimizer.beta1": 0.99,
    "student.learner.optimizer.beta2": 0.9999,
    "student.learner.learning_rate": 0.01,
    "student.learner.critic_learning_rate": 0.1,
    "student.learner.entropy_coef": 0.02,
    "student.learner.discount": 0.99,
    "student.learner.gae_lambda": 0.95,
    "student.learner.bootstrap_truncation": False,
}
"""Settings of tabular agents.

Adam's moments decay slowly, because gradients consist only of noise after all episodes are solved,
and Adam normalises gradients. As in the code of Henaff, Jiang and Raileanu, 2023, the return of the
bonus ends with the episode, also at the time limit. If the return did not end with the episode,
values of visited states would be bootstrapped at the time limit and be far above 0. Unvisited
states have the initial value 0, so a step to an unvisited state would lose more value than its
bonus adds.
"""

RHO_ROOMS = Task(
    env="rho-rooms",
    dial="sharing",
    values=(0.0, 0.5, 1.0),
    steps=4e6,
    settings=PPO,
    fields={"coverage": 1.0},
    bonuses=four("position", 0.02, 0.02, 0.02),
)

TASKS = {
    "corridors": Task(
        env="corridors",
        dial="sharing",
        values=(0.0, 0.5, 1.0),
        steps=4e6,
        learner="a2c",
        fields={"length": 12, "max_steps": 12},
        settings=TABLES,
        bonuses=four("position", 0.03, 0.03, 0.03),
        clip=0.3,
    ),
    "rooms": Task(
        env="rooms/n4",
        dial="contexts",
        values=(1, 3, 10, 0),
        steps=1e7,
        settings=PPO,
        bonuses={
            **four("position", 0.02, 0.02, 0.02),
            "e3b": ("e3b", 0.02),
            "e3b x rnd": ("e3b*rnd", 0.02),
            "noveld": ("noveld", 0.02),
        },
    ),
    "keyroom": Task(
        env="keyroom",
        dial="contexts",
        values=(1, 10, 0),
        steps=4e6,
        settings=PPO,
        bonuses={
            **four("position", 0.02, 0.02, 0.02),
            "global, events": ("counts/event", 0.02),
            "episodic, events": ("episodic/event", 0.02),
        },
    ),
    "rho-rooms": RHO_ROOMS,
    "rho-rooms, short": RHO_ROOMS._replace(fields={"coverage": 0.25}),
    "vault": Task(
        env="vault",
        dial="contexts",
        values=(1,),
        steps=2e7,
        settings=PPO,
        bonuses={**four("position", 0.02, 0.02, 0.02), "rnd": ("rnd", 0.02), "e3b": ("e3b", 0.02)},
    ),
}
