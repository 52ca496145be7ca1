import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from flax import struct

from rlgen import config


@struct.dataclass
class Data:
    x: int = 1


@dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
        floor: the lowest return, a
            text of two lines.
        kind: of part.
    Raises:
        ValueError: below.
    """

    floor: float = 0.0
    kind: Literal["a", "b"] = "a"
    on: bool = False

    def __post_init__(self):
        if self.floor > 10:
            raise ValueError(f"floor must be at most 10, got {self.floor}")


@dataclass(frozen=True)
class Holder:
    part: Part
    capacity: int = 10  # rows
    sizes: tuple[int, ...] = (1, 2)
    loose: float | tuple[()] = 2.5


@dataclass(frozen=True)
class Whole:
    env: Part
    holder: Holder
    part: Part
    parts: tuple = ()
    name: str = "x"
    secret: int = field(default=1, metadata={"config": False})
    data: Data = field(default_factory=Data)
    array: np.ndarray = field(default_factory=lambda: np.ones(2))
    absent: tuple[()] = ()


def whole() -> Whole:
    part = Part()
    return Whole(Part(), Holder(part), part, parts=(Part(1.0), Part(2.0)))


def test_only_hyperparameters_are_listed_and_a_shared_component_once():
    assert config.flatten(whole()) == {
        "name": "x",
        "holder.capacity": 10,
        "holder.sizes": (1, 2),
        "holder.loose": 2.5,
        "part.floor": 0.0,
        "part.kind": "a",
        "part.on": False,
        "parts.0.floor": 1.0,
        "parts.0.kind": "a",
        "parts.0.on": False,
        "parts.1.floor": 2.0,
        "parts.1.kind": "a",
        "parts.1.on": False,
    }


def test_a_component_in_two_places_is_changed_in_both():
    new = config.override(whole(), {"part.floor": 3})
    assert new.holder.part.floor == new.part.floor == 3.0
    again = config.override(new, {"part.kind": "b"})
    assert again.holder.part is again.part
    assert again.parts == whole().parts


@pytest.mark.parametrize(
    ("path", "written", "value"),
    [
        ("holder.capacity", "5e6", 5_000_000),
        ("holder.capacity", 4.0, 4),
        ("holder.sizes", "3,4, 5", (3, 4, 5)),
        ("holder.sizes", [7], (7,)),
        ("part.floor", 1, 1.0),
        ("part.floor", "-inf", -math.inf),
        ("part.on", "true", True),
        ("part.kind", "b", "b"),
        ("parts.1.floor", "3", 3.0),
        ("holder.loose", "1e-3", 1e-3),
    ],
)
def test_values_are_converted_to_the_fields_type(path, written, value):
    got = config.flatten(config.override(whole(), {path: written}))[path]
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"holder.capacty": 1}, "did you mean 'holder.capacity'"),
        ({"capacity": 1}, "did you mean 'holder.capacity'"),
        ({"holder.capacity": 2.5}, "holder.capacity must be a whole number, got 2.5"),
        ({"holder.capacity": True}, "must be a whole number"),
        ({"holder.capacity": "many"}, "must be a whole number, got 'many'"),
        ({"holder.capacity": "inf"}, "must be a whole number"),
        ({"part.floor": "x"}, "part.floor must be a number, got 'x'"),
        ({"part.on": "maybe"}, "must be true or false"),
        ({"part.kind": "c"}, "part.kind='c' is unknown; Known: a, b"),
        ({"part.floor": 11}, "floor must be at most 10"),
        ({"env.floor": 1}, "unknown field 'env.floor'"),
        ({"secret": 1}, "unknown field 'secret'"),
    ],
)
def test_wrong_paths_and_values_are_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        config.override(whole(), values)


def test_dashes_are_underscores():
    @dataclass(frozen=True)
    class C:
        num_x: int = 1

    assert config.override(C(), {"num-x": 2}) == C(2)


def test_the_way_through_json_is_exact():
    import json

    changed = config.override(whole(), {"part.floor": "-inf", "holder.sizes": (9,)})
    text = json.dumps(config.to_json(config.flatten(changed)), allow_nan=False)
    back = config.override(whole(), json.loads(text))
    assert config.flatten(back) == config.flatten(changed)


def test_help_comes_from_the_docstring_or_the_comment():
    texts = {leaf.path: leaf.help for leaf in config.leaves(whole())}
    assert texts["part.floor"] == "the lowest return, a text of two lines."
    assert texts["part.on"] == ""
    assert texts["holder.capacity"] == "rows"


def test_checks_of_all_components_run_on_the_final_values_alone():
    """Two fields that are valid only in combination can be changed together."""

    @dataclass(frozen=True)
    class Pair:
        a: int = 1
        b: int = 1

        def __post_init__(self):
            if self.a != self.b:
                raise ValueError("a must equal b")

    assert config.override(Pair(), {"a": 2, "b": 2}) == Pair(2, 2)
    with pytest.raises(ValueError, match="a must equal b"):
        config.override(Pair(), {"a": 2})


def test_no_hyperparameter_of_a_real_recipe_is_lost():
    """Every plain field of every component of a built curriculum has a path."""
    from rlgen.algos.recipes.ued import robust_plr
    from rlgen.envs import maze

    built: Any = robust_plr.build(maze.tiny())
    paths = config.flatten(built)
    for at, component in (
        ("student.learner.", built.student.learner),
        ("sampler.", built.sampler),
        ("score.", built.score),
        ("", built),
    ):
        for one in dataclasses.fields(component):
            if one.type in (bool, int, float, str):
                assert f"{at}{one.name}" in paths
    assert not any(path.startswith(("student.env", "sampler.env")) for path in paths)
