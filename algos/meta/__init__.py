"""Meta-learning: students whose slots hold whole agents, and the rules that those learn by."""
