"""Learners, samplers, scores and recipes, imported as `rlgen.algos`."""

if __name__ != "rlgen.algos":
    raise ImportError(
        "import this package as rlgen.algos, not algos: a second copy of every class would be made"
    )
