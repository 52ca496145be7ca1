"""Meta-learning: students that train update rules; each slot of a student holds a whole agent."""
