"""Learners: algorithms that train an agent on rollouts; see `rlgen.protocols.Learner`."""
