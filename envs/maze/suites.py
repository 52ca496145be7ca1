"""Held-out mazes: eight named mazes, common layouts, perfect mazes and random mazes.

A suite is built when it is requested. Its environment is the caller's environment with the suite's
size and time limit. The other fields are unchanged, so that a trained agent can act in the suite.
Only `num_walls` is reduced if it is too large for the suite's grid. Every level is solvable.
Perfect mazes have no loops; their sizes go up to 101 x 101.

Sources: the eight mazes of `heldout` go back to Dennis et al., 2020, "Emergent Complexity and
Zero-shot Transfer via Unsupervised Environment Design", and Jiang et al., 2021, "Replay-Guided
Adversarial Environment Design". The mazes follow Coward et al., 2024, "JaxUED", whose time limit
for these mazes is 250 steps. In the code of Jiang et al., 2021, the time limit is 450 steps.
Corridors, four rooms, crossings and perfect mazes follow Jiang et al., 2023, "minimax: Efficient
Baselines for Autocurricula in JAX", which adopted them from MiniGrid and from the code of Dennis et
al., 2020. All mazes are built on the host and are identical in every version of jax and numpy.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from rlgen.envs.grid.bitboard import Level, make_level
from rlgen.levels import Suite, exclude, level_stream, make_level_set, take

VERSION = "1"

NAMED = {
    # A maze has 13 rows of 13 cells, from top to bottom, with one hexadecimal number per row. The
    # highest of the 13 bits is the leftmost cell; 1 is a wall. After the rows come x, y and
    # direction of the start, and x, y of the goal.
    "SixteenRooms": (
        "0248 0008 0240 176E 0200 0048 1ADD 0208 0240 0F6B 0248 0040 0208",
        (1, 1, 0),
        (11, 11),
    ),
    "SixteenRooms2": (
        "0208 0048 0248 1EDD 0240 0048 17DF 0248 0200 1B6F 0248 0040 0248",
        (1, 1, 0),
        (11, 11),
    ),
    "Labyrinth": (
        "0000 0FFE 0802 0BFA 0A0A 0AEA 0AAA 0AAA 088A 0FFA 0082 1EBE 0080",
        (0, 12, 0),
        (6, 6),
    ),
    "LabyrinthFlipped": (
        "0000 0FFE 0802 0BFA 0A0A 0AEA 0AAA 0AAA 0A22 0BFE 0820 0FAF 0020",
        (12, 12, 2),
        (6, 6),
    ),
    "Labyrinth2": (
        "0800 0BFE 0A02 0AFA 0A8A 02AA 1EAA 02EA 0A0A 0BFA 0802 0FFE 0000",
        (0, 0, 0),
        (6, 6),
    ),
    "StandardMaze": (
        "0084 0EF6 0800 0FF7 0010 1FBE 0120 0C6F 0522 15BA 1488 16EE 0228",
        (6, 0, 0),
        (6, 12),
    ),
    "StandardMaze2": (
        "0284 0AF1 0804 0FF7 0254 1AD4 0A16 0B72 093A 0DAA 08AA 0AAA 0220",
        (0, 6, 0),
        (12, 4),
    ),
    "StandardMaze3": (
        "0140 0F5E 0850 03D5 1A14 02D6 0A92 0ABB 08A8 0EAE 08A2 0BAA 0888",
        (3, 0, 0),
        (12, 6),
    ),
}

FRESH = {
    # Number of walls, number of levels, seed. Each suite excludes the mazes of the suites above it.
    # `cvar-60` serves to score agents on the worst of many levels (CVaR). This score follows
    # Rutherford et al., 2024, "No Regrets: Investigating and Improving Regret Approximations for
    # Curriculum Discovery", who sample 10,000 levels.
    "test-25": (25, 200, 25_085),
    "test-60": (60, 200, 25_120),
    "cvar-60": (60, 1000, 25_160),
}

Cell = tuple[int, int]


RIGHT, DOWN = (1, 0), (0, 1)


class Layout(NamedTuple):
    """A maze before it is packed as a level. Cells are x, y; walls are indexed y, x."""

    walls: np.ndarray  # bool[H, W]
    start: Cell
    direction: int  # 0 right, 1 down, 2 left, 3 up
    goal: Cell


Mazes: TypeAlias = Iterable[tuple[str, Layout]]  # names and mazes


def suites(env: Any) -> dict[str, Callable[[], Suite]]:
    """Return functions that build the suites, by name.

    The environment of a suite is `env` with the suite's size and time limit.
    """
    # For each suite: a function that yields the mazes, and their time limit in steps.
    fixed: dict[str, tuple[Callable[[], Mazes], int]] = {
        "heldout": (named, 250),
        "trivial": (trivial, 250),
        "small-corridor": (partial(corridors, 13), 450),
        "large-corridor": (partial(corridors, 19), 882),
        "four-rooms": (partial(_drawn, "four-rooms", 64, 17_001, four_rooms), 250),
        "crossing": (partial(_drawn, "crossing", 64, 9_001, crossing), 484),
    }
    for size, num_levels in ((13, 100), (19, 100), (51, 50), (101, 10)):
        name = f"perfect-{size}"
        draw = partial(perfect, size=size)
        fixed[name] = (partial(_drawn, name, num_levels, size, draw), 2 * (size + 2) ** 2)
    made = {name: partial(_suite, env, name, *entry) for name, entry in fixed.items()}
    return made | {name: partial(_fresh, env, name) for name in FRESH}


def named() -> Mazes:
    """Yield the eight mazes of `NAMED`."""
    for name, (rows, (x, y, direction), goal) in NAMED.items():
        bits = [[int(bit) for bit in f"{int(row, 16):013b}"] for row in rows.split()]
        yield name, Layout(np.array(bits, bool), (x, y), direction, goal)


def _drawn(
    name: str, num_levels: int, seed: int, draw: Callable[[np.random.PCG64], Layout]
) -> Mazes:
    for i in range(num_levels):
        yield f"{name}-{i:03d}", draw(level_stream(seed, i))


def _suite(env: Any, name: str, mazes: Callable[[], Mazes], limit: int) -> Suite:
    names, drawn = zip(*mazes(), strict=True)
    height, width = drawn[0].walls.shape
    num_walls = min(env.num_walls, height * width - 2)  # the suite's grid may be smaller
    env = replace(env, height=height, width=width, num_walls=num_walls, max_steps=limit)
    levels = make_level_set(env, _stack(drawn, limit), names, version=VERSION)
    return Suite(f"maze/{name}", env, levels)


def _fresh(env: Any, name: str) -> Suite:
    """Solvable 13 x 13 mazes of random walls; the suites of `FRESH` are disjoint."""
    num_walls, num_levels, seed = FRESH[name]
    draw = partial(random_walls, num_walls=num_walls)
    # 1.5 times as many candidates as levels, because unsolvable mazes and duplicates are dropped.
    candidates = partial(_drawn, name, num_levels * 3 // 2, seed, draw)
    suite = _suite(env, name, candidates, limit=250)
    levels = take(suite.levels, np.asarray(suite.levels.optimal_steps) >= 0)
    for earlier in list(FRESH)[: list(FRESH).index(name)]:
        levels, _ = exclude(levels, _fresh(env, earlier).levels.hash)
    levels = take(levels, slice(num_levels))
    names = tuple(f"{name}-{i:03d}" for i in range(num_levels))
    return suite._replace(levels=replace(levels, names=names))


def _stack(drawn: tuple[Layout, ...], limit: int) -> Level:
    walls, start, direction, goal = (np.array(x) for x in zip(*drawn, strict=True))
    make = jax.jit(jax.vmap(partial(make_level, max_steps=limit)))
    return make(walls, *(x.astype(np.int32) for x in (start, direction, goal)))


def corridors(size: int) -> Iterator[tuple[str, Layout]]:
    """Yield one maze per dead end; the goal is at the closed end of this dead end.

    All mazes have the same dead ends, on both sides of a middle wall. Size 13 has 10 dead ends, and
    size 19 has 16. The agent starts left of the middle wall.
    """
    middle = size // 2
    walls = np.zeros((size, size), bool)
    walls[1:-1, 1:-1:2] = True  # the border cells stay free, so that all dead ends are connected
    walls[middle, 1:-1] = True
    for y in (middle - 1, middle + 1):
        for x in range(2, size - 2, 2):
            yield f"dead-end-{x}-{y}", Layout(walls, (0, middle), 0, (x, y))


def trivial() -> Iterator[tuple[str, Layout]]:
    """Yield squares of side 3, 5 and 7 in a 13 x 13 grid; a short wall separates agent and goal."""
    for size, name in ((3, "TrivialMaze"), (5, "TrivialMaze2"), (7, "TrivialMaze3")):
        walls = np.ones((13, 13), bool)
        walls[:size, :size] = False
        walls[size // 2 : size, size // 2] = True
        yield name, Layout(walls, (0, size - 1), 0, (size - 1, size - 1))


def four_rooms(bits: np.random.PCG64, size: int = 17) -> Layout:
    """Four rooms around a cross of walls with a door in each arm; agent and goal are in rooms."""
    middle = size // 2
    walls = np.zeros((size, size), bool)
    walls[middle], walls[:, middle] = True, True
    inside = ~walls
    for first in (0, middle + 1):
        walls[middle, first + _below(bits, middle)] = False
        walls[first + _below(bits, middle), middle] = False
    return Layout(walls, *_placed(bits, inside))


def crossing(bits: np.random.PCG64, size: int = 9, num_crossings: int = 5) -> Layout:
    """Walls across the whole grid, with gaps along one random monotone path between corners."""
    odd = range(1, size - 1, 2)
    lines = [(axis, place) for axis in (0, 1) for place in odd]
    walls = np.zeros((size, size), bool)
    for _ in range(num_crossings):
        # Lines are drawn without replacement, so that exactly `num_crossings` lines are walls.
        axis, place = lines.pop(_below(bits, len(lines)))
        walls[(place, slice(None)) if axis == 0 else (slice(None), place)] = True
    x, y, step, in_wall = 0, 0, RIGHT, False
    while (x, y) != (size - 1, size - 1):
        if not in_wall:  # inside a wall the direction is kept
            step = (RIGHT, DOWN)[_below(bits, 2)]
            at_border = x == size - 1 if step == RIGHT else y == size - 1
            step = (DOWN if step == RIGHT else RIGHT) if at_border else step
        x, y = x + step[0], y + step[1]
        in_wall = bool(walls[y, x])
        walls[y, x] = False
    return Layout(walls, (0, 0), 0, (size - 1, size - 1))


def perfect(bits: np.random.PCG64, size: int) -> Layout:
    """A maze without loops: a random depth-first spanning tree of the cells at even coordinates."""
    walls = np.ones((size, size), bool)
    x, y = (2 * _below(bits, size // 2 + 1) for _ in range(2))
    walls[y, x] = False
    trail = [(x, y)]
    while trail:
        x, y = trail[-1]
        unseen = [
            (dx, dy)
            for dx, dy in (RIGHT, DOWN, (-1, 0), (0, -1))
            if 0 <= x + 2 * dx < size and 0 <= y + 2 * dy < size and walls[y + 2 * dy, x + 2 * dx]
        ]
        if not unseen:
            trail.pop()
            continue
        dx, dy = unseen[_below(bits, len(unseen))]
        walls[y + dy, x + dx] = walls[y + 2 * dy, x + 2 * dx] = False
        trail.append((x + 2 * dx, y + 2 * dy))
    return Layout(walls, *_placed(bits, ~walls))


def random_walls(bits: np.random.PCG64, num_walls: int, size: int = 13) -> Layout:
    """Draw walls with replacement, then agent and goal on free cells.

    The maze may be unsolvable.
    """
    walls = np.zeros(size * size, bool)
    walls[(bits.random_raw(num_walls) % np.uint64(size * size)).astype(int)] = True
    walls = walls.reshape(size, size)
    return Layout(walls, *_placed(bits, ~walls))


def _placed(bits: np.random.PCG64, free: np.ndarray) -> tuple[Cell, int, Cell]:
    """Draw start, direction and goal; start and goal are distinct free cells, drawn uniformly."""
    cells = [(int(x), int(y)) for y, x in np.argwhere(free)]
    start, goal = (cells.pop(_below(bits, len(cells))) for _ in range(2))
    return start, _below(bits, 4), goal


def _below(bits: np.random.PCG64, bound: int) -> int:
    """Draw a whole number, uniform in 0 .. bound - 1 except for a bias below bound / 2**64."""
    return int(bits.random_raw()) % bound
