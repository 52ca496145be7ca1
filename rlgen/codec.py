"""Decomposition of levels into named parts, each with its own kind of distribution.

An environment with the capability `codec` declares the parts of its levels. A generative model that
supports the five kinds of part can then learn the levels of any such environment. Parts are
generated in order, so that a part can depend on earlier ones. For example, a *place* (one cell,
such as the start or the goal) lies on a cell that the agent can enter, and never on the cell of an
earlier place.

Source of the idea: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design". The model of that paper has separate output heads for the
cells, the start and the goal.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array

from rlgen.types import PyTree


@dataclass(frozen=True)
class Cells:
    """Content of each cell of a grid: int [H, W], indices into `kinds`.

    A cell that holds a place (see `Place`) has the kind of an empty cell. In such a cell, models do
    not distinguish between the kinds in `free`.

    Attributes:
        name: name of the part.
        shape: height and width of the grid, H and W.
        kinds: names of the possible contents of a cell.
        free: kinds of the cells that the agent can enter. Places lie on these cells.
        landmarks: kinds of cells whose positions depend on the place named by `hub`.
        hub: name of the place on which the landmarks depend; "" if there are no landmarks.
    """

    name: str
    shape: tuple[int, int]
    kinds: tuple[str, ...]
    free: tuple[str, ...]
    landmarks: tuple[str, ...] = ()
    hub: str = ""


@dataclass(frozen=True)
class Place:
    """One cell of a grid, such as the start or the goal: int [], row · W + column.

    Attributes:
        name: name of the part.
        on: name of the `Cells` on whose free cells the place lies.
        apart_from: names of earlier places. This place never lies on the same cell as one of those
            places.
    """

    name: str
    on: str
    apart_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of `num` options: int [], in 0 .. `num` - 1."""

    name: str
    num: int


@dataclass(frozen=True)
class Numbers:
    """A vector of real numbers with magnitudes of about 1: float [size]."""

    name: str
    size: int


@dataclass(frozen=True)
class Flags:
    """A vector of flags: bool [size]."""

    name: str
    size: int


Part: TypeAlias = Cells | Place | Choice | Numbers | Flags


@runtime_checkable
class LevelCodec(Protocol):
    """Conversion between levels and their parts; implementations are frozen dataclasses."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Parts of a level, in the order of generation; their names are distinct."""
        ...

    def encode(self, level: PyTree) -> dict[str, Array]:
        """Return the parts of one level, by name."""
        ...

    def decode(self, values: dict[str, Array]) -> PyTree:
        """Build a level from its parts.

        This inverts `encode`, except for data that no part contains.
        """
        ...
