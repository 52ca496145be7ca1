"""Reinforcement-learning generalisation in pure JAX.

A run is three choices: who learns (a student), which levels it meets (a sampler), how a level is
judged (a score). `rlgen.curriculum.Curriculum` joins them into one compiled loop.
"""

from rlgen import gymnax_hook

__version__ = "0.2.0"

gymnax_hook.install()  # `gymnax.make("rlgen/Maze-v0")`; imports neither gymnax nor jax
