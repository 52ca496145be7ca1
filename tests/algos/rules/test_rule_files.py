"""Rule files: saved rules load unchanged, and invalid files are rejected with a reason."""

import io
import json

import jax
import numpy as np
import pytest

from rlgen.algos.rules import files
from rlgen.algos.rules.networks import Rule
from rlgen.evaluation.meta import trainees

RULE = Rule("lstm", hidden_size=3, num_predictions=4, embedding_size=2, discount_input=False)
META = {"env": "gridworld", "updates": 7}
HEADS = "params['heads']['kernel']"


@pytest.fixture(scope="module")
def params():
    return RULE.init(jax.random.key(0))


@pytest.fixture(scope="module")
def content(params):
    return files.rule_bytes(RULE, params, META)


@pytest.fixture
def path(tmp_path, content):
    (tmp_path / "rule.npz").write_bytes(content)
    return tmp_path / "rule.npz"


def rewrite(path, header=(), **arrays):
    """Replace entries of the file's header or arrays; `None` removes an array."""
    with np.load(path) as file:
        data = {name: file[name] for name in file.files}
    told = json.loads(str(data["header"])) | dict(header)
    data |= {"header": np.asarray(json.dumps(told)), **arrays}
    np.savez(path, **{name: x for name, x in data.items() if x is not None})
    return path


def test_what_is_saved_is_loaded(tmp_path, params):
    files.save_rule(tmp_path / "mine.npz", RULE, params, META)
    learned = files.load_rule(str(tmp_path / "mine.npz"))
    assert (learned.rule, learned.meta) == (RULE, META)
    assert jax.tree.structure(learned.params) == jax.tree.structure(params)
    for found, expected in zip(*map(jax.tree.leaves, (learned.params, params)), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_equal_rules_make_equal_files_without_pickles(content, params):
    assert files.rule_bytes(RULE, params, META) == content
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        assert {file[name].dtype.kind for name in file.files} == {"f", "U"}
        header = json.loads(str(file["header"]))
    assert (header["format"], header["convention"]) == ("rlgen-rule-1", "ascent")


def test_a_run_gives_its_first_seed(tmp_path, params):
    (tmp_path / "rules").mkdir()
    for seed in (2, 1):
        name = tmp_path / "rules" / f"seed-{seed:03d}.npz"
        files.save_rule(name, RULE, params, {"seed": seed})
    assert files.load_rule(tmp_path).meta == {"seed": 1}


def test_a_shipped_rule_goes_by_its_name(tmp_path, content, monkeypatch):
    package = tmp_path / "shipped_here"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "lpg-grid.npz").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(files, "SHIPPED", "shipped_here")
    assert files.load_rule("lpg-grid").meta == META
    with pytest.raises(ValueError, match="did you mean 'lpg-grid'\\? Known: lpg-grid, untrained"):
        files.load_rule("lpg-gird")


def test_every_shipped_rule_loads():
    assert all(files.load_rule(name).meta for name in files.shipped_rules())


def test_an_untrained_rule_is_of_the_default_sizes_and_always_the_same():
    first, second = files.load_rule("untrained"), files.load_rule("untrained")
    assert first.rule == Rule() and first.meta == {}
    for x, y in zip(*map(jax.tree.leaves, (first.params, second.params)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("source", ["runs/nowhere", "nowhere.npz"])
def test_a_missing_rule_is_refused(source):
    with pytest.raises(ValueError, match=f"no rule at {source}: no such run or file"):
        files.load_rule(source)


def test_a_run_without_rules_is_refused(tmp_path):
    with pytest.raises(ValueError, match="contains no rules/seed-"):
        files.load_rule(tmp_path)


FIELDS = {
    "core": "gru",
    "hidden_size": 3,
    "num_predictions": 4,
    "embedding_size": 2,
    "discount_input": False,
}


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"format": "rlgen-rule-2"}, "the format 'rlgen-rule-2'; this version of rlgen reads"),
        ({"convention": "descent"}, "has the sign convention 'descent'; rlgen uses 'ascent'"),
        (
            {"rule": FIELDS | {"depth": 2}},
            "this version of rlgen needs the fields clock, core, disc",
        ),
        ({"rule": FIELDS | {"hidden_size": "x"}}, "hidden_size must be a whole number, got 'x'"),
        ({"rule": FIELDS | {"hidden_size": 0}}, "hidden_size must be at least 1, got 0"),
        ({"rule": FIELDS | {"core": "cnn"}}, "core='cnn' is unknown; Known: gru, lstm"),
        ({"rule": FIELDS}, r"\['core'\]\['bias'\] should have shape \(9,\), found \(12,\)"),
        ({"rule": []}, "does not contain the sizes of the rule"),
        ({"meta": []}, "not a rule file of rlgen, or it is damaged"),
    ],
)
def test_a_header_of_another_kind_is_refused(path, header, sentence):
    with pytest.raises(ValueError, match=sentence):
        files.load_rule(rewrite(path, header))


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (None, r"should have shape \(3, 5\), found nothing"),
        (np.zeros((5, 3), np.float32), r"should have shape \(3, 5\), found \(5, 3\)"),
        (
            np.full((3, 5), np.nan, np.float32),
            r"\['kernel'\] contains values that are not finite",
        ),
        (np.full((3, 5), "a"), r"\['kernel'\] contains values that are not finite"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(path, array, sentence):
    with pytest.raises(ValueError, match=sentence):
        files.load_rule(rewrite(path, **{HEADS: array}))


def test_pickled_arrays_are_never_read(path):
    with pytest.raises(ValueError, match="is not a rule file of rlgen, or it is damaged"):
        files.load_rule(rewrite(path, **{HEADS: np.array([print], object)}))


@pytest.mark.parametrize("keep", [0, 1, 10, 200, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, content, keep):
    path.write_bytes(content[: keep if isinstance(keep, int) else int(keep * len(content))])
    with pytest.raises(ValueError, match="is not a rule file of rlgen, or it is damaged"):
        files.load_rule(path)


def test_a_file_with_flipped_bytes_is_refused_or_whole(path, content, params):
    """A rule that loads always equals the one saved."""
    for at in range(40, len(content), 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            learned = files.load_rule(path)
        except ValueError:
            continue
        for found, expected in zip(*map(jax.tree.leaves, (learned.params, params)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_other_files_are_refused(path):
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    with pytest.raises(ValueError, match="is not a rule file of rlgen"):
        files.load_rule(path)


def test_shipped_rules_say_what_they_were_learned_from():
    for name, about in trainees.described().items():
        meta = files.load_rule(name).meta
        assert {"recipe", "env", "preset", "seed", "rlgen", "meta_updates"} <= meta.keys()
        told = f"{meta['recipe']} on {meta['env']}, {meta['meta_updates']:,} meta-updates; "
        assert about.startswith(told) and about.endswith("of the optimum")
        card = meta["card"]
        assert card["command"].startswith(f"rlgen train {meta['recipe']} --env {meta['env']}")
        assert sum(card["env_steps"].values()) > 0 and card["meta_tests"]
