"""Procedurally generated environments, one family per module, imported as `rlgen.envs`."""

if __name__ != "rlgen.envs":
    raise ImportError(
        "import this package as rlgen.envs; as envs it would define every class a second time"
    )
