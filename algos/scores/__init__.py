"""Scores rate levels: regret, learnability, value losses.

A score gives one number to each level in the queues of the slots, [N, R] for N slots and queues of
R levels. The value `-inf` means that a level has no score. Some scores keep a memory of each level,
such as the best return so far. This memory is stored with the level. If the student is a population
of agents, member 0 is the agent that is evaluated.
"""
