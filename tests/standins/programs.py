"""Operations of a program, for tests of work that is skipped by branches."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from rlgen.types import Keys


def primitives(jaxpr: Any, under_cond: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (name, whether inside a `cond`) of every operation, including inner programs."""
    for eqn in jaxpr.eqns:
        yield eqn.primitive.name, under_cond
        inside = under_cond or eqn.primitive.name == "cond"
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from primitives(inner, inside)


def over_seeds(cycle: Any, sampler: Any, memory: Any, slots: Any) -> list[tuple[str, bool]]:
    """Return the primitives of one sampler update that is vmapped over three seeds.

    Args:
        cycle: Function of `(sampler, state, slots, keys, free, done)` that does one update.
        sampler: Any sampler.
        memory: Score memory of an unseen level.
        slots: Slots of one seed, all free and done.
    """
    num_seeds = 3
    per_seed: Any = (0, None)
    own = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    states = jax.vmap(sampler.init, in_axes=per_seed)(own, memory)
    many = jax.tree.map(lambda x: jnp.stack([x] * num_seeds), slots)
    everyone = jnp.ones(slots.buffer_index.shape[0], bool)
    step = jax.vmap(
        lambda keys, state, slots: cycle(sampler, state, slots, keys, everyone, everyone),
        in_axes=(Keys(*per_seed), 0, 0),
    )
    return list(primitives(jax.make_jaxpr(step)(Keys(own, own[0]), states, many).jaxpr))
