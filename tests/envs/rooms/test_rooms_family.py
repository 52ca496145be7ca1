"""Grids of walls, lava, doors and keys, compared with slow references."""

from collections import deque
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen.envs.grid import occlusion
from rlgen.envs.grid.occlusion import HIDDEN, Window
from rlgen.envs.grid.rows import pack
from rlgen.envs.rooms import dynamics as happened
from rlgen.envs.rooms import observation, solver
from rlgen.envs.rooms.level import Level, State, start_of

HEIGHT, WIDTH, LEVELS = 6, 30, 24  # wide enough for two words per row
WALL, LAVA = 1, 2
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))
DISCOUNT = 0.9
KEY = jax.random.key(0)


class Drawn:
    """Random grid with two doors; key 0 may open one, and walking into it the other."""

    def __init__(self, rng):
        self.cells = rng.choice(3, (HEIGHT, WIDTH), p=(0.75, 0.17, 0.08))
        column = int(rng.integers(4, WIDTH - 4))
        self.cells[:, column] = WALL  # every path leads through a door, if one exists
        places = [int(i) for i in rng.permutation(HEIGHT)[:2]]
        self.doors = [(column, row) for row in places]
        spots = rng.permutation(HEIGHT * (column - 1))[:2]
        self.start, self.key = ((int(i) % (column - 1), int(i) // (column - 1)) for i in spots)
        self.goal = int(rng.integers(column + 1, WIDTH)), int(rng.integers(HEIGHT))
        for x, y in (*self.doors, self.start, self.key, self.goal):
            self.cells[y, x] = 0
        self.kinds = [("open", "closed", "locked")[i] for i in rng.permutation(3)[:2]]

    def level(self):
        def mask(kind):
            return np.array(sum(1 << i for i, k in enumerate(self.kinds) if k == kind), np.int32)

        return {
            "walls": self.cells == WALL,
            "lava": self.cells == LAVA,
            "doors": np.array(self.doors, np.int32),
            "closed": mask("closed"),
            "locks": mask("locked")[None],
            "keys": np.array([self.key], np.int32),
            "start": np.array(self.start, np.int32),
            "goal": np.array(self.goal, np.int32),
        }

    def opened(self):
        return frozenset(i for i, kind in enumerate(self.kinds) if kind == "open")

    def wall(self, x, y):
        inside = 0 <= x < WIDTH and 0 <= y < HEIGHT
        return not inside or (self.cells[y, x] == WALL and (x, y) not in self.doors)

    def lava(self, x, y):
        return self.cells[y, x] == LAVA


def ref_step(drawn, state, action):
    """Return the next state, the event, and whether the episode is over."""
    x, y, opened, held = state
    if action == 4:
        return ref_interact(drawn, state)
    x, y = x + MOVES[action][0], y + MOVES[action][1]
    if drawn.wall(x, y):
        return state, happened.BUMPED_WALL, False
    door = drawn.doors.index((x, y)) if (x, y) in drawn.doors else None
    if door is not None and door not in opened:
        if drawn.kinds[door] == "locked":
            return state, happened.BUMPED_DOOR, False
        return (*state[:2], opened | {door}, held), happened.OPENED, False
    state = x, y, opened, held
    if drawn.lava(x, y):
        return state, happened.DEATH, True
    if (x, y) == drawn.goal:
        return state, happened.SUCCESS, True
    if (x, y) == drawn.key and not held:
        return state, happened.ON_KEY, False
    return state, happened.NOTHING if door is None else happened.IN_DOORWAY, False


def ref_interact(drawn, state):
    x, y, opened, held = state
    if (x, y) == drawn.key and not held:
        return (x, y, opened, True), happened.GOT_KEY, False
    fitting = {
        i
        for i, (a, b) in enumerate(drawn.doors)
        if abs(a - x) + abs(b - y) == 1 and drawn.kinds[i] == "locked" and i not in opened
    }
    if held and fitting:
        return (x, y, opened | fitting, held), happened.OPENED, False
    return state, happened.NOTHING, False


def explore(drawn):
    """All transitions reachable from the start, and the fewest steps to success per state."""
    first = (*drawn.start, drawn.opened(), False)
    steps, found, queue, moves = {}, {first}, deque([first]), []
    while queue:
        state = queue.popleft()
        for action in range(5):
            after, event, over = ref_step(drawn, state, action)
            moves.append((state, after, event))
            if not over and after not in found:
                found.add(after)
                queue.append(after)
    goals = {after for _, after, event in moves if event == happened.SUCCESS}
    back, queue = {}, deque(goals)
    for state, after, _ in moves:
        back.setdefault(after, set()).add(state)
    steps = dict.fromkeys(goals, 0)
    while queue:
        state = queue.popleft()
        for earlier in back.get(state, ()):
            if earlier not in steps:
                steps[earlier] = steps[state] + 1
                queue.append(earlier)
    return first, moves, steps, found | goals


def as_level(walls, lava, **fields):
    lava, walls = pack(lava, outside=False), pack(walls, outside=True)
    limit = jnp.int32(100)
    return Level(walls, lava, **fields, max_steps_in_episode=limit, height=HEIGHT, width=WIDTH)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    return [Drawn(rng) for _ in range(LEVELS)]


@pytest.fixture(scope="module")
def levels(drawn):
    fields = jax.tree.map(lambda *x: np.stack(x), *(each.level() for each in drawn))
    return jax.jit(jax.vmap(lambda fields: as_level(**fields)))(fields)


@pytest.fixture(scope="module")
def explored(drawn):
    return [explore(each) for each in drawn]


def state_of(x, y, opened, held):
    values = x, y, 0, sum(1 << i for i in opened), int(held), 0
    numbers: Any = [np.int32(v) for v in values]
    return State(*numbers)


def transitions(explored):
    """Level, state and action for all reachable states of all levels."""
    states = [sorted({s for s, _, _ in moves}, key=str) for _, moves, _, _ in explored]
    return [(i, state, a) for i, some in enumerate(states) for state in some for a in range(5)]


def test_steps_follow_the_rules(drawn, levels, explored):
    """Tested on a few thousand transitions, which include every event."""
    rows = transitions(explored)
    rows = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))[:8192]]
    state = jax.tree.map(lambda *x: np.stack(x), *(state_of(*s) for _, s, _ in rows))
    level = jax.tree.map(lambda x: x[np.array([i for i, _, _ in rows])], levels)
    action = np.array([a for _, _, a in rows])
    out = jax.tree.map(np.asarray, jax.jit(jax.vmap(happened.step))(state, action, level))
    seen = set()
    for row, (i, before, a) in enumerate(rows):
        after, event, over = ref_step(drawn[i], before, a)
        expected = state_of(*after)
        for name in ("x", "y", "opened", "held"):
            assert getattr(out.state, name)[row] == getattr(expected, name), (before, a, name)
        assert (out.state.event[row], out.terminated[row]) == (event, over), (before, a)
        assert out.reward[row] == (event == happened.SUCCESS)
        assert out.state.time[row] == 1
        seen.add(event)
    assert seen == set(range(happened.NUM_EVENTS))


def test_a_door_that_does_not_give_stays_shut(drawn, levels):
    i = next(i for i, each in enumerate(drawn) if "closed" in each.kinds)
    door = drawn[i].kinds.index("closed")
    x, y = drawn[i].doors[door]
    state = jax.tree.map(jnp.asarray, state_of(x - 1, y, (), False))
    level = jax.tree.map(lambda a: a[i], levels)
    for door_opens in (False, True):
        out = happened.step(state, 0, level, jnp.bool_(door_opens))
        assert (out.state.x, out.state.opened) == (x - 1, door_opens << door)
        assert out.state.event == (happened.OPENED if door_opens else happened.BUMPED_DOOR)


def test_the_fewest_steps_are_those_of_a_plain_search(levels, explored):
    solution = jax.jit(jax.vmap(solver.solve))(levels)
    expected = [steps.get(first, -1) for first, _, steps, _ in explored]
    assert solution.steps.tolist() == expected
    assert -1 in expected and len(set(expected)) > 5
    assert solution.solvable.tolist() == [n >= 0 for n in expected]
    assert solution.optimal_return.tolist() == [float(n >= 0) for n in expected]


def test_position_values_are_the_least_of_all_states(levels, explored):
    values = jax.jit(jax.vmap(lambda level: solver.position_values(level, DISCOUNT)))(levels)
    for value, (_, _, steps, found) in zip(np.asarray(values), explored, strict=True):
        expected = np.full((HEIGHT, WIDTH), np.inf)
        for state in found:
            worth = DISCOUNT ** steps[state] if state in steps else 0.0
            expected[state[1], state[0]] = min(expected[state[1], state[0]], worth)
        expected[np.isinf(expected)] = 0
        assert np.allclose(value.reshape(HEIGHT, WIDTH), expected, atol=1e-5)


def test_event_values_are_the_least_of_all_states(levels, explored):
    values = jax.jit(jax.vmap(lambda level: solver.event_values(level, DISCOUNT)))(levels)
    for value, (first, moves, steps, _) in zip(np.asarray(values), explored, strict=True):
        expected = np.full(happened.NUM_EVENTS, np.inf)
        for after, event in [(first, happened.NOTHING), *((s, e) for _, s, e in moves)]:
            worth = DISCOUNT ** steps[after] if after in steps else 0.0
            expected[event] = min(expected[event], worth)
        expected[np.isinf(expected)] = 0
        assert np.allclose(value, expected, atol=1e-5)


def around(flags, x, y):
    """Return the 7x7 window of a grid [H, W] around a cell."""
    return np.pad(flags, 3)[y : y + 7, x : x + 7]


@pytest.mark.thorough
def test_the_view_is_a_part_of_the_grid(drawn, levels):
    """Image and vector are tested on a grid of cells in all levels."""
    spots = [(i, x, y) for i in range(LEVELS) for x in range(0, WIDTH, 3) for y in range(HEIGHT)]
    level = jax.tree.map(lambda x: x[np.array([i for i, _, _ in spots])], levels)
    held = np.arange(len(spots)) % 2
    opened = [drawn[i].opened() if n % 3 else {0} for n, (i, _, _) in enumerate(spots)]
    states = [state_of(x, y, opened[n], held[n]) for n, (_, x, y) in enumerate(spots)]
    state = jax.tree.map(lambda *x: np.stack(x), *states)

    seen = look(state, level)
    whole, hidden = look(state, level, full=True), look(state, level, occlusion=True)
    for n, (i, x, y) in enumerate(spots):
        planes = reference_planes(drawn[i], opened[n], held[n])
        assert seen["image"].shape[1:] == (7, 7, len(planes))
        assert (whole["image"][n, ..., :-1] == np.stack(planes, -1)).all()
        assert np.argwhere(whole["image"][n, ..., -1]).tolist() == [[y, x]]
        assert_hidden(hidden["image"][n], seen["image"][n])
        walls = np.pad(planes[0], 3, constant_values=1)[y : y + 7, x : x + 7]
        assert (seen["image"][n, ..., 0] == walls).all()
        for c, plane in enumerate(planes[1:], 1):
            assert (seen["image"][n, ..., c] == around(plane, x, y)).all(), c
    assert (seen["vector"][:, -1] == held).all()


def look(state, level, **options):
    """Observations as network inputs."""
    chosen = observation.Options(**options)
    one = jax.vmap(lambda state, level: observation.observe(KEY, state, level, chosen))
    return jax.tree.map(np.asarray, jax.jit(lambda *x: observation.unpack(one(*x)))(state, level))


def assert_hidden(image, unhidden):
    """Check that exactly the cells out of sight are hidden."""
    shown = reference_sight((unhidden[..., 0] + unhidden[..., 3]) > 0)
    assert (image[..., -1] == shown).all()
    assert (image[..., :-1] == unhidden * shown[..., None]).all()


def reference_planes(drawn, opened, held):
    doors, shut, goal, key, lock = np.zeros((5, HEIGHT, WIDTH))
    for i, (x, y) in enumerate(drawn.doors):
        doors[y, x] = 1
        shut[y, x] = i not in opened
        lock[y, x] = i not in opened and drawn.kinds[i] == "locked"
    goal[drawn.goal[::-1]] = 1
    key[drawn.key[::-1]] = not held
    return [drawn.cells == WALL, drawn.cells == LAVA, doors, shut, goal, key, lock]


def as_window(flags):
    bits = [int(flags[r, c]) << (8 * r + c) for r in range(7) for c in range(7)]
    word = sum(bits)
    words: Any = [np.uint32(word & 0xFFFFFFFF), np.uint32(word >> 32)]
    return Window(*words)


def reference_sight(blocked):
    """Visible cells, by a plain search whose steps all lead away from the middle."""
    seen, queue = {(3, 3)}, deque([(3, 3)])
    while queue:
        r, c = queue.popleft()
        for a, b in MOVES:
            at = r + a, c + b
            away = abs(at[0] - 3) + abs(at[1] - 3) > abs(r - 3) + abs(c - 3)
            inside = 0 <= at[0] < 7 and 0 <= at[1] < 7
            if away and inside and not blocked[at] and at not in seen:
                seen.add(at)
                queue.append(at)
    shown = np.zeros((7, 7), bool)
    for r in range(7):
        for c in range(7):
            near = any((r + a, c + b) in seen for a in (-1, 0, 1) for b in (-1, 0, 1))
            shown[r, c] = (r, c) in seen or (blocked[r, c] and near)
    return shown


def test_sight_is_that_of_a_plain_search():
    rng = np.random.default_rng(2)
    blocked = rng.random((256, 7, 7)) < rng.uniform(0, 0.8, (256, 1, 1))
    blocked[:, 3, 3] = False
    windows = jax.tree.map(lambda *x: np.stack(x), *map(as_window, blocked))
    shown = np.asarray(occlusion.bits(jax.jit(jax.vmap(occlusion.sight))(windows)))
    expected = np.stack([reference_sight(each) for each in blocked])
    assert (shown == expected).all()
    assert 0.2 < expected.mean() < 0.9


def test_a_window_without_rows_is_empty():
    rows = jnp.zeros((0, 1), jnp.uint32)
    assert not any(occlusion.window(rows, jnp.int32(3), jnp.int32(4)))
    assert not occlusion.holds(as_window(np.ones((7, 7))), jnp.int32(HIDDEN))


def test_episodes_start_with_the_doors_that_stand_open(drawn, levels):
    state = jax.vmap(start_of)(levels)
    expected = [sum(1 << i for i in each.opened()) for each in drawn]
    assert state.opened.tolist() == expected
    assert len(set(expected)) > 1
