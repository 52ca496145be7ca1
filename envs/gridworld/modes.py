"""All modes of the grid worlds as data: hand-designed sets, procedural families, mazes, mixtures.

Sources: the hand-designed sets are those of Oh et al., 2020, "Discovering Reinforcement Learning
Algorithms", appendix, made square as in Jackson et al., 2023, "Discovering General Reinforcement
Learning Algorithms with Adversarial Environment Design". `rand-tiny` and the procedural families
come from Jackson et al. `longer` has two objects of one type and five of another, as in both
papers; the code of Jackson et al. has two and three. The mazes go back to Dennis et al., 2020,
"Emergent Complexity and Zero-shot Transfer via Unsupervised Environment Design", and Jiang et al.,
2023, "minimax".
"""

from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool

Number: TypeAlias = float | int
Range: TypeAlias = tuple[Number, Number]  # lowest and highest value, both inclusive


class Kind(NamedTuple):
    """Effects of collecting an object of one type; each value is sampled from a range."""

    reward: Range  # sampled uniformly
    terminate_prob: Range  # sampled log-uniformly
    respawn_prob: Range  # sampled log-uniformly


class Family(NamedTuple):
    """A distribution over levels. The start and the objects get random free cells."""

    size: tuple[int, int]  # cells per side, sampled uniformly
    max_steps: tuple[int, int]  # sampled log-uniformly, rounded
    kinds: tuple[Kind, ...]
    objects: tuple[int, ...]  # type of each object
    num_objects: tuple[int, int]  # m, sampled uniformly; a level has the first m objects
    walls: Bool[np.ndarray, "C"]  # cells that are always walls
    # Number of further walls, in distinct cells of the largest grid. Walls that lie outside the
    # grid of a smaller level are dropped.
    num_walls: int = 0


class Mode(NamedTuple):
    """One value of the field `mode`."""

    families: tuple[Family, ...]  # each level is drawn from one family, chosen uniformly
    lifetime: int  # number of updates for which an agent is trained
    is_tabular: bool = True  # if False, objects get random cells in each episode and at respawns


def _designed(
    size: int, max_steps: int, *objects: tuple[int, Number, Number, Number], walls: tuple = ()
) -> Family:
    """Build a hand-designed set from `(count, reward, terminate_prob, respawn_prob)` per type."""
    # The ranges have equal ends, so the effects of each type are fixed.
    kinds = tuple(Kind(*((x, x) for x in rest)) for _, *rest in objects)
    types = tuple(i for i, (num, *_) in enumerate(objects) for _ in range(num))
    grid = np.zeros((size, size), bool)
    for row, column in walls:
        grid[row, column] = True
    num = len(types)
    return Family((size, size), (max_steps, max_steps), kinds, types, (num, num), grid.ravel())


def _column(size: int, column: int, *gaps: int) -> tuple[tuple[int, int], ...]:
    return tuple((row, column) for row in range(size) if row not in gaps)


def _row(size: int, row: int, *gaps: int) -> tuple[tuple[int, int], ...]:
    return tuple((row, column) for column in range(size) if column not in gaps)


_DENSE = _designed(11, 500, (2, 1, 0, 0.05), (1, -1, 0.5, 0.1), (1, -1, 0, 0.5))
_LONG = _designed(11, 1000, (2, 1, 0, 0.01), (2, -1, 0.5, 1))

DESIGNS = {
    "dense": _DENSE,
    "sparse": _designed(13, 50, (1, 1, 1, 0), (1, -1, 1, 0)),
    "long": _LONG,
    "longer": _designed(9, 2000, (2, 1, 0.1, 0.01), (5, -1, 0.8, 1), walls=_column(9, 4, 1, 7)),
    "long-dense": _designed(
        11, 2000, (4, 1, 0, 0.005), walls=_column(11, 5, 0, 7) + _row(11, 4, 2, 8)
    ),
}

RANDOM_DESIGNS = {
    "rand-dense": _DENSE,
    "rand-long": _LONG,
    "rand-small": _designed(7, 500, (2, 1, 0, 0.05), (2, -1, 0.5, 0.1), walls=((1, 2), (3, 4))),
    "rand-sparse": _designed(7, 50, (1, 1, 1, 1), (2, -1, 1, 1)),
    "rand-very-dense": _designed(11, 2000, (1, 1, 0, 1)),
    "rand-tiny": _designed(3, 50, (2, 1, 0, 1)),
}

_TERMINATE, _RESPAWN = (0.01, 1.0), (0.001, 0.1)
_GOOD = Kind((0.0, 1.0), _TERMINATE, _RESPAWN)
_ANY = Kind((-1.0, 1.0), _TERMINATE, _RESPAWN)


def _procedural(
    size: tuple[int, int], num_objects: tuple[int, int], num_walls: int, max_steps: tuple[int, int]
) -> Family:
    """Build a family of random levels, in which each object has its own type.

    The first object never has negative reward.
    """
    most = num_objects[1]
    kinds = (_GOOD, *(_ANY,) * (most - 1))
    no_walls = np.zeros(size[1] ** 2, bool)
    return Family(size, max_steps, kinds, tuple(range(most)), num_objects, no_walls, num_walls)


PROCEDURAL = {
    "debug": _procedural((3, 4), (1, 2), 4, (5, 10)),
    "small": _procedural((4, 6), (1, 3), 7, (20, 100)),
    "medium": _procedural((6, 8), (2, 4), 10, (100, 250)),
    "large": _procedural((8, 10), (2, 5), 15, (250, 750)),
    "all": _procedural((4, 10), (1, 5), 15, (20, 750)),
}

LAYOUTS = {
    # A layout has 13 rows of 13 cells, top to bottom. Each row is a hexadecimal number, whose
    # highest bit is the leftmost cell; 1 is a wall.
    "sixteen-rooms": "0248 0008 0240 176e 0200 0048 1add 0208 0240 0f6b 0248 0040 0208",
    "sixteen-rooms-2": "0208 0048 0248 1edd 0240 0048 17df 0248 0200 1b6f 0248 0040 0248",
    "labyrinth": "0000 0ffe 0802 0bfa 0a0a 0aea 0aaa 0aaa 088a 0ffa 0082 1ebe 0080",
    "labyrinth-flipped": "0000 0ffe 0802 0bfa 0a0a 0aea 0aaa 0aaa 0a22 0bfe 0820 0faf 0020",
    "labyrinth-2": "0800 0bfe 0a02 0afa 0a8a 02aa 1eaa 02ea 0a0a 0bfa 0802 0ffe 0000",
    "standard-maze": "0084 0ef6 0800 0ff7 0010 1fbe 0120 0c6f 0522 15ba 1488 16ee 0228",
    "standard-maze-2": "0284 0af1 0804 0ff7 0254 1ad4 0a16 0b72 093a 0daa 08aa 0aaa 0220",
    "standard-maze-3": "0140 0f5e 0850 03d5 1a14 02d6 0a92 0abb 08a8 0eae 08a2 0baa 0888",
    "small-corridor": "0000 0aaa 0aaa 0aaa 0aaa 0aaa 0ffe 0aaa 0aaa 0aaa 0aaa 0aaa 0000",
}


def _maze(layout: str) -> Family:
    bits = [[bit == "1" for bit in f"{int(row, 16):013b}"] for row in layout.split()]
    return Family((13, 13), (25, 50), (_GOOD,) * 3, (0, 1, 2), (3, 3), np.array(bits).ravel())


MAZES = {name: _maze(layout) for name, layout in LAYOUTS.items()}

_LIFETIME = {"debug": 4, "small": 250, "medium": 1000, "large": 2500, "all": 1000}

MODES = {
    **{name: Mode((family,), _LIFETIME[name]) for name, family in PROCEDURAL.items()},
    "rand-all": Mode((PROCEDURAL["all"],), 25_000, is_tabular=False),
    **{name: Mode((family,), 2500) for name, family in DESIGNS.items()},
    **{
        name: Mode((family,), 250 if name == "rand-tiny" else 25_000, is_tabular=False)
        for name, family in RANDOM_DESIGNS.items()
    },
    **{name: Mode((family,), 2500) for name, family in MAZES.items()},
    "handcrafted": Mode(tuple(DESIGNS.values()), 2500),
    "mazes": Mode(tuple(MAZES.values()), 2500),
}
"""All modes by name."""
