"""Samplers: which levels the slots meet."""
