"""Files of fitted models, and the command `rlgen fit-generator`."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from rlgen import registry
from rlgen.algos.level_models import files as files
from rlgen.algos.level_models import graph_vae, mlp_vae
from rlgen.envs.classic_control.cart_pole import CartPole
from rlgen.envs.maze import Maze
from rlgen.levels import make_level_set, save_levels
from tests.standins.command_line import rlgen

MAZE = Maze(height=4, width=3, num_walls=3, max_steps=20)
TINY = ["--env.height", "4", "--env.width", "3", "--env.num-walls", "3", "--env.max-steps", "20"]
TINY += ["--model.width", "3", "--model.hidden-size", "8", "--model.num-latents", "4"]
TINY += ["--model.num-layers", "1", "--epochs", "2", "--num-samples", "20"]


def some_levels(env: Any, num: int) -> Any:
    return jax.jit(jax.vmap(env.sample_level))(jax.random.split(jax.random.key(0), num))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[Path, Any, Any]:
    """The file of a model fitted on small mazes, the model, and its fitted parameters."""
    path = tmp_path_factory.mktemp("models") / "generator.npz"
    model = graph_vae.tiny(MAZE)
    fitted = jax.jit(model.fit)(jax.random.key(0), some_levels(MAZE, 6))
    files.save_model(path, model, "maze", fitted, "digest")
    return path, model, fitted


@pytest.fixture(scope="module")
def level_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("levels") / "small.npz"
    save_levels(path, make_level_set(MAZE, some_levels(MAZE, 6)))
    return path


def same(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


# Files.


@pytest.mark.thorough
def test_a_model_comes_back_as_it_was(saved):
    path, model, fitted = saved
    found = files.load_model(path, MAZE)
    assert found.model == model
    assert same(found.fitted, fitted)
    assert (found.env_name, found.digest) == ("maze", "digest")
    assert files.load_model(path.parent, MAZE).model == model  # the folder works as well
    ours, _ = model.propose(jax.random.key(1), fitted, 4)
    theirs, _ = found.model.propose(jax.random.key(1), found.fitted, 4)
    assert same(ours, theirs)


@pytest.mark.thorough
def test_without_its_encoder_a_file_still_proposes(saved, tmp_path):
    _, model, fitted = saved
    bare = fitted._replace(encoder=())
    files.save_model(tmp_path / "bare.npz", model, "maze", bare, "")
    assert same(files.load_model(tmp_path / "bare.npz", MAZE).fitted, bare)
    assert same(files.load_fitted(tmp_path / "bare.npz", model, MAZE), bare)


@pytest.mark.thorough
def test_what_was_learned_is_read_for_a_model_at_hand(saved):
    path, model, fitted = saved
    assert same(files.load_fitted(path, model, MAZE), fitted._replace(encoder=()))
    larger = graph_vae.build(MAZE, hidden_size=9, num_latents=4)
    with pytest.raises(ValueError, match=r"generator\.npz: fitted.*should have shape"):
        files.load_fitted(path, larger, MAZE)
    with pytest.raises(ValueError, match="the level model 'graph-vae', but 'mlp-vae' is required"):
        files.load_fitted(path, mlp_vae.tiny(MAZE), MAZE)


@pytest.mark.thorough
def test_models_of_other_environments_are_refused(saved):
    path = saved[0]
    with pytest.raises(ValueError, match=r"fitted on levels of maze.*shape=\[4, 3\].*\[13, 13\]"):
        files.load_model(path)  # the environment of that name has other default sizes
    with pytest.raises(ValueError, match=r"environment have Numbers\(name=parameters, size=5\)"):
        files.load_model(path, CartPole())


def edited(path: Path, out: Path, **header: Any) -> Path:
    with np.load(path) as file:
        data = {name: file[name] for name in file.files}
    told = json.loads(str(data["header"])) | header
    with out.open("wb") as new:
        np.savez(new, **(data | {"header": np.asarray(json.dumps(told))}))  # pyright: ignore[reportArgumentType]
    return out


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "rlgen-level-model-9"}, "has the format 'rlgen-level-model-9', but"),
        ({"model": "my.model"}, "'my.model', but this version of rlgen reads only graph-vae"),
        ({"fields": {"depth": 3}}, "unknown field 'depth'"),
        ({"env": "mase"}, "unknown env 'mase'"),
        ({"parts": "none"}, "or it is damaged"),
        ({"num_levels": 7}, "should have shape"),
    ],
)
def test_other_headers_are_refused(saved, tmp_path, header, message):
    path = edited(saved[0], tmp_path / "other.npz", **header)
    env = None if "env" in header else MAZE
    with pytest.raises(ValueError, match=message) as refused:
        files.load_model(path, env)
    assert "other.npz" in str(refused.value)


@pytest.mark.thorough
def test_what_is_no_model_is_refused(saved, level_file, tmp_path):
    whole = saved[0].read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("hello")
    for path in (tmp_path / "cut.npz", tmp_path / "text.npz"):
        with pytest.raises(ValueError, match="is not a fitted level model of rlgen, or it is"):
            files.load_model(path, MAZE)
    with pytest.raises(ValueError, match="has the format 'rlgen-levels-1', but"):
        files.load_model(level_file, MAZE)
    with pytest.raises(ValueError, match="there is no file"):
        files.load_model(tmp_path / "nothing.npz", MAZE)


def test_the_list_names_models_only():
    assert registry.names("level-models") == ["graph-vae", "mlp-vae"]


# The command.


@pytest.mark.thorough
def test_the_whole_command_on_mazes(capsys, level_file, tmp_path):
    out = tmp_path / "vae"
    args = ["fit-generator", "--env", "maze", "--levels", str(level_file), "--out", str(out), *TINY]
    code, said, told = rlgen(capsys, *args)
    assert code == 0
    assert "of the proposals are new" in said and str(out / "generator.npz") in said
    assert "fitting: 2 of 2 epochs" in told
    found = json.loads((out / "report.json").read_text())
    assert set(found["sets"]) == {"data", "proposals", "5 edits", "random"}
    assert found["levels"]["num"] == 6 and len(found["loss"]) == 2
    assert set(found["reconstruction"]) == {"layout", "goal", "start", "direction"}
    data, proposals = found["sets"]["data"], found["sets"]["proposals"]
    assert set(data["divergence"].values()) == {0.0}
    assert data["not in the data"] == 0
    assert proposals["levels"] == 20 and 0 <= proposals["solvable"] <= 1
    assert proposals["connected"] == pytest.approx(proposals["solvable"])
    assert Image.open(out / "samples.png").width > 100
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == 2 and found["headline"] in page
    model = files.load_model(out, MAZE)
    assert model.digest == found["levels"]["digest"]
    assert rlgen(capsys, *args)[0] == 2  # the output exists already


@pytest.mark.thorough
def test_the_whole_command_on_parameters(capsys, tmp_path):
    save_levels(tmp_path / "set.npz", make_level_set(CartPole(), some_levels(CartPole(), 6)))
    args = ["--env", "cart-pole", "--model", "mlp-vae", "--levels", str(tmp_path / "set.npz")]
    args += ["--out", str(tmp_path / "vae"), "--epochs", "1", "--num-samples", "8", "--json"]
    code, said, _ = rlgen(capsys, "fit-generator", *args)
    assert code == 0
    found = json.loads(said)
    assert set(found["reconstruction"]) == {"parameters"}
    assert len(found["sets"]["random"]["divergence"]) == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--env chain", "needs an environment with codec()"),
        ("--env maze --model graph-va", "did you mean 'graph-vae'?"),
        ("--env cart-pole", "use mlp-vae, which accepts any levels"),
        ("--env maze", "has no suite `train`; name a file of levels with --levels"),
        ("--env maze --levels nowhere.npz", "there is no file nowhere.npz"),
        ("--env maze --levels bad.npz", "bad.npz is not a level file of rlgen, or it is damaged"),
        ("--env maze --epochs 0", "--epochs must be at least 1, got 0"),
        ("--env maze --num-samples 0", "--num-samples must be at least 1"),
        ("--env maze --model.hiden-size 3", "did you mean '--model.hidden-size'?"),
        ("--env maze --model.batch-size 0", "batch_size=0 must be at least 1"),
        ("--env maze --out bad.npz", "--out bad.npz is a file; name a folder"),
    ],
)
def test_wrong_input_ends_with_one_clear_line(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.npz").write_text("no levels")
    code, out, err = rlgen(capsys, "fit-generator", *args.split())
    assert (code, out) == (2, "")
    assert err.count("\n") == 1 and message in err


def test_help_names_the_options(capsys):
    code, out, _ = rlgen(capsys, "fit-generator", "--env", "maze", "--help")
    assert code == 0
    for option in ("--levels", "--epochs", "--model.num-latents", "--env.height", "--overwrite"):
        assert option in out
