"""Learned update rules that ship with rlgen, `NAME.npz`; `rlgen.algos.rules.files` loads them."""
