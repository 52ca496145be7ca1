"""Training loop in plain Python: `rlgen train` without run folders, progress bars or resuming.

    python scripts/train.py

Copy this file and adapt the copy. All parts are plain values and functions.
"""

import functools

import jax
import jax.numpy as jnp

from rlgen.algos.learners import ppo_lstm
from rlgen.algos.samplers.plr import PLR
from rlgen.algos.samplers.random import Random
from rlgen.algos.scores.max_mc import MaxMC
from rlgen.curriculum import Curriculum
from rlgen.envs.maze import Maze
from rlgen.students import OnPolicy
from rlgen.types import Keys

SEEDS, UPDATES, CHUNK = 2, 200, 10

env = Maze(num_walls=25)
learner = ppo_lstm.build(env, learning_rate=5e-4, num_epochs=2, num_minibatches=4)
score = MaxMC()
method = Curriculum(
    student=OnPolicy(env, learner, num_steps=128),
    sampler=PLR(env, Random(env), capacity=1000, train_on_new=False),  # robust PLR
    score=score,
    num_slots=128,
)

# `chunk` is a compiled program that makes CHUNK updates for all seeds, which are a vmapped axis.
# `keys.shared` is not mapped, so that all seeds take the same branches.
one_chunk = functools.partial(method.train, num_updates=CHUNK)
axes = (0, Keys._make((0, None)), None)
chunk = jax.jit(jax.vmap(one_chunk, in_axes=axes), donate_argnums=0)
init_key, own_key, shared_key = jax.random.split(jax.random.key(0), 3)
states = jax.jit(jax.vmap(method.init))(jax.random.split(init_key, SEEDS))
keys = Keys(own=jax.random.split(own_key, SEEDS), shared=shared_key)

for update in range(0, UPDATES, CHUNK):
    states, metrics = chunk(states, keys, jnp.int32(update))
    means = {name: jnp.nanmean(values) for name, values in metrics.items()}
    print(
        f"update {update + CHUNK:4d}  return {means['episode_return']:.2f}  "
        f"solved {means['solve_rate']:.0%}  replayed {means['levels_replay']:.0%}"
    )

agents = states.student.learner  # [SEEDS, 1, ...]: parameters and optimiser state of every seed
