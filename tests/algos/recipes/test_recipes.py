"""Recipes: every preset is valid, and learner and score compute advantages alike."""

import dataclasses
import inspect

import pytest

from rlgen import config, registry
from rlgen.protocols import Score
from rlgen.registry import load

RECIPES = tuple(registry.names("recipes"))
SCORED = tuple(
    name for name in RECIPES if "score" in inspect.signature(load("recipes", name).build).parameters
)
SHARED = ("discount", "gae_lambda", "bootstrap_truncation")
OWNERS = ("student.learner", "student.learner.agent", "student.agent")  # components that discount


def build(name, **choices):
    return load("recipes", name).build(load("envs", "maze").tiny(), **choices)


@pytest.mark.thorough
@pytest.mark.parametrize("name", RECIPES)
def test_every_path_of_a_preset_is_one_of_the_method_or_of_another_score(name):
    known = config.flatten(build(name))
    for preset in load("recipes", name).PRESETS.values():
        unknown = {path for path in preset if path not in known}
        assert all(path.startswith("score.") for path in unknown), unknown


@pytest.mark.thorough
@pytest.mark.parametrize("name", SCORED)
@pytest.mark.parametrize("score", ["positive-value-loss", "l1-value-loss"])
def test_learner_and_score_discount_alike_under_every_preset(name, score):
    plain = build(name, score=score)
    presets = load("recipes", name).PRESETS
    assert set(presets) == {"fast", "strong", "parity"}
    known = config.flatten(plain)  # a preset also holds values for other scores
    owner = next(owner for owner in OWNERS if f"{owner}.discount" in known)
    for preset in ({}, *presets.values()):
        found = config.flatten(
            config.override(plain, {p: x for p, x in preset.items() if p in known})
        )
        for field in SHARED:
            expected = found[f"{owner}.{field}"]
            assert found[f"score.{field}"] == expected
            if preset:
                assert expected == preset[f"{owner}.{field}"]


def test_robust_plr_is_plr_that_does_not_train_on_new_levels():
    plain, robust = config.flatten(build("plr")), config.flatten(build("robust-plr"))
    assert {path for path in plain if plain[path] != robust[path]} == {"sampler.train_on_new"}
    assert plain["sampler.train_on_new"]


def test_the_score_has_one_place_in_the_config():
    curriculum = build("plr", score="positive-value-loss")
    fields = dataclasses.fields(curriculum.sampler)
    assert not any(isinstance(getattr(curriculum.sampler, x.name), Score) for x in fields)
    found = [path for path in config.flatten(curriculum) if "score." in path]
    assert found and all(path.startswith("score.") for path in found)
