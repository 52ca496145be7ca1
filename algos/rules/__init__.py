"""Learned update rules that ship with rlgen as `NAME.npz`; see `rlgen.algos.rules.files`."""
