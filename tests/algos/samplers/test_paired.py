"""PAIRED and REPAIRED: the teacher's levels are played, and its reward is their score."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import config, testing
from rlgen.algos.samplers import paired
from rlgen.algos.samplers.paired import Paired
from rlgen.algos.samplers.plr import PLR, Alternate
from rlgen.algos.scores.regret import Regret
from rlgen.envs.maze import tiny, to_grid
from rlgen.nn.actor_critic import ActorCritic
from rlgen.protocols import Learner
from rlgen.registry import load
from rlgen.runs.metrics import first_bad
from rlgen.types import NEW, REPLAY, Keys, Outcome
from tests.standins.programs import primitives

N, R = 4, 2
ENV = tiny()
EDITOR = replace(ENV.editor(), horizon=9)
T = EDITOR.horizon
PER_SEED: Any = (0, None)
AXES = Keys(*PER_SEED)


class Seen(NamedTuple):
    rollout: Any
    weight: Any
    num_updates: Any


@dataclass(frozen=True)
class Recorder(Learner):
    """Teacher that builds levels at random and records its training data."""

    num_places: int = N * R

    def init(self, key):
        obs, _ = EDITOR.reset_env(key, EDITOR.sample_level(key))
        kept = {"obs": obs, "action": jnp.int32(0), "reward": jnp.float32(0)}
        kept |= {"next_value": jnp.float32(0), "terminated": False, "truncated": False}
        shape = (T, self.num_places)
        blank = jax.tree.map(lambda x: jnp.zeros(shape + jnp.shape(x), jnp.result_type(x)), kept)
        return Seen(blank, jnp.zeros(self.num_places), jnp.int32(0))

    def act(self, key, state, carry, obs, first):
        action = jax.random.randint(key, first.shape, 0, EDITOR.num_actions)
        return (), action, jnp.zeros(first.shape), jnp.ones(first.shape)

    def value(self, state, carry, obs, first):
        return jnp.full(first.shape, 7.0)

    def update(self, key, state, rollout, weight):
        kept = {name: getattr(rollout, name) for name in state.rollout}
        return Seen(kept, weight, state.num_updates + 1), {"loss": weight.sum()}


def first_slots(sampler, num_slots=N, levels_per_slot=R, memory=()):
    shape = (num_slots, levels_per_slot)
    level = jax.tree.map(
        lambda x: jnp.broadcast_to(x, shape + jnp.shape(x)), sampler.example_level()
    )
    return testing.new_slots(level, memory, sampler.level_info())


def keys(number):
    return Keys(jax.random.key(number), jax.random.key(100 + number))


SAMPLER = Paired(EDITOR, Recorder())
propose, observe = jax.jit(SAMPLER.propose), jax.jit(SAMPLER.observe)
EVERYONE = jnp.ones(N, bool)


def began(number=0, free=EVERYONE, since=None):
    state, slots = since or (SAMPLER.init(jax.random.key(0), ()), first_slots(SAMPLER))
    return propose(keys(number), state, slots, free)


def built(actions):
    """Return walls, goal, and whether the agent's cell differs from the goal, for one episode."""
    goal, _, agent, *toggles = (int(x) for x in actions)
    walls = np.zeros(25, bool)
    for cell in toggles:
        walls[cell] ^= cell not in (goal, agent)
    return walls.reshape(5, 5), [goal % 5, goal // 5], agent != goal


@pytest.mark.thorough
def test_the_teacher_is_paid_the_score_at_its_last_step_and_nothing_before():
    state, slots = began()
    score = jnp.arange(8.0).reshape(N, R).at[1, 1].set(-jnp.inf).at[2, 0].set(jnp.nan) + 1
    done = jnp.asarray([True, True, True, False])
    after = observe(keys(1), state, slots, score, Outcome(done))
    seen, weight, num_updates = after.teacher
    counts = np.asarray([1, 1, 1, 0, 0, 1, 0, 0], bool)
    np.testing.assert_array_equal(weight, counts.astype(float))
    paid = np.where(counts, np.asarray(score).ravel(), 0.0)
    np.testing.assert_array_equal(seen["reward"], np.eye(T)[-1][:, None] * paid)
    last = np.broadcast_to(np.eye(T, dtype=bool)[-1][:, None], (T, N * R))
    np.testing.assert_array_equal(seen["terminated"], last)
    assert not seen["truncated"].any()
    np.testing.assert_array_equal(seen["next_value"], np.where(last, 0.0, 1.0))
    assert num_updates == 1
    metrics = SAMPLER.metrics(after)
    assert metrics["teacher_loss"] == 4 and "teacher_entropy" not in metrics
    np.testing.assert_allclose(metrics["teacher_return"], paid.sum() / 4)
    assert metrics["steps_teacher"] == N * R * T


@pytest.mark.thorough
def test_levels_are_what_the_teacher_built_also_in_slots_that_stay_busy():
    state, slots = began()
    free = jnp.asarray([False, True, True, False])
    state, slots = began(1, free, (state, slots))
    after = observe(keys(2), state, slots, jnp.zeros((N, R)), Outcome(EVERYONE))
    actions = np.asarray(after.teacher.rollout["action"]).T.reshape(N, R, T)
    for n, r in np.ndindex(N, R):
        level = jax.tree.map(lambda x, n=n, r=r: x[n, r], slots.level)
        walls, goal, known = built(actions[n, r])
        np.testing.assert_array_equal(level.goal, goal)
        if known:
            np.testing.assert_array_equal(to_grid(level).walls, walls)
    assert len({tuple(x) for x in actions.reshape(-1, T)}) == N * R
    assert (
        (slots.origin == NEW).all()
        and (slots.weight == 1).all()
        and (slots.buffer_index == -1).all()
    )


def test_every_place_and_every_update_has_its_own_noise():
    noise = [np.asarray(began(number)[1].level_info.obs.noise) for number in (0, 1)]
    seen = np.stack(noise)  # [updates, N, R, T, 16]
    np.testing.assert_array_equal(seen, seen[..., :1, :].repeat(T, axis=3))
    assert len(np.unique(seen[..., 0, :].reshape(-1, 16), axis=0)) == 2 * N * R


@pytest.mark.parametrize("nothing", ["done", "scored"])
def test_without_a_score_the_teacher_does_not_learn(nothing):
    state, slots = began()
    score = jnp.full((N, R), -jnp.inf if nothing == "scored" else 1.0)
    done = EVERYONE if nothing == "scored" else ~EVERYONE
    after = observe(keys(1), state, slots, score, Outcome(done))
    testing.assert_same(after.teacher, state.teacher, "the teacher changed without a score")
    metrics = SAMPLER.metrics(after)
    assert np.isnan(metrics["teacher_loss"]) and np.isnan(metrics["teacher_return"])
    assert metrics["steps_teacher"] == N * R * T
    # Without free slots no level is built and no steps are counted.
    state, again = began(2, ~EVERYONE, (after, slots))
    testing.assert_same(again, slots, "a busy slot was given a level")
    metrics = SAMPLER.metrics(observe(keys(3), state, slots, score, Outcome(done)))
    assert metrics["steps_teacher"] == 0


def small(name, env: Any = ENV, score: Any = "regret", **fields: Any):
    """Build a recipe at its smallest; the teacher is recurrent, so that it has a carry to keep."""
    made = load("recipes", name).build(env, learner="ppo", score=score, network="published")
    owner = "sampler.source" if name == "repaired" else "sampler"
    sizes = {"hidden_size": 4, "head_size": 4, "conv_features": 2, "vector_features": 2}
    networks = ("student.learner", f"{owner}.teacher")
    values = {f"{who}.network.{k}": x for who in networks for k, x in sizes.items()}
    values |= {f"{who}.num_epochs": 1 for who in networks}
    values |= {"num_slots": N, "student.num_steps": 24, f"{owner}.editor.horizon": T}
    values |= {"sampler.capacity": 16, "sampler.min_fill": 0.25}
    known = config.flatten(made)
    return config.override(made, {k: v for k, v in (values | fields).items() if k in known})


def updates(curriculum, num, own=0):
    """Return states, metrics and records of the levels, stacked over the updates."""

    def body(ts, t):
        now = Keys(*(jax.random.fold_in(jax.random.key(k), t) for k in (own, 0)))
        ts, metrics, met = curriculum.update_and_show(ts, now)
        return ts, (ts.sampler, metrics, met)

    return jax.lax.scan(body, curriculum.init(jax.random.key(own)), jnp.arange(num))[1]


@pytest.mark.thorough
def test_the_regret_is_the_antagonists_return_minus_the_protagonists_on_the_same_levels():
    made = small("paired")
    judge = Regret("mean-mean", non_negative=False)

    @jax.jit
    def play(key):
        ts = made.init(key)
        _, slots = made.sampler.propose(keys(0), ts.sampler, ts.slots, ts.free)
        _, outcome, _ = made.student.run(key, ts.student, slots, ts.free)
        return outcome, judge(key, slots, outcome)[0]

    outcome, score = play(jax.random.key(3))
    r = jax.tree.map(np.asarray, outcome.rollout)
    testing.assert_same(
        jax.tree.map(lambda x: x[0, 0], r.obs),
        jax.tree.map(lambda x: x[1, 0], r.obs),
        "the students started on different levels",
    )
    assert (r.action[0] != r.action[1]).any()
    done = r.terminated | r.truncated  # [P, T, N]
    assert done.any(1).all()
    for n in range(N):
        last = [np.flatnonzero(done[p, :, n])[-1] for p in (0, 1)]
        num = done[:, :, n].sum(1)
        total = [r.reward[p, : last[p] + 1, n].sum() / num[p] for p in (0, 1)]
        np.testing.assert_allclose(score[n, 0], total[1] - total[0], atol=1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "env", "score"),
    [
        ("paired", "maze", "regret"),
        ("paired", "cart-pole", "regret"),
        ("minimax", "cart-pole", "negative-return"),
    ],
)
def test_a_recipe_runs_and_every_update_teaches(name, env, score):
    made = small(name, load("envs", env).tiny(), score)
    _, metrics, met = jax.jit(lambda: updates(made, 2))()
    np.testing.assert_allclose(metrics["teacher_return"], met.score.mean((1, 2)), rtol=1e-5)
    assert np.isfinite(metrics["teacher_loss"]).all()
    assert np.isfinite(metrics["teacher_entropy"]).all()
    np.testing.assert_array_equal(metrics["steps_teacher"], N * made.sampler.editor.horizon)
    students = 2 if name == "paired" else 1
    played = metrics["steps_train"] + metrics.get("steps_antagonist", 0)
    np.testing.assert_array_equal(played, students * N * 24)


REPAIRED = {"sampler.decision.replay_prob": 0.6}
POLE = load("envs", "cart-pole").tiny()  # compiles in half the time of a maze
single = jax.jit(updates, static_argnums=(0, 1))


@pytest.mark.thorough
def test_seeds_under_vmap_equal_single_runs():
    made = small("repaired", POLE, **REPAIRED)
    many = jax.jit(jax.vmap(lambda own: updates(made, 12, own)[1]))(jnp.arange(2))
    for i in range(2):
        alone = jax.tree.map(lambda x, i=i: x[i], many)
        one = single(made, 12, i)[1]
        testing.assert_close(alone, one, "a seed differs under vmap", 1e-4)


@pytest.mark.thorough
def test_replays_train_the_students_and_new_levels_the_teacher():
    made = small("repaired", POLE, **REPAIRED)
    sampler, metrics, _ = single(made, 12, 0)
    replays = np.asarray(metrics["levels_replay"]) == 1
    assert 2 < replays.sum() < 11
    taught = np.diff(np.asarray(sampler.source.teacher.num_updates), prepend=0)
    np.testing.assert_array_equal(taught, ~replays)
    num_steps = N * made.sampler.source.editor.horizon
    np.testing.assert_array_equal(metrics["steps_teacher"], np.where(replays, 0, num_steps))
    for name in ("teacher_loss", "teacher_entropy", "teacher_return"):
        np.testing.assert_array_equal(np.isnan(metrics[name]), replays)
    np.testing.assert_array_equal(metrics["weight"], replays)
    np.testing.assert_array_equal(np.isfinite(metrics["loss"]), replays)


def test_a_run_goes_on_while_the_teacher_rests_and_stops_where_it_diverges():
    replayed = {"weight": np.ones((2, 1)), "loss": np.zeros((2, 1))}
    nothing = np.asarray([[0.5], [np.nan]])  # the second update was a replay
    resting = {**replayed, "teacher_loss": nothing, "teacher_return": nothing}
    assert first_bad(0, resting, {}) is None
    lost = {**resting, "teacher_loss": np.full((2, 1), np.nan)}
    assert first_bad(0, lost, {}) == (1, 0, "teacher_loss")


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["propose", "observe"])
def test_under_seeds_the_teachers_episode_and_its_update_stay_branches(kind):
    source = paired.tiny(ENV)
    sampler = PLR(ENV, source, capacity=16, decision=Alternate(0.5))
    seeds = jnp.arange(2)
    state = jax.vmap(lambda seed: sampler.init(jax.random.key(seed), ()))(seeds)
    slots = jax.tree.map(lambda x: jnp.stack([x, x]), first_slots(sampler))
    own = Keys(jax.vmap(jax.random.key)(seeds), jax.random.key(0))
    free = jnp.ones((2, N), bool)
    if kind == "propose":
        arguments = (own, state, slots, free)
    else:
        slots = slots._replace(origin=jnp.full_like(slots.origin, REPLAY))
        arguments = (own, state, slots, jnp.ones((2, N, R)), Outcome(free))
    part = jax.vmap(getattr(sampler, kind), in_axes=(AXES, *(0 for _ in arguments[1:])))
    found = set(primitives(jax.make_jaxpr(part)(*arguments).jaxpr))
    assert ("dot_general", True) in found
    assert ("dot_general", False) not in found


def test_the_teacher_acts_in_the_editor_of_the_config():
    made = small("paired", **{"sampler.editor.horizon": 5, "sampler.teacher.entropy_coef": 0.25})
    assert made.sampler.editor.horizon == made.sampler.teacher.env.horizon == 5
    assert made.sampler.teacher.entropy_coef == 0.25
    assert "sampler.teacher.num_updates" in config.flatten(made)
    with pytest.raises(ValueError, match="num_minibatches=3 does not divide the 4 sequences"):
        small("paired", **{"sampler.teacher.num_minibatches": 3})


def test_networks_for_the_teacher():
    editor = ENV.editor()
    published: Any = paired.teacher_network(editor, "published")
    assert (published.core, published.hidden_size, published.conv_features) == ("lstm", 256, 128)
    numbers = load("envs", "cart-pole").tiny().editor()
    assert paired.teacher_network(numbers, "lean") == ActorCritic(core="none")
    assert not isinstance(paired.teacher_network(editor, "lean"), ActorCritic)
    unknown: Any = "fat"
    with pytest.raises((ValueError, TypeError), match="fat"):
        paired.teacher_network(editor, unknown)


def test_an_environment_without_an_editor_is_refused_by_the_methods_name():
    with pytest.raises(ValueError, match=r"PAIRED's teacher needs .* Probe has no editor"):
        paired.build(testing.Probe())
