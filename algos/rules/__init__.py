"""Learned update rules that ship with rlgen, `NAME.npz`; `rlgen.algos.meta.files` loads them."""
