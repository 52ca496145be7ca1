"""The graph of a level: its cells are nodes, and edges join what belongs together.

Edges are those between neighbouring cells that are both free or both not; between every landmark
and the hub, wherever it is; and between all places. There is at most one edge between two nodes,
and none from a node to itself.

Source: Garcin et al., 2024, "DRED", whose levels have lava and moss for landmarks and the goal for
a hub. Sums over neighbours are taken by shifts of the grid: the same as products with the matrix
`adjacency`, in two thirds of the time for 64 caves on a CPU, and no matrix has to be made.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.level_models.cell_heads import free_kinds, marked
from rlgen.codec import Cells

STEPS = ((0, 1), (0, -1), (1, 1), (1, -1))
"""To the four neighbours of a cell: the axis of the grid, and which way along it."""


class Graph(NamedTuple):
    """One level's graph, H · W = C, with P places."""

    joined: Float[Array, "4 H W"]  # 1 where there is an edge to that neighbour
    to_hub: Float[Array, " C"]  # 1 where an edge leads to the hub that is none to a neighbour
    hub: Float[Array, " C"]  # 1 at the hub
    places: Float[Array, "P C"]  # 1 where each place is
    linked: Float[Array, "P P"]  # 1 between places that no other edge joins


def features(
    cells: Cells, layout: Int[Array, "H W"], places: dict[str, Int[Array, ""]]
) -> Float[Array, "C F"]:
    """What each node is: one of the kinds, or under places nothing but those places."""
    num_cells = layout.size
    under = marked(list(places.values()), num_cells)
    kinds = (layout.reshape(-1, 1) == jnp.arange(len(cells.kinds))[None]) & ~under[:, None]
    at = [marked([place], num_cells)[:, None] for place in places.values()]
    return jnp.concatenate([kinds, *at], -1).astype(jnp.float32)


def graph_of(cells: Cells, layout: Int[Array, "H W"], places: dict[str, Int[Array, ""]]) -> Graph:
    """The edges of one level."""
    num_cells = layout.size
    under = marked(list(places.values()), num_cells)
    free = jnp.asarray(free_kinds(cells))[layout] | under.reshape(layout.shape)
    joined = jnp.stack([_same(free, axis, way) for axis, way in STEPS])
    at = [marked([place], num_cells).astype(jnp.float32) for place in places.values()]
    near = [_sum_of_shifts(joined, one[:, None])[:, 0] for one in at]
    linked = _links(list(places.values()), near)
    at = jnp.stack(at) if at else jnp.zeros((0, num_cells))
    if not cells.hub:
        return Graph(joined, jnp.zeros(num_cells), jnp.zeros(num_cells), at, linked)
    which = list(places).index(cells.hub)
    is_landmark = np.array([kind in cells.landmarks for kind in cells.kinds])
    wanted = jnp.asarray(is_landmark)[layout].reshape(-1) & ~under & (near[which] == 0)
    return Graph(joined, wanted.astype(jnp.float32), at[which], at, linked)


def sum_neighbours(graph: Graph, x: Float[Array, "C F"]) -> Float[Array, "C F"]:
    """The sum over the neighbours of each node."""
    total = _sum_of_shifts(graph.joined, x)
    spokes, hub = graph.to_hub[:, None], graph.hub[:, None]
    total = total + spokes * (hub * x).sum(0, keepdims=True)
    total = total + hub * (spokes * x).sum(0, keepdims=True)
    return total + graph.places.T @ (graph.linked @ (graph.places @ x))


def adjacency(graph: Graph) -> Float[Array, "C C"]:
    """The matrix of adjacency; row i sums the neighbours of node i."""
    return sum_neighbours(graph, jnp.eye(graph.to_hub.size))


def _same(free: Bool[Array, "H W"], axis: int, way: int) -> Float[Array, "H W"]:
    """Whether a neighbour is there and as free as the cell itself."""
    inside = np.ones(free.shape, bool)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(-1, None) if way > 0 else slice(0, 1)
    inside[tuple(edge)] = False
    return ((jnp.roll(free, -way, axis) == free) & inside).astype(jnp.float32)


def _sum_of_shifts(joined: Float[Array, "4 H W"], x: Float[Array, "C F"]) -> Float[Array, "C F"]:
    """Over neighbouring cells; what comes round the border meets a 0 of `joined`."""
    grid = x.reshape(*joined.shape[1:], -1)
    shifted = [jnp.roll(grid, -way, axis) for axis, way in STEPS]
    total = sum(mask[..., None] * one for mask, one in zip(joined, shifted, strict=True))
    return jnp.asarray(total).reshape(x.shape)


def _links(places: list[Int[Array, ""]], near: list[Float[Array, " C"]]) -> Float[Array, "P P"]:
    """Between which places an edge is missing; `near` has each one's neighbours so far."""
    linked = jnp.zeros((len(places), len(places)))
    known = []
    for i, j in itertools.combinations(range(len(places)), 2):
        ends = jnp.sort(jnp.stack([places[i], places[j]]))
        missing = (places[i] != places[j]) & (near[i][places[j]] == 0)
        for other in known:
            missing &= ~jnp.array_equal(ends, other)
        known.append(ends)
        linked = linked.at[[i, j], [j, i]].set(missing.astype(jnp.float32))
    return linked
