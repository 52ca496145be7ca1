"""Learners: algorithms that update an agent from a rollout; see `rlgen.protocols.Learner`."""
