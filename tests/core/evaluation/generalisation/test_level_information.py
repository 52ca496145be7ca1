"""Level information: closed forms, robustness to confounders, and the features it uses."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.algos.learners import a2c, ppo
from rlgen.algos.learners.a2c import A2C
from rlgen.algos.learners.ppo import PPO
from rlgen.envs import maze
from rlgen.evaluation.generalisation.level_information import (
    Probe,
    heldout,
    in_halves,
    online,
    play_on,
    some_features,
)
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import Learner
from tests.standins.corridors import Forward

SIZE = 640  # steps in each half


def estimate(feature: np.ndarray, label: np.ndarray, num_levels: int, probe=()):
    found = jax.jit(heldout, static_argnums=(2, 3))(
        jnp.asarray(feature, jnp.float32), jnp.asarray(label), num_levels, probe
    )
    return float(found.raw), float(found.accuracy), float(found.nats)


def labels(num_levels: int, size: int = SIZE) -> np.ndarray:
    return np.tile(np.arange(num_levels), (2, size // num_levels))


def noise(label: np.ndarray, num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*label.shape, num))


@pytest.mark.thorough
@pytest.mark.parametrize("num_levels", [2, 16])
def test_features_that_name_the_level_tell_everything(num_levels):
    label = labels(num_levels)
    one_hot = np.eye(num_levels)[label] + 0.05 * noise(label, num_levels)
    raw, accuracy, _ = estimate(np.concatenate([one_hot, noise(label, 8)], -1), label, num_levels)
    assert accuracy > 0.999
    assert 0.97 * np.log(num_levels) < raw <= np.log(num_levels)


@pytest.mark.parametrize("seed", range(3))
def test_features_without_the_level_tell_nothing(seed):
    label = labels(16)
    raw, accuracy, nats = estimate(noise(label, 32, seed), label, 16)
    assert -0.02 < raw < 0.01
    assert nats == max(raw, 0)
    assert accuracy < 0.1


def test_what_could_be_memorised_carries_no_information():
    label = labels(4, 64)
    # With more features than steps, a classifier separates its training half perfectly.
    raw, _, _ = estimate(noise(label, 128), label, 4)
    assert -0.1 < raw < 0.05


def test_a_level_known_up_to_a_pair_is_worth_ln_2_less():
    label = labels(16)
    raw, _, _ = estimate(np.eye(8)[label // 2] + 0.05 * noise(label, 8), label, 16)
    assert raw == pytest.approx(np.log(8), abs=0.03)


def test_a_binary_symmetric_channel_has_its_capacity():
    rng, label, flip = np.random.default_rng(0), labels(2, 8000), 0.2
    sent = np.where(rng.random(label.shape) < flip, 1 - label, label)
    raw, accuracy, _ = estimate(sent[..., None], label, 2)
    entropy = -flip * np.log(flip) - (1 - flip) * np.log(1 - flip)
    assert raw == pytest.approx(np.log(2) - entropy, abs=0.02)
    assert accuracy == pytest.approx(1 - flip, abs=0.02)


def test_gaussian_levels_have_the_information_of_a_numerical_integral():
    # Two levels at -1 and 1 with unit noise: I = ln 2 - E ln(1 + exp(-2 x)), x ~ N(1, 1).
    label = labels(2, 8000)
    x = np.linspace(-9, 11, 20001)
    density = np.exp(-((x - 1) ** 2) / 2) / np.sqrt(2 * np.pi)
    exact = np.log(2) - (density * np.log1p(np.exp(-2 * x))).sum() * (x[1] - x[0])
    raw, _, _ = estimate((2 * label - 1)[..., None] + noise(label, 1), label, 2)
    assert raw == pytest.approx(exact, abs=0.02)


def test_permuted_labels_are_chance():
    label, rng = labels(16), np.random.default_rng(0)
    feature = np.eye(16)[label]
    shuffled = np.stack([rng.permutation(one) for one in label])
    raw, _, _ = estimate(feature, shuffled, 16)
    assert -0.03 < raw < 0.01


def test_levels_that_were_played_longer_tell_nothing_by_that():
    label = np.tile(np.repeat([0, 1], [SIZE * 9 // 10, SIZE // 10]), (2, 1))
    raw, _, _ = estimate(noise(label, 2), label, 2)  # the step counts alone would give ln 2 - 0.325
    assert raw < 0.02


def test_scale_and_mixing_of_features_change_nothing():
    label, rng = labels(8), np.random.default_rng(0)
    feature = np.eye(8)[label] + 0.3 * noise(label, 8)
    mixed = 100.0 * feature @ rng.normal(size=(8, 8)) + 7.0
    none = Probe(shrinkage=1e-5)
    assert estimate(mixed, label, 8, none)[0] == pytest.approx(
        estimate(feature, label, 8, none)[0], abs=0.02
    )


def test_the_published_estimate_is_that_of_one_epoch():
    label = labels(4, 4096)[0]
    one_hot = jnp.asarray(np.eye(4)[label], jnp.float32)
    run = jax.jit(online, static_argnums=3)
    key = jax.random.key(0)
    little = float(run(key, one_hot, jnp.asarray(label), 4).raw)
    strong = float(run(key, 200.0 * one_hot, jnp.asarray(label), 4).raw)
    nothing = float(run(key, jnp.zeros_like(one_hot), jnp.asarray(label), 4).raw)
    assert abs(little) < 0.05  # eight small steps do not fit, even with informative features
    assert little < strong < np.log(4)
    assert nothing == pytest.approx(0.0, abs=1e-5)


def test_halves_hold_other_slots_of_the_same_levels():
    num_levels, num_slots = 3, 12
    slot = jnp.broadcast_to(jnp.arange(num_slots)[None, :, None], (5, num_slots, 1))
    feature, label = in_halves(slot.astype(jnp.float32), num_levels)
    assert feature.shape == (2, 30, 1)
    np.testing.assert_array_equal(feature[..., 0].astype(int) % num_levels, label)
    assert set(np.asarray(feature[0, :, 0])) == set(range(6))
    assert set(np.asarray(feature[1, :, 0])) == set(range(6, 12))


def small(core: Any) -> ActorCritic:
    return ActorCritic(core=core, hidden_size=8, head_size=6, conv_features=2)


def heads(params: dict, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    def dense(name, x):
        return x @ params[name]["kernel"] + params[name]["bias"][None, None]

    actor, critic = (jax.nn.relu(dense(f"{n}_hidden", x)) for n in ("actor", "critic"))
    return dense("actor", actor), dense("critic", critic)[..., 0]


@pytest.mark.thorough
@pytest.mark.parametrize("core", ["lstm", "gru", "linear", "none"])
@pytest.mark.parametrize("kind", [PPO, A2C])
def test_heads_on_the_features_give_policy_and_value(core, kind):
    env = maze.tiny()
    learner = kind(env, small(core))
    state = learner.init(jax.random.key(0))
    level = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(1), 3))
    played = play_on(jax.random.key(2), env, learner, state, level, 25)
    assert bool(played.first[1:].any())  # an episode starts within the sequence
    carry = learner.initial_carry(3)
    end, x = learner.features(state, carry, played.obs, played.first)
    last, logits, value = learner.network.unroll(env, state.params, carry, played.obs, played.first)
    found = heads(state.params, x)
    np.testing.assert_allclose(found[0], logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], value, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, end, last)
    # The learner acted in this sequence, so its log-probabilities follow from the features.
    chosen = jnp.take_along_axis(jax.nn.log_softmax(found[0]), played.action[..., None], -1)
    np.testing.assert_allclose(chosen[..., 0], played.log_prob, rtol=1e-4, atol=1e-5)


def test_features_are_of_networks_whose_heads_share_a_trunk():
    env = maze.tiny()
    assert ppo.tiny(env).offers(Learner.features)
    assert not a2c.tiny(env).offers(Learner.features)  # actor and critic are separate
    assert not Forward().offers(Learner.features)


@pytest.mark.thorough
def test_kept_steps_are_spread_over_the_whole_play():
    env = maze.tiny()
    learner = ppo.tiny(env)
    state = learner.init(jax.random.key(0))
    level = jax.vmap(env.sample_level)(jax.random.split(jax.random.key(1), 2))
    played = play_on(jax.random.key(2), env, learner, state, level, 20)
    every = learner.features(state, (), played.obs, played.first)[1]
    some = some_features(jax.random.key(3), learner, state, played.obs, played.first, 4)
    assert some.shape == (4, *every.shape[1:])
    for i in range(4):
        near = [np.allclose(some[i], every[t]) for t in range(5 * i, 5 * i + 5)]
        assert any(near)
