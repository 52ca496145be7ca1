"""Procedurally generated environments: one family a file, imported as `rlgen.envs`."""

if __name__ != "rlgen.envs":
    raise ImportError(
        "import this package as rlgen.envs, not envs: a second copy of every class would be made"
    )
