"""Goals and production rules for XLand worlds, drawn at random.

A goal speaks of one or two objects: hold it, stand beside it, put it beside the other. The object
may have to be made, and what it is made of, too: a chain of rules leads from what lies about to the
goal. Beside it lie distractors, and rules that make them into something useless. Every object of
the chain is the input of one rule alone, and no other rule touches it, so that nothing needed can
be lost; in rooms, where whatever is in the way can be carried off, every ruleset can be solved.

This is a generator of rlgen's own, in the encoding of the package. The benchmarks that come with
the paper (`trivial-1m` to `high-3m`: trees of rules, further relations such as "to the right of")
are files to be downloaded, which nothing here does; a ruleset of theirs, once loaded, can be put
into a level by hand: `level.replace(ruleset=Ruleset(r.goal, r.rules, r.init_tiles))`.

Source of the encoding and of the idea: Nikulin et al., 2024, "XLand-MiniGrid: Scalable
Meta-Reinforcement Learning Environments in JAX".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from rlgen.types import Key

KINDS = (3, 4, 5, 7, 11, 12)  # ball, square, pyramid, key, hexagon, star: what can be picked up
COLOURS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 11)  # all but black, which is the floor's
GOAL_HOLD, GOAL_NEAR, GOAL_BESIDE = 1, 3, 4
RULE_HOLD, RULE_NEAR, RULE_BESIDE = 1, 2, 3
MAX_DEPTH, MAX_DISTRACTORS = 4, 8


class Ruleset(NamedTuple):
    """What counts as success, what makes what, and what lies about; rows of 0 are padding."""

    goal: UInt8[Array, "*batch 5"]  # kind, then tiles
    rules: UInt8[Array, "*batch R 7"]  # kind, then input tiles and product
    tiles: UInt8[Array, "*batch K 2"]  # kind and colour


def sample_ruleset(key: Key, max_depth: int, num_distractors: int) -> Ruleset:
    """A goal at the end of a chain of at most `max_depth` rules, each length equally likely.

    Args:
        max_depth: D, 0 for goals whose objects all lie about.
        num_distractors: further objects; every two of them are the input of a rule.
    """
    key_tiles, key_goal, key_depth, key_rules, key_others = jax.random.split(key, 5)
    num_others = num_distractors // 2
    num_chain = 2 + 2 * max_depth
    tiles = _distinct_tiles(key_tiles, num_chain + num_distractors + num_others)
    chain, rest = tiles[:num_chain].reshape(-1, 2, 2), tiles[num_chain:]
    depth = jax.random.randint(key_depth, (), 0, max_depth + 1)
    kinds = jax.random.randint(key_rules, (max_depth,), RULE_HOLD, RULE_BESIDE + 1)
    goal_kind = jnp.array([GOAL_HOLD, GOAL_NEAR, GOAL_BESIDE])[
        jax.random.randint(key_goal, (), 0, 3)
    ]
    # chain[0] are the goal's tiles, chain[i] what makes chain[i - 1, 0].
    active = jnp.arange(max_depth) < depth
    rules = jax.vmap(_rule)(kinds, chain[1:], chain[:-1, 0])
    first = chain[depth, 0]  # what the chain begins with
    second = jnp.concatenate([(goal_kind == GOAL_BESIDE)[None], active & (kinds == RULE_BESIDE)])
    seconds = jnp.where(second[:, None], chain[:, 1], 0)
    objects, products = rest[:num_distractors], rest[num_distractors:]
    other_kinds = jax.random.randint(key_others, (num_others,), RULE_HOLD, RULE_BESIDE + 1)
    others = jax.vmap(_rule)(other_kinds, objects[: 2 * num_others].reshape(-1, 2, 2), products)
    goal = jnp.zeros(5, jnp.int32).at[0].set(goal_kind).at[1:3].set(chain[0, 0])
    goal = goal.at[3:5].set(seconds[0])
    padding = jnp.zeros((1, 7), jnp.int32)  # there is always a row, as the package has it
    return Ruleset(
        goal.astype(jnp.uint8),
        jnp.concatenate([jnp.where(active[:, None], rules, 0), others, padding]).astype(jnp.uint8),
        jnp.concatenate([first[None], seconds, objects]).astype(jnp.uint8),
    )


def _distinct_tiles(key: Key, num: int) -> Int[Array, "num 2"]:
    number = jax.random.permutation(key, len(KINDS) * len(COLOURS))[:num]
    kinds, colours = jnp.array(KINDS), jnp.array(COLOURS)
    return jnp.stack([kinds[number // len(COLOURS)], colours[number % len(COLOURS)]], axis=1)


def _rule(
    kind: Int[Array, ""], inputs: Int[Array, "2 2"], product: Int[Array, "2"]
) -> Int[Array, "7"]:
    """The encoding of one rule, whose product follows on its one or two inputs."""
    one = jnp.concatenate([inputs[0], product, jnp.zeros(2, jnp.int32)])
    two = jnp.concatenate([inputs[0], inputs[1], product])
    return jnp.concatenate([kind[None], jnp.where(kind == RULE_BESIDE, two, one)])
