"""Learners, samplers, scores and recipes; import this package as `rlgen.algos`."""

if __name__ != "rlgen.algos":
    raise ImportError(
        "import this package as rlgen.algos, not algos: otherwise every class would exist twice"
    )
