"""Reinforcement-learning generalisation in pure JAX.

A training method has three parts: a student, which learns; a sampler, which chooses the levels that
the student plays; and a score, which sets the priority of a level.
`rlgen.curriculum.Curriculum` combines them into one compiled loop.
"""

from rlgen import gymnax_hook

__version__ = "0.2.0"

# Makes `gymnax.make("rlgen/Maze-v0")` work, but imports neither gymnax nor jax.
gymnax_hook.install()
