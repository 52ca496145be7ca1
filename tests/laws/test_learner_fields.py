"""Every hyperparameter of every learner changes its program; and the law broken on purpose."""

import dataclasses

import pytest

from rlgen import registry, testing
from tests.laws.lawful import EASY, Mean


def tiny_env(name="maze"):
    return registry.load("envs", name).tiny()


NAMES = ["ppo", *(name for name in registry.names("learners") if name != "ppo")]


def kinds(component) -> set:
    """The classes of a tree of components; a network of another core is another class."""
    own = {(type(component), getattr(component, "core", ""))}
    parts = [getattr(component, field.name) for field in dataclasses.fields(component)]
    return own.union(*(kinds(x) for x in parts if dataclasses.is_dataclass(x)))


@pytest.mark.parametrize("name", NAMES)
def test_learner_fields(name):
    """The fields of a class are checked in the first of the learners that have it."""
    env = testing.Probe()  # traced more quickly than a maze; it has no image, hence `unused`
    learner, *earlier = (
        registry.load("learners", one).tiny(env) for one in (name, *NAMES[: NAMES.index(name)])
    )
    seen = set().union(*map(kinds, earlier))
    unused = ["conv_features", "vector_features", "rule"]  # a learned rule is a file
    if hasattr(learner, "rule"):
        unused.append("num_updates")  # is in the first state, of which the law sees shapes
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
