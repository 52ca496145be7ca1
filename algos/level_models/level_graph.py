"""The graph of a level, in which the nodes are the cells and edges connect related cells.

Two neighbouring cells have an edge if both are free or both are not free. Every landmark has an
edge to the hub, at any distance. All places have edges to each other. Two nodes have at most one
edge, and no node has an edge to itself. `rlgen.codec` explains places, landmarks and the hub.

Sums over neighbours are computed by shifting the grid. They equal the product of the matrix
`adjacency(graph)` and the node features. For 64 caves on a CPU, shifting takes two thirds of the
time of the product, and no matrix is stored.

Source: Garcin et al., 2024, "DRED", where the landmarks are lava and moss and the hub is the goal.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.level_models.cell_heads import free_kinds, marked
from rlgen.codec import Cells

STEPS = ((0, 1), (0, -1), (1, 1), (1, -1))
"""The four neighbours of a cell, as pairs of a grid axis and a direction along this axis."""


class Graph(NamedTuple):
    """Graph of one level with C = H · W cells and P places."""

    joined: Float[Array, "4 H W"]  # 1 if the cell has an edge to its neighbour in `STEPS`
    to_hub: Float[Array, " C"]  # 1 if the cell has an edge to the hub that is not in `joined`
    hub: Float[Array, " C"]  # 1 at the hub
    places: Float[Array, "P C"]  # one-hot position of each place
    linked: Float[Array, "P P"]  # 1 for pairs of places whose edge is not in `joined`


def features(
    cells: Cells, layout: Int[Array, "H W"], places: dict[str, Int[Array, ""]]
) -> Float[Array, "C F"]:
    """Return the node features: one-hot kind of each cell, then one column per place.

    A cell on which places lie has no kind, and has a 1 in the column of each of these places.
    """
    num_cells = layout.size
    under = marked(list(places.values()), num_cells)
    kinds = (layout.reshape(-1, 1) == jnp.arange(len(cells.kinds))[None]) & ~under[:, None]
    at = [marked([place], num_cells)[:, None] for place in places.values()]
    return jnp.concatenate([kinds, *at], -1).astype(jnp.float32)


def graph_of(cells: Cells, layout: Int[Array, "H W"], places: dict[str, Int[Array, ""]]) -> Graph:
    """Return the graph of one level."""
    num_cells = layout.size
    under = marked(list(places.values()), num_cells)
    free = jnp.asarray(free_kinds(cells))[layout] | under.reshape(layout.shape)
    joined = jnp.stack([_same(free, axis, way) for axis, way in STEPS])
    at = [marked([place], num_cells).astype(jnp.float32) for place in places.values()]
    # near[i] is 1 at the cells that already have an edge to place i.
    near = [_sum_of_shifts(joined, one[:, None])[:, 0] for one in at]
    linked = _links(list(places.values()), near)
    at = jnp.stack(at) if at else jnp.zeros((0, num_cells))
    if not cells.hub:
        return Graph(joined, jnp.zeros(num_cells), jnp.zeros(num_cells), at, linked)
    # Edges between landmarks and the hub, except those that `joined` already contains.
    which = list(places).index(cells.hub)
    is_landmark = np.array([kind in cells.landmarks for kind in cells.kinds])
    wanted = jnp.asarray(is_landmark)[layout].reshape(-1) & ~under & (near[which] == 0)
    return Graph(joined, wanted.astype(jnp.float32), at[which], at, linked)


def sum_neighbours(graph: Graph, x: Float[Array, "C F"]) -> Float[Array, "C F"]:
    """Return the sum of `x` over the neighbours of each node."""
    total = _sum_of_shifts(graph.joined, x)
    # Each landmark receives the features of the hub. The hub receives the sum over the landmarks.
    spokes, hub = graph.to_hub[:, None], graph.hub[:, None]
    total = total + spokes * (hub * x).sum(0, keepdims=True)
    total = total + hub * (spokes * x).sum(0, keepdims=True)
    # Gather the features at the places, [P, F], sum over linked places, scatter to the cells.
    return total + graph.places.T @ (graph.linked @ (graph.places @ x))


def adjacency(graph: Graph) -> Float[Array, "C C"]:
    """Return the adjacency matrix; entry [i, j] is 1 if nodes i and j share an edge, else 0."""
    return sum_neighbours(graph, jnp.eye(graph.to_hub.size))


def _same(free: Bool[Array, "H W"], axis: int, way: int) -> Float[Array, "H W"]:
    """Return 1 where a cell and its neighbour in one direction are both free or both not free."""
    # `roll` wraps around, so cells whose neighbour lies outside the grid are masked.
    inside = np.ones(free.shape, bool)
    edge = [slice(None), slice(None)]
    edge[axis] = slice(-1, None) if way > 0 else slice(0, 1)
    inside[tuple(edge)] = False
    return ((jnp.roll(free, -way, axis) == free) & inside).astype(jnp.float32)


def _sum_of_shifts(joined: Float[Array, "4 H W"], x: Float[Array, "C F"]) -> Float[Array, "C F"]:
    """Sum over neighbouring cells; values that wrap around the border are multiplied by 0."""
    grid = x.reshape(*joined.shape[1:], -1)
    shifted = [jnp.roll(grid, -way, axis) for axis, way in STEPS]
    total = sum(mask[..., None] * one for mask, one in zip(joined, shifted, strict=True))
    return jnp.asarray(total).reshape(x.shape)


def _links(places: list[Int[Array, ""]], near: list[Float[Array, " C"]]) -> Float[Array, "P P"]:
    """Return 1 for pairs of places whose edge is not in `near`, [P, P].

    Entry i of `near` is 1 at the cells that already have an edge to place i.
    """
    linked = jnp.zeros((len(places), len(places)))
    known = []
    for i, j in itertools.combinations(range(len(places)), 2):
        ends = jnp.sort(jnp.stack([places[i], places[j]]))
        missing = (places[i] != places[j]) & (near[i][places[j]] == 0)
        # Two pairs of places may lie on the same two cells, which get only one edge.
        for other in known:
            missing &= ~jnp.array_equal(ends, other)
        known.append(ends)
        linked = linked.at[[i, j], [j, i]].set(missing.astype(jnp.float32))
    return linked
