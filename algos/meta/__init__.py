"""Meta-learning: students that train update rules; each slot holds a whole agent."""
