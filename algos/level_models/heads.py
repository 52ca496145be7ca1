"""Heads of the decoder: the distribution of each part of a level, and sampling of whole levels.

`rlgen.codec` defines the parts. A place is one cell of a grid, such as the goal. Each head reads a
separate slice of the decoder's outputs. The distribution of a place depends on earlier parts of the
level. When a likelihood is computed, the earlier parts are the true ones. When a level is
generated, the earlier parts are the sampled ones.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlgen.algos.level_models import cell_heads, number_heads
from rlgen.algos.level_models.objective import Objective
from rlgen.codec import Cells, Choice, Flags, Numbers, Part, Place
from rlgen.types import Key

Outputs = Float[Array, " D"]
Values = dict[str, Array]


@dataclass(frozen=True)
class Heads:
    """The distributions of a level's parts, given D outputs of a decoder.

    Attributes:
        parts: Parts of a level, in the order of generation.
        objective: Scale of numbers, and the weight of each kind of part.

    Source: Garcin et al., 2024, "DRED: Zero-Shot Transfer in Reinforcement Learning via
    Data-Regularised Environment Design". Their heads for cells and places are generalised here to
    any environment.
    """

    parts: tuple[Part, ...]
    objective: Objective

    def __post_init__(self):
        """Check that all references between parts are valid and that grids have room for places."""
        known = {part.name: part for part in self.parts}
        if len(known) < len(self.parts):
            raise ValueError(f"the parts {[p.name for p in self.parts]} must have distinct names")
        for i, part in enumerate(self.parts):
            earlier = {p.name: p for p in self.parts[:i]}
            if isinstance(part, Place):
                _check_place(part, earlier)
            if isinstance(part, Cells):
                _check_cells(part, known)

    @property
    def num_outputs(self) -> int:
        """Number of outputs that the decoder needs, D."""
        return sum(self._sizes())

    def log_likelihood(self, outputs: Outputs, values: Values) -> dict[str, Float[Array, ""]]:
        """Return the log-probability of each part of one level, given the earlier parts.

        The log-probabilities of the cells, flags or numbers of one part are averaged, so that the
        weight of a part does not depend on its size. For a cell on which a place lies, the target
        is uniform over the free kinds.
        """
        found, heads = {}, self._split(outputs)
        for part in self.parts:
            head, value = heads[part.name], values[part.name]
            if isinstance(part, Cells):
                under = self.under_places(part, values)
                found[part.name] = cell_heads.log_likelihood(part, head, value, under)
            elif isinstance(part, Place):
                # The logits are masked, so that only legal cells have probability.
                legal = self._true_mask(part, values)
                found[part.name] = jax.nn.log_softmax(jnp.where(legal, head, -jnp.inf))[value]
            elif isinstance(part, Choice):
                found[part.name] = jax.nn.log_softmax(head)[value]
            elif isinstance(part, Flags):
                # log σ(x) for True, log(1 − σ(x)) = log σ(−x) for False.
                sign = jnp.where(value, 1.0, -1.0)
                found[part.name] = jax.nn.log_sigmoid(sign * head).mean()
            else:
                found[part.name] = number_heads.log_likelihood(self.objective, head, value)
        return found

    def weighted(self, found: dict[str, Float[Array, "..."]]) -> Float[Array, "..."]:
        """Return the sum of the parts' log-likelihoods, weighted by the objective."""
        return sum(
            (self.objective.coef(part) * found[part.name] for part in self.parts),
            start=jnp.zeros(()),
        )

    def sample(self, key: Key, outputs: Outputs) -> Values:
        """Sample the parts of a level in their order; all places are legal.

        A cell is free if and only if its probabilities of the free kinds add up to more than one
        half. The kind of a free cell is sampled among the free kinds, and the kind of any other
        cell among the other kinds. A place never shares a cell with the places that its field
        `apart_from` lists. Each of these places has a most likely cell, which can differ from its
        sampled cell. If possible, the new place lies on a free cell and also avoids these most
        likely cells. If no such cell exists, the place lies on another free cell. If no free cell
        is left either, the place lies on any other cell, which then becomes free.
        """
        made: Values = {}
        free: dict[str, Bool[Array, " C"]] = {}  # free cells of each grid, by name
        likeliest: dict[str, Int[Array, ""]] = {}  # most likely cell of each place
        heads = self._split(outputs)
        for part, key_part in zip(self.parts, jax.random.split(key, len(self.parts)), strict=True):
            head = heads[part.name]
            if isinstance(part, Cells):
                made[part.name], is_free = cell_heads.sample(key_part, part, head)
                free[part.name] = is_free.reshape(-1)
            elif isinstance(part, Place):
                taken = [made[name] for name in part.apart_from]
                shunned = [likeliest[name] for name in part.apart_from]
                place, likeliest[part.name] = cell_heads.sample_place(
                    key_part, head, free[part.on], taken, shunned
                )
                made[part.name] = place
                # Later places see this cell as free, even if it was a wall before.
                free[part.on] = free[part.on].at[place].set(True)
            elif isinstance(part, Choice):
                made[part.name] = jax.random.categorical(key_part, head)
            elif isinstance(part, Flags):
                made[part.name] = jax.random.bernoulli(key_part, jax.nn.sigmoid(head))
            else:
                made[part.name] = number_heads.sample(key_part, self.objective, head)
        return self._cleared(made)

    def accuracy(self, outputs: Outputs, values: Values) -> dict[str, Float[Array, ""]]:
        """Return, for each part, the fraction of its most likely values that agree with a level.

        For numbers, the result is the mean absolute error instead. A place is predicted among its
        legal cells, given the earlier true parts. For a cell on which a place lies, every free kind
        counts as correct.
        """
        found, heads = {}, self._split(outputs)
        for part in self.parts:
            head, value = heads[part.name], values[part.name]
            if isinstance(part, Cells):
                under = self.under_places(part, values)
                right = cell_heads.is_right(part, head, value, under).mean()
            elif isinstance(part, Place):
                likeliest = jnp.where(self._true_mask(part, values), head, -jnp.inf).argmax()
                right = likeliest == value
            elif isinstance(part, Choice):
                right = head.argmax() == value
            elif isinstance(part, Flags):
                right = ((head > 0) == value).mean()
            else:
                right = jnp.abs(number_heads.mean_of(self.objective, head) - value).mean()
            found[part.name] = jnp.asarray(right, jnp.float32)
        return found

    def places_on(self, cells: Cells) -> tuple[Place, ...]:
        """Return the places that lie on a grid."""
        return tuple(p for p in self.parts if isinstance(p, Place) and p.on == cells.name)

    def under_places(self, cells: Cells, values: Values) -> Bool[Array, "H W"]:
        """Return a mask of the cells on which a place of the level lies."""
        at = [values[place.name] for place in self.places_on(cells)]
        return cell_heads.marked(at, int(np.prod(cells.shape))).reshape(cells.shape)

    def _true_mask(self, place: Place, values: Values) -> Bool[Array, " C"]:
        """Return a mask of the legal cells of a place, given the true cells and earlier places.

        Every cell on which a place lies counts as free. The true cell of the place is always legal,
        so that the place's log-probability is finite.
        """
        cells = self._cells_of(place)
        free = cell_heads.is_free(cells, values[cells.name]) | self.under_places(cells, values)
        taken = cell_heads.marked([values[name] for name in place.apart_from], free.size)
        legal = free.reshape(-1) & ~taken
        return legal.at[values[place.name]].set(True)

    def _cleared(self, made: Values) -> Values:
        """Set each cell on which a place lies to the first free kind, which means an empty cell."""
        for part in (part for part in self.parts if isinstance(part, Cells)):
            under = self.under_places(part, made)
            nothing = part.kinds.index(part.free[0]) if part.free else 0
            made[part.name] = jnp.where(under, nothing, made[part.name])
        return made

    def _cells_of(self, place: Place) -> Cells:
        return next(p for p in self.parts if isinstance(p, Cells) and p.name == place.on)

    def _sizes(self) -> list[int]:
        return [self._size(part) for part in self.parts]

    def _size(self, part: Part) -> int:
        if isinstance(part, Cells):
            return int(np.prod(part.shape)) * len(part.kinds)
        if isinstance(part, Place):
            return int(np.prod(self._cells_of(part).shape))
        if isinstance(part, Choice):
            return part.num
        if isinstance(part, Numbers) and self.objective.learn_scale:
            return 2 * part.size  # a mean and a scale for each number
        return part.size

    def _split(self, outputs: Outputs) -> dict[str, Array]:
        """Split the outputs by part; the outputs of cells have shape [H, W, K]."""
        cuts = np.cumsum(self._sizes())[:-1]
        heads = dict(zip([p.name for p in self.parts], jnp.split(outputs, cuts), strict=True))
        for part in self.parts:
            if isinstance(part, Cells):
                heads[part.name] = heads[part.name].reshape(*part.shape, len(part.kinds))
        return heads


def _check_cells(cells: Cells, known: dict[str, Part]) -> None:
    for field in ("free", "landmarks"):
        strange = [kind for kind in getattr(cells, field) if kind not in cells.kinds]
        if strange:
            raise ValueError(
                f"{cells.name}: {field} has {strange[0]!r}, which is not in kinds={cells.kinds}"
            )
    hub = known.get(cells.hub)
    if cells.hub and not (isinstance(hub, Place) and hub.on == cells.name):
        raise ValueError(f"{cells.name}: hub={cells.hub!r} must name a place on {cells.name}")


def _check_place(place: Place, earlier: dict[str, Part]) -> None:
    cells = earlier.get(place.on)
    if not isinstance(cells, Cells) or not cells.free:
        raise ValueError(
            f"{place.name}: on={place.on!r} must name earlier cells, that is, a part of type Cells "
            "with free kinds"
        )
    for name in place.apart_from:
        # Only earlier places: parts are generated in order.
        other = earlier.get(name)
        if not isinstance(other, Place) or other.on != place.on:
            raise ValueError(
                f"{place.name}: apart_from has {name!r}, which must be an earlier place on "
                f"{place.on!r}"
            )
    if int(np.prod(cells.shape)) <= len(place.apart_from):
        raise ValueError(f"{place.name}: {cells.name} of shape {cells.shape} has no room for it")
