"""The difficulty card: its parts, checked by hand, and a whole card made by the command."""

import json
import math

import jax
import numpy as np
import pytest
from PIL import Image

from rlgen import registry
from rlgen.cli.main import main
from rlgen.evaluation.difficulty import inductive_bias
from rlgen.evaluation.difficulty import levels as card_levels
from rlgen.evaluation.difficulty.card import FORMAT, Ask, card
from rlgen.evaluation.difficulty.inductive_bias import Asked, kernel_of, table_of
from rlgen.evaluation.difficulty.kernel_bound import Labelled, bits_per_test, error_laws
from rlgen.evaluation.difficulty.levels import distinct, mean_interval, quantiles, rate
from rlgen.evaluation.difficulty.states import (
    Draw,
    States,
    TooFewError,
    aliasing,
    digests,
    draw,
    targets,
)
from rlgen.evaluation.difficulty.table import distinct_words
from rlgen.evaluation.difficulty.table_bound import table_bits

ARGS = ["card", "rho-rooms/fresh", "--env.size", "5", "--env.observation", "full"]
ARGS += ["--sampled", "40", "--levels", "4,8", "--rho", ".5,.1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small card, made by the command."""
    folder = tmp_path_factory.mktemp("card") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inductive_bias, "TESTS", 20)
        patch.setattr(inductive_bias, "DRAWS", 2)
        assert main([*ARGS, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def found(run):
    text = (run / "card.json").read_text()
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.thorough
def test_a_card_says_what_it_is_of(found):
    assert found["format"] == FORMAT == "rlgen-card-1"
    named = (found["env"], found["family"], found["num_actions"])
    assert named == ("rho-rooms/fresh", "rho-rooms", 5)
    assert found["fields"]["size"] == 5 and found["levels"] == [4, 8]
    assert found["unknown"] == {}
    assert found["distinct"]["sampled"] == 40


@pytest.mark.thorough
def test_the_protocol_is_frozen(found):
    """The numbers were recorded with `card v1`; if they change, the protocol has changed."""
    assert found["bits"]["protocol"] == "card v1"
    kernel = [curve["mean"] for curve in found["bits"]["kernel"]]
    assert np.ravel(kernel) == pytest.approx([4.36228, 4.04546, 9.79981, 9.45867], rel=1e-3)
    table = [curve["mean"] for curve in found["bits"]["table"]]
    assert np.ravel(table) == pytest.approx([0.6329114, 0.6329114, 1.7529088, 1.7529088], rel=1e-6)


@pytest.mark.thorough
def test_numbers_of_a_card_fit_together(found):
    solver, played = found["solver"], found["random"]
    assert solver["solvable"]["value"] == 1 and solver["num_unsolvable"] == 0
    assert sum(solver["optimal_steps"]["histogram"]["counts"]) == 40
    assert played["return"]["value"] == pytest.approx(played["solve_rate"]["value"])
    assert played["return"]["value"] < solver["return"]["value"] <= 1
    assert found["features"]["optimal_steps"]["q50"] == solver["optimal_steps"]["q50"]
    bits = found["bits"]
    assert bits["aliasing"]["floor"] == pytest.approx(0, abs=1e-9)  # everything is observed
    half, tenth = (curve["mean"] for curve in bits["kernel"])
    assert all(0 < a < b for a, b in zip(half, tenth, strict=True))
    half, tenth = (curve["mean"] for curve in bits["table"])
    assert all(0 < a < b for a, b in zip(half, tenth, strict=True))
    bound = found["closed_form"]
    assert bound["reading"] == "sphere" and bound["resolution"] >= 1


def test_pictures_are_of_a_slide_and_unlike(run):
    names = ("card.png", "card-dark.png")
    light, dark = (np.asarray(Image.open(run / name).convert("RGB")) for name in names)
    assert light.shape == dark.shape
    assert 1.6 < light.shape[1] / light.shape[0] < 1.9
    assert light.mean() > 180 > 110 > dark.mean()


def test_a_card_is_replaced_only_on_request(run, capsys):
    assert main([*ARGS, "--out", str(run)]) == 2
    assert "already has a card; add --overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "name an environment first, such as `rlgen card maze`"),
        (["maz"], "did you mean 'maze'?"),
        (["maze", "--levels", "64,16"], "increasing numbers of training levels"),
        (["maze", "--levels", "16,9999"], "more than 4,096 training levels"),
        (["maze", "--rho", "1.5"], "distinct fractions between 0 and 1"),
        (["maze", "--sampled", "1"], "sampled must be at least 2"),
        (["maze", "--env.num-walls", "999"], "num_walls=999 is not in 0 .. 167"),
        (["maze", "--levles", "4"], "unknown option '--levles'; did you mean '--levels'"),
    ],
)
def test_what_makes_no_card_is_refused(args, said, capsys, monkeypatch):
    monkeypatch.setattr(card_levels, "sample_levels", lambda *_: pytest.fail("levels were drawn"))
    assert main(["card", *args]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_what_is_not_known_has_a_reason(monkeypatch):
    """The family has no solver, no features of states, and no best actions."""
    monkeypatch.setattr(card_levels, "random_policy", lambda *_: {"return": {"value": 0.0}})
    ask = Ask(sampled=4, curves=Asked((4,), (0.5,)))
    found = card(registry.make_env("mountain-car"), "mountain-car", ask)
    assert {"solver", "structure", "bits"} <= set(found["unknown"])
    why = "MountainCar has no `labelled_states`: states with their best actions"
    assert found["unknown"]["bits"] == why
    assert found["solver"] is None and found["bits"] is None and found["structure"] is None
    assert found["closed_form"]["reading"] == "torus"
    assert found["closed_form"]["curves"][0]["log10_bits"][0] > 5


def test_levels_are_counted_by_collisions():
    """One of the six pairs of four draws is equal, the expected number for six distinct levels."""
    found = distinct([7, 7, 1, 2])
    assert (found.seen, found.pairs, found.estimate) == (3, 1, 6.0)
    assert found.coverage == 0.5
    none = distinct(list(range(100)))
    assert math.isnan(none.estimate) and math.isinf(none.high)
    assert none.low == pytest.approx(100 * 99 / 2 / -math.log(0.05))
    assert distinct_words(none._asdict() | {"estimate": None}).endswith("at least 1,652 (95 %)")


def test_the_interval_of_the_number_of_levels_holds_it():
    rng, held, num = np.random.default_rng(0), 0, 3000
    for _ in range(300):
        found = distinct(rng.integers(0, num, 400).tolist())
        held += found.low <= num <= found.high
    assert 0.92 <= held / 300 <= 0.99


def test_summaries_of_levels():
    found = quantiles(np.array([1, 2, 2, 3, 10]))
    assert (found["mean"], found["q50"]) == (3.6, 2.0)
    assert found["histogram"]["counts"] == [1, 2, 1, 0, 0, 0, 0, 0, 0, 1]
    assert found["histogram"]["edges"][:2] == [0.5, 1.5]
    assert sum(quantiles(np.arange(100))["histogram"]["counts"]) == 100
    assert sum(quantiles(np.linspace(0, 1, 7))["histogram"]["counts"]) == 7
    one = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))  # t quantile, 3 degrees of freedom: 3.18245
    assert one["value"] == 2.5
    assert one["high"] == pytest.approx(2.5 + 3.18245 * 1.290994 / 2, rel=1e-5)
    # One success of two: the lower bound solves 1 - (1 - p)^2 = 0.025.
    assert rate(np.array([True, False]))["low"] == pytest.approx(1 - 0.975**0.5)


def test_what_is_not_a_number_is_refused():
    for summary in (quantiles, mean_interval):
        with pytest.raises(ValueError, match="1 of 3 values are not finite"):
            summary(np.array([1.0, np.nan, 2.0]))


def test_targets_say_which_actions_are_best():
    found = targets(np.array([[True, False, True, False], [False, True, False, False]]))
    assert found.tolist() == [[0.25, -0.25, 0.25, -0.25], [-0.25, 0.75, -0.25, -0.25]]


def test_the_aliasing_floor_is_the_variance_within_equal_observations():
    """Observation a has two opposite targets, of variance 1 each; the squares sum to 3/2."""
    found = aliasing(["a", "a", "b"], np.array([[0.5, -0.5], [-0.5, 0.5], [0.5, -0.5]]))
    assert found.floor == pytest.approx(2 / 1.5) and found.of_repeated == pytest.approx(2.0)
    assert found.repeated == pytest.approx(2 / 3)
    once = aliasing([1, 2, 3], np.eye(3))
    assert (once.floor, once.repeated) == (0, 0) and math.isnan(once.of_repeated)


def test_the_aliasing_floor_is_unbiased_where_observations_recur():
    rng = np.random.default_rng(0)
    observed, noise = rng.integers(0, 4000, 12000), rng.normal(size=(12000, 2))
    found = aliasing(observed.tolist(), noise)
    assert found.of_repeated == pytest.approx(1.0, abs=0.03)


def levels(rng, num, states, words):
    inputs = rng.integers(0, 2, (num, states, 12)).astype(np.float32)
    return States(inputs, rng.random((num, states, 3)) < 0.5, words)


def labelled(rng, num, states, words):
    some = levels(rng, num, states, words)
    some.best[..., 0] |= ~some.best.any(-1)
    return some


def test_bits_of_a_draw_are_those_of_its_parts():
    rng, asked = np.random.default_rng(1), Asked((3, 6), (0.5, 0.2))
    one = Draw(labelled(rng, 6, 4, list(range(6))), labelled(rng, 5, 1, list(range(6, 11))))
    found, new = table_of(one, asked)
    right = one.test.best[:, 0].mean(1)
    for j, num in enumerate(asked.levels):
        known = set(digests(one.train.inputs[:num].reshape(-1, 12)))
        unseen = np.array([x not in known for x in digests(one.test.inputs[:, 0])])
        assert new[j] == unseen.mean()
        for i, rho in enumerate(asked.rhos):
            bits = table_bits(right[unseen], 5, rho * (1 - right.mean())) / 5
            assert found[i, j] == pytest.approx(bits)
    kernel = kernel_of(one, asked, 2.0)
    train = Labelled(
        one.train.inputs.reshape(-1, 12).astype(float), targets(one.train.best.reshape(-1, 3))
    )
    test = Labelled(one.test.inputs[:, 0].astype(float), targets(one.test.best[:, 0]))
    laws = error_laws(train, test, 2.0, [12, 24])
    error = 0.2 * (test.targets**2).mean()
    assert kernel[1].tolist() == pytest.approx([bits_per_test(law, error, 5) for law in laws])


def test_training_and_test_levels_share_none_and_tests_repeat_none():
    rng = np.random.default_rng(2)

    def sample(key):
        return labelled(rng, 30, 4, rng.integers(0, 25, 30).tolist())

    one = draw(jax.random.key(0), sample, 40, 8)
    assert len(one.train.words) == 40 and len(set(one.test.words)) == 8
    assert set(one.train.words).isdisjoint(one.test.words)
    assert one.test.inputs.shape == (8, 1, 12) and one.train.best.shape == (40, 4, 3)
    with pytest.raises(TooFewError, match="26 different levels for testing"):
        draw(jax.random.key(0), sample, 4, 26)
