"""Learners: who learns from a rollout."""
