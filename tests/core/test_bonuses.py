"""Combinations of bonuses, their expressions, and their normalisation."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry, testing
from rlgen.bonuses import Combined, Scale, Shaped, gate, parse, product, weighted_sum
from rlgen.nn.normalization import SMALLEST_SHARE, Normalizer
from rlgen.protocols import Bonus
from rlgen.students import OnPolicy
from tests.standins.stubs import Untaught

T, N = 12, 4
KEY = jax.random.key(0)
WEIGHT = np.array([1, 0, 2, 1], np.float32)
MAZE = registry.load("envs", "maze").tiny()
ROLLOUT = testing.random_rollout(0, T, N, 1)


@dataclass(frozen=True)
class Told(Bonus):
    """Bonus that returns a field of the rollout."""

    field: str
    pairs: bool = False
    features: tuple = ()

    def init(self, key, num_slots):
        return ()

    def apply(self, key, state, rollout, weight):
        bonus = getattr(rollout, self.field)
        return state, bonus, {"told": bonus.mean()}


@dataclass(frozen=True)
class Ones(Bonus):
    def init(self, key, num_slots):
        return jnp.zeros(num_slots)

    def apply(self, key, state, rollout, weight):
        return state + 1, jnp.ones_like(rollout.reward), {"told": jnp.ones(())}


def applied(bonus, rollout=ROLLOUT, weight=WEIGHT):
    return jax.jit(bonus.apply)(KEY, bonus.init(KEY, N), rollout, weight)


REWARD, VALUE = (np.asarray(getattr(ROLLOUT, name)) for name in ("reward", "value"))


def test_a_product_with_the_constant_1_is_the_identity():
    for both in (product(Told("value"), Ones()), product(Ones(), Told("value"))):
        _, bonus, metrics = applied(both)
        assert bonus.tobytes() == VALUE.tobytes()
        assert set(metrics) == {"told", "told_right"}


def test_combinations_are_what_they_say():
    left, right = Told("value"), Told("reward")
    np.testing.assert_array_equal(applied(product(left, right))[1], VALUE * REWARD)
    added = applied(weighted_sum(left, right, 0.5))[1]
    np.testing.assert_allclose(added, VALUE + 0.5 * REWARD, rtol=1e-6)
    gated = applied(gate(left, right, 0.2))[1]
    np.testing.assert_array_equal(gated, np.where(REWARD > 0.2, VALUE, 0))
    np.testing.assert_array_equal(applied(Scale(left, -3.0))[1], -3 * VALUE)


def test_a_combination_keeps_both_states():
    state, _, _ = applied(product(Told("value"), weighted_sum(Ones(), Ones())))
    assert state.left == () and (state.right.left == 1).all() and (state.right.right == 1).all()


def test_a_combination_needs_what_its_parts_need():
    blind = Told("value", features=("position",))
    seeing = Told("value", pairs=True, features=("event", "position"))
    for whole in (product(blind, seeing), Shaped(gate(Scale(seeing), blind))):
        assert whole.pairs and {*whole.features} == {"position", "event"}
        assert len(whole.features) == 2
    assert not Shaped(Scale(blind)).pairs and not product(blind, Ones()).pairs


def described(bonus):
    """Return an expression's structure as nested tuples of names."""
    if isinstance(bonus, Combined):
        weight = (bonus.right_weight,) if bonus.right_weight != 1 else ()
        return (bonus.how, described(bonus.left), described(bonus.right), *weight)
    if isinstance(bonus, Scale):
        return ("scale", bonus.factor, described(bonus.bonus))
    return f"{type(bonus).__name__.lower()}/{bonus.key}"


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        ("counts", "counts/position"),
        ("counts/observation", "counts/observation"),
        ("counts*episodic", ("product", "counts/position", "episodic/position")),
        ("0.5*counts", ("scale", 0.5, "counts/position")),
        ("episodic + 2e-1*counts", ("sum", "episodic/position", "counts/position", 0.2)),
        (
            "counts|episodic*counts+episodic",
            (
                "sum",
                ("gate", "counts/position", ("product", "episodic/position", "counts/position")),
                "episodic/position",
            ),
        ),
        (
            "counts*episodic*counts/observation",
            (
                "product",
                ("product", "counts/position", "episodic/position"),
                "counts/observation",
            ),
        ),
    ],
)
def test_expressions_are_read_with_their_precedence(text, structure):
    assert described(parse(text, MAZE)) == structure


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("counts&episodic", "unknown combinator '&' in the bonus 'counts&episodic'; the combi"),
        ("counts**episodic", "lacks a name next to a combinator"),
        ("counts+", "lacks a name next to a combinator"),
        ("0.5", "has a number in place of a name"),
        ("cuonts", "unknown bonus 'cuonts'; did you mean 'counts'"),
        (
            "counts/positon",
            "unknown variant 'positon' of the bonus counts; did you mean 'position'",
        ),
    ],
)
def test_expressions_without_meaning_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence.replace("*", "\\*")):
        parse(text, MAZE)


@pytest.mark.parametrize(
    ("component", "field", "value", "sentence"),
    [
        (
            product(Ones(), Ones()),
            "how",
            "power",
            "how must be one of product, sum, gate, got 'power'",
        ),
        (Shaped(Ones()), "clip", -1.0, "clip must be 0 or more, got -1.0"),
        (
            Normalizer(),
            "mode",
            "max",
            "normalizer.mode must be one of std, return-std, legacy, none, got 'max'",
        ),
        (Normalizer(), "discount", 1.0, "normalizer.discount must lie in"),
        (Normalizer(), "legacy_batch", 0, "normalizer.legacy_batch must be at least 1"),
    ],
)
def test_fields_out_of_range_are_refused(component, field, value, sentence):
    object.__setattr__(component, field, value)  # a call would be stopped by the type checker
    with pytest.raises(ValueError, match=sentence):
        component.__post_init__()


def divided(mode, parts, **options):
    """Return the divisors, [sum of T], of bonuses given in parts `(raw, counted)`."""
    normalizer = Normalizer(mode=mode, **options)
    update, state, found = jax.jit(normalizer.update), None, []
    for raw, counted in parts:
        state = normalizer.init(raw.shape[1]) if state is None else state
        state, divisor = update(state, raw, counted)
        found.append(np.broadcast_to(divisor[:, 0], len(raw)))
    return np.concatenate(found)


def random_parts(seed, mean=0.5, deviation=1.0):
    rng = np.random.default_rng(seed)
    raw = rng.normal(mean, deviation, (2, T, N)).astype(np.float32)
    counted = rng.random((2, T, N)) < 0.7
    counted[0, :2] = False  # no data yet
    return list(zip(raw, counted, strict=True))


def test_a_bonus_is_divided_by_the_deviation_of_all_that_was_seen():
    parts = random_parts(1)
    raw, counted = (np.concatenate(x) for x in zip(*parts, strict=True))
    slow = []
    for t in range(2 * T):
        seen = raw[: t + 1][counted[: t + 1]].astype(np.float64)
        floor = SMALLEST_SHARE * np.sqrt((seen**2).mean()) if seen.size else 1
        slow.append(max(seen.std(), floor) if seen.size else 1)
    np.testing.assert_allclose(divided("std", parts), slow, rtol=1e-4)


def test_a_constant_bonus_is_not_blown_up():
    part = (np.full((T, N), 3.0, np.float32), np.ones((T, N), bool))
    np.testing.assert_allclose(divided("std", [part]), 3 * SMALLEST_SHARE, rtol=1e-4)
    assert (divided("none", [part]) == 1).all()


def test_return_std_is_the_deviation_of_discounted_sums():
    parts = random_parts(2)
    raw, counted = (np.concatenate(x) for x in zip(*parts, strict=True))
    total, seen, slow = np.zeros(N), [], []
    for t in range(2 * T):
        total = np.where(counted[t], 0.9 * total + raw[t], total)
        seen.extend(total[counted[t]])
        floor = SMALLEST_SHARE * np.sqrt(np.square(seen).mean()) if seen else 1
        slow.append(max(np.std(seen), floor) if seen else 1)
    np.testing.assert_allclose(divided("return-std", parts, discount=0.9), slow, rtol=1e-4)


@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 1.0), (0.1, 0.5), (0.0, 2.0)])
def test_legacy_is_what_a_normaliser_that_miscounts_arrives_at(mean, deviation):
    """Batches of T x B numbers are counted as T, so sums are divided by T in place of T x B."""
    batch, steps = 8, 80
    raw = np.random.default_rng(3).normal(mean, deviation, (100, steps, batch))
    num, average, squares = 0, 0.0, 0.0
    for x in raw:
        own = x.sum() / steps
        own_squares = ((x - own) ** 2).sum()
        apart, total = own - average, num + steps
        average += apart * steps / total
        squares += own_squares + apart**2 * num * steps / total
        num = total
    flat = raw.reshape(-1, batch).astype(np.float32)
    ours = divided("legacy", [(flat, np.ones(flat.shape, bool))], legacy_batch=batch)
    exact = np.sqrt(batch * (deviation**2 + (batch - 1) ** 2 * mean**2))
    assert ours[-1] == pytest.approx(exact, rel=0.02)
    # The reference is slightly larger if batch means differ, which the limit neglects.
    assert ours[-1] == pytest.approx(np.sqrt(squares / num), rel=0.04)


def test_shaped_pays_the_normalised_bonus_times_its_coefficient():
    for clip in (0.0, 0.05):
        shaped = Shaped(Told("value"), coef=0.1, clip=clip)
        _, paid, metrics = applied(shaped)
        counted = np.broadcast_to(WEIGHT > 0, (T, N))
        right = 0.1 * VALUE / divided("std", [(VALUE, counted)])[:, None]
        right = np.clip(right, -clip, clip) if clip else right
        np.testing.assert_allclose(paid, right, rtol=1e-5)
        assert metrics["bonus"] == pytest.approx(right[counted].mean(), rel=1e-4)
        assert metrics["bonus_raw"] == pytest.approx(VALUE[counted].mean(), rel=1e-4)
        assert metrics["bonus_nonfinite"] == 0


def test_what_is_not_finite_is_paid_as_nothing_and_counted():
    broken = np.where(np.arange(T)[:, None] == 3, np.nan, VALUE).astype(np.float32)
    _, paid, metrics = applied(Shaped(Told("value")), ROLLOUT._replace(value=jnp.asarray(broken)))
    assert metrics["bonus_nonfinite"] == N
    assert (paid[3] == 0).all() and np.isfinite(paid).all() and (paid[4:] != 0).any()


def test_a_step_without_successor_counts_in_no_statistic():
    done = np.asarray(ROLLOUT.done)
    wild = ROLLOUT._replace(value=jnp.where(done, 1e6, ROLLOUT.value))
    shaped = Shaped(Told("value", pairs=True))
    plain, spoilt = (np.asarray(applied(shaped, x)[1]) for x in (ROLLOUT, wild))
    np.testing.assert_array_equal(plain[~done], spoilt[~done])
    heard = np.asarray(applied(Shaped(Told("value")), wild)[1])
    assert (heard[~done] != plain[~done]).any()


@pytest.mark.thorough
def test_a_shaped_combination_keeps_the_laws():
    tiny = [registry.load("bonuses", name).tiny(MAZE) for name in ("episodic", "counts")]
    seeing = replace(tiny[1], key="observation")
    testing.check_bonus(MAZE, Shaped(product(tiny[0], seeing), Normalizer("return-std")))


@dataclass(frozen=True)
class Idle(Untaught):
    """Learner whose state is the sum of its rewards and bonuses."""

    env: testing.Probe

    def init(self, key):
        return jnp.zeros(2)

    def act(self, key, state, carry, obs, first):
        zero = jnp.zeros(first.shape)
        return carry, jax.random.randint(key, first.shape, 0, 2), zero, zero

    def update(self, key, state, rollout, weight):
        return jnp.stack([rollout.reward.sum(), rollout.bonus.sum()]), {}


@pytest.mark.thorough
def test_a_student_is_paid_the_bonus_beside_the_reward():
    env = testing.Probe("policy")
    level = jax.vmap(env.sample_level)(jax.random.split(KEY, N))
    slots = testing.new_slots(jax.tree.map(lambda x: x[:, None], level), ())
    found = {}
    for name, bonus in {"with": Shaped(Ones(), Normalizer("none")), "without": ()}.items():
        student = OnPolicy(env, Idle(env), T, bonus=bonus)
        state = student.init(KEY, N)
        found[name] = jax.jit(student.run)(KEY, state, slots, jnp.ones(N, bool))
    (state, outcome, metrics), (bare_state, bare, _) = found["with"], found["without"]
    assert outcome.rollout.reward.tobytes() == bare.rollout.reward.tobytes()
    np.testing.assert_allclose(outcome.rollout.bonus, 0.02)
    np.testing.assert_allclose(
        state.learner[0], [bare_state.learner[0, 0], 0.02 * T * N], rtol=1e-5
    )
    assert bare_state.learner[0, 1] == 0 and metrics["bonus_raw"] == 1
