"""Levels as a generative model sees them: named parts, each with its own kind of distribution.

An environment with the ability `codec` says which parts make up its levels; a model that knows the
five kinds of part can then learn the levels of any environment. Parts are generated in their order,
so that one may depend on those before it: a place lies on free cells, and apart from other places.

Source of the idea: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
Data-Regularised Environment Design", whose model has such heads for cells, start and goal.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from jaxtyping import Array

from rlgen.types import PyTree


@dataclass(frozen=True)
class Cells:
    """What stands in each cell of a grid; int [H, W], a number into `kinds`.

    Under a place the kind is that of `kinds` which stands for nothing there, and models take any of
    the `free` kinds for as good as another.

    Attributes:
        name: of the part.
        shape: H, W.
        kinds: names of what a cell may hold.
        free: the kinds on which places may lie; the cells that can be walked on.
        landmarks: kinds that stand in relation to the place `hub`, wherever they are.
        hub: name of that place; "" if there is none.
    """

    name: str
    shape: tuple[int, int]
    kinds: tuple[str, ...]
    free: tuple[str, ...]
    landmarks: tuple[str, ...] = ()
    hub: str = ""


@dataclass(frozen=True)
class Place:
    """One cell of a grid; int [], row · W + column.

    Attributes:
        name: of the part.
        on: name of the `Cells` among whose free cells it lies.
        apart_from: names of earlier places, whose cells it cannot share.
    """

    name: str
    on: str
    apart_from: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of a few options; int []."""

    name: str
    num: int


@dataclass(frozen=True)
class Numbers:
    """A vector of real numbers, of the order of 1; float [size]."""

    name: str
    size: int


@dataclass(frozen=True)
class Flags:
    """A vector of yes and no; bool [size]."""

    name: str
    size: int


Part: TypeAlias = Cells | Place | Choice | Numbers | Flags


@runtime_checkable
class LevelCodec(Protocol):
    """The way between an environment's levels and their parts: a frozen dataclass."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What makes up a level, in the order of generation; names are distinct."""
        ...

    def encode(self, level: PyTree) -> dict[str, Array]:
        """The parts of one level, by name."""
        ...

    def decode(self, values: dict[str, Array]) -> PyTree:
        """The level of some parts; the inverse of `encode`, up to what no part holds."""
        ...
