"""Law that every hyperparameter changes a learner's program, and a violation that must fail."""

import dataclasses

import pytest

from rlgen import registry, testing
from tests.laws.lawful import EASY, Mean


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


NAMES = ["ppo", *(name for name in registry.names("learners") if name != "ppo")]


def kinds(component) -> set:
    """Classes of a tree of components; networks with different cores count as different."""
    own = {(type(component), getattr(component, "core", ""))}
    parts = [getattr(component, field.name) for field in dataclasses.fields(component)]
    return own.union(*(kinds(x) for x in parts if dataclasses.is_dataclass(x)))


@pytest.mark.parametrize("name", NAMES)
def test_learner_fields(name):
    """The fields of a class are checked only in the first learner that contains it."""
    env = testing.Probe()  # faster to trace than a maze, but without images: hence `unused`
    learner, *earlier = (
        registry.load("learners", one).tiny(env) for one in (name, *NAMES[: NAMES.index(name)])
    )
    seen = set().union(*map(kinds, earlier))
    unused = ["conv_features", "vector_features", "rule"]  # the learned rule is a file path
    if hasattr(learner, "rule"):
        # Changes values of the initial state only; the law sees shapes.
        unused.append("num_updates")
    testing.check_fields_matter(
        env,
        learner,
        tuple(unused),
        covered=lambda x: (type(x), getattr(x, "core", "")) in seen,
    )


def test_the_law_of_fields_bites():
    testing.check_fields_matter(EASY, Mean(), unused=("breach",))
    with pytest.raises(AssertionError, match=r"Mean\.rate changes nothing"):
        testing.check_fields_matter(EASY, Mean("fixed"), unused=("breach",))
