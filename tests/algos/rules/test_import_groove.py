"""Imported rules: same targets as flax's own modules; unknown layouts are rejected."""

import json
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from rlgen.algos.rules.files import load_rule
from rlgen.algos.rules.import_groove import import_rule
from rlgen.algos.rules.networks import RuleInputs
from rlgen.cli.main import main

M, H, T, B = 4, 5, 7, 3
FIVE = ["reward", "done", "action_prob", "prediction", "next_prediction"]


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        hidden = nn.relu(nn.Dense(6)(x))
        return nn.Dense(1)(hidden)


class Theirs(nn.Module):
    """Rule written with flax's cells, applied step by step from last to first."""

    cell: str
    order: tuple

    @nn.compact
    def __call__(self, told):
        embed = MLP()
        done = told["done"].astype(jnp.float32)
        following = jnp.where(told["done"], 0.0, embed(told["next_prediction"])[..., 0])
        values = told | {"done": done, "prediction": embed(told["prediction"])[..., 0]}
        values["next_prediction"] = following
        x = jnp.stack([values[name] for name in self.order], axis=-1)
        cell = nn.GRUCell(H) if self.cell == "gru" else nn.OptimizedLSTMCell(H)
        zero = jnp.zeros((B, H)) if self.cell == "gru" else (jnp.zeros((B, H)),) * 2
        carry, rows = zero, []
        for t in reversed(range(T)):
            keep = 1 - done[t][:, None]
            carry = jax.tree.map(lambda c, keep=keep: c * keep, carry)
            carry, out = cell(carry, x[t])
            rows.append(out)
        hidden = nn.relu(jnp.stack(rows[::-1]))
        return nn.Dense(1)(hidden)[..., 0], nn.softmax(nn.Dense(M)(hidden))


def told():
    keys = jax.random.split(jax.random.key(0), 6)
    y, y_next = (jax.nn.softmax(jax.random.normal(k, (T, B, M))) for k in keys[:2])
    reward, prob = jax.random.normal(keys[2], (T, B)), jax.random.uniform(keys[3], (T, B))
    done = jax.random.bernoulli(keys[4], 0.3, (T, B))
    return {
        "reward": reward,
        "done": done,
        "action_prob": prob,
        "prediction": y,
        "next_prediction": y_next,
        "discount": jnp.full((T, B), 0.9),
    }


def made(cell="gru", order=tuple(FIVE)):
    """Return the flax module, its parameters, and the parameters by name."""
    module = Theirs(cell, order)
    with jax.numpy_rank_promotion("allow"):
        params = module.init(jax.random.key(1), told())
    params = jax.tree.map(lambda x: x + 0.1 * jnp.arange(x.size).reshape(x.shape) % 0.7, params)
    return module, params, {k: np.asarray(v) for k, v in flatten_dict(params, sep="/").items()}


def write(folder, arrays, **description):
    shapes = {name: x.shape for name, x in arrays.items()}
    np.savez(folder / "rule.npz", **arrays)
    content = {"shapes": shapes, "convention": "descent"} | description
    (folder / "rule.json").write_text(json.dumps(content))
    return folder / "rule.npz", folder / "rule.json"


@pytest.mark.thorough
@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("order", [FIVE, ["discount", *FIVE[::-1]]], ids=["five", "six"])
@pytest.mark.parametrize("convention", ["descent", "ascent"])
def test_an_imported_rule_has_the_same_targets(tmp_path, cell, order, convention):
    module, params, arrays = made(cell, tuple(order))
    paths = write(tmp_path, arrays, inputs=order, convention=convention)
    rule, ours, _ = import_rule(*paths)
    inputs = told()
    with jax.numpy_rank_promotion("allow"):
        targets: Any = module.apply(params, inputs)
    found = rule(ours, RuleInputs(**inputs))
    sign = -1 if convention == "descent" else 1
    np.testing.assert_allclose(found.policy, sign * targets[0], rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(jnp.exp(found.log_prediction), targets[1], rtol=2e-5, atol=1e-6)


def test_one_flat_vector_is_cut_as_described(tmp_path):
    _, _, arrays = made()
    npz, description = write(tmp_path, arrays)
    np.save(tmp_path / "flat.npy", np.concatenate([x.ravel() for x in arrays.values()]))
    one, other = import_rule(npz, description), import_rule(tmp_path / "flat.npy", description)
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)


def test_the_command_writes_a_rule_that_loads_and_says_where_from(tmp_path, capsys):
    npz, description = write(tmp_path, made()[2])
    out = tmp_path / "mine.npz"
    assert main(["import-rule", str(npz), str(description), "--out", str(out)]) == 0
    assert f"rlgen eval {out}" in capsys.readouterr().out
    learned = load_rule(out)
    assert learned.meta["imported"] == "rule.npz" and learned.rule.hidden_size == H
    assert main(["import-rule", str(npz), str(description), "--out", str(out)]) == 2
    assert "already" in capsys.readouterr().err


def renamed(arrays, old, new):
    return {name.replace(old, new): x for name, x in arrays.items()}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "description", "sentence"),
    [
        ({}, {"layout": "haiku"}, "unknown layout 'haiku'; Known: flax-gru, flax-lstm"),
        (("/ir/", "/gate_r/"), {}, "gate_r/kernel.* have no known layout; .* the gates of"),
        ({}, {"inputs": [*FIVE, "step"]}, "step are raw counts of updates"),
        ({}, {"inputs": [*FIVE, "value"]}, "may be left out; unknown value"),
        ({}, {"inputs": FIVE[1:]}, "inputs must contain each of reward, done, .*; got done"),
        ({}, {"inputs": [*FIVE, "discount"]}, "the cell has 5 inputs, but the description lists 6"),
        ({}, {"convention": "up"}, "convention must be 'ascent' .* or 'descent' .*, got 'up'"),
        ({}, {"shapes": {"a": [1]}}, "the arrays a, params/.* in .* or in its description"),
        ({}, {"shapes": 3}, "is not a description of arrays; it must be a JSON object"),
        ({"params/extra": np.zeros(2)}, {}, "the layout flax-gru has no arrays named extra"),
        ({"params/Dense_1/bias": np.zeros(9)}, {}, r"heads/bias is \(10,\), but a rule with 4"),
        (("MLP_0", "Embed_0"), {}, "the layout needs an array MLP_0/Dense_0/kernel"),
        (
            {"params/Dense_0/bias": np.array([np.nan])},
            {},
            "Dense_0/bias contains values that are not",
        ),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, change, description, sentence):
    arrays = made()[2]
    arrays = arrays | change if isinstance(change, dict) else renamed(arrays, *change)
    with pytest.raises(ValueError, match=sentence):
        import_rule(*write(tmp_path, arrays, **description))


def test_invalid_files_are_refused(tmp_path):
    npz, description = write(tmp_path, made()[2])
    npz.write_bytes(b"no numpy")
    with pytest.raises(ValueError, match="is not a NumPy file"):
        import_rule(npz, description)
    with pytest.raises(ValueError, match="is not a description of arrays"):
        import_rule(npz, tmp_path / "none.json")
    np.save(tmp_path / "flat.npy", np.zeros(3))
    with pytest.raises(
        ValueError, match=r"an array of shape \(3,\), but the shapes in its description"
    ):
        import_rule(tmp_path / "flat.npy", description)
