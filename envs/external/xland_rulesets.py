"""Random goals and production rules for XLand worlds.

There are three kinds of goal: hold an object, stand next to an object, or put one object next to
another. A rule turns one or two input objects into a product. The object of the goal may be the
product of a rule, an input of this rule may be the product of another rule, and so on. A chain of
rules thus leads from the initial objects to the goal. Distractors are further objects, and further
rules turn them into useless objects. Every object of the chain is the input of at most one rule and
occurs in no rule of the distractors, so no object that is needed can be lost. In worlds that
consist of rooms, objects that block the path can be carried away, so every ruleset is solvable.

This generator is specific to rlgen and uses the encoding of the package xminigrid. The benchmarks
of the paper below (`trivial-1m` to `high-3m`) have trees of rules and further relations such as "to
the right of". They are files that must be downloaded; rlgen does not download them. To play a
ruleset `r` of a benchmark that you have loaded, set it in a level:
`level.replace(ruleset=Ruleset(r.goal, r.rules, r.init_tiles))`.

Source of the encoding and of the idea: Nikulin et al., 2024, "XLand-MiniGrid: Scalable
Meta-Reinforcement Learning Environments in JAX".
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from rlgen.types import Key

KINDS = (3, 4, 5, 7, 11, 12)  # objects to pick up: ball, square, pyramid, key, hexagon, star
COLOURS = (1, 2, 3, 4, 5, 6, 8, 9, 10, 11)  # all colours except black, the floor
# Kinds of goal and rule in the encoding of the package: agent holds an object, agent is next to an
# object, one object is next to another.
GOAL_HOLD, GOAL_NEAR, GOAL_BESIDE = 1, 3, 4
RULE_HOLD, RULE_NEAR, RULE_BESIDE = 1, 2, 3
MAX_DEPTH, MAX_DISTRACTORS = 4, 8


class Ruleset(NamedTuple):
    """Goal, production rules and initial objects of a world; rows of 0 are padding."""

    goal: UInt8[Array, "*batch 5"]  # kind of goal, then the tiles of its objects
    rules: UInt8[Array, "*batch R 7"]  # kind of rule, then the tiles of inputs and product
    tiles: UInt8[Array, "*batch K 2"]  # kind and colour of each object


def sample_ruleset(key: Key, max_depth: int, num_distractors: int) -> Ruleset:
    """Sample a goal and a chain of rules that leads to the goal.

    The length of the chain is uniform in 0 .. `max_depth`.

    Args:
        key: Random key, consumed.
        max_depth: Maximum length of the chain; with 0 the goal needs only initial objects.
        num_distractors: Number of further objects, grouped in pairs; each pair is the input of one
            rule.
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
    # chain[0] holds the tiles of the goal, and chain[i] holds the inputs of the rule that makes
    # chain[i - 1, 0]. All tiles are distinct. Only the first `depth` rules are active.
    active = jnp.arange(max_depth) < depth
    rules = jax.vmap(_rule)(kinds, chain[1:], chain[:-1, 0])
    first = chain[depth, 0]  # first input of the chain
    # Second tiles are needed only where two objects must be put next to each other.
    second = jnp.concatenate([(goal_kind == GOAL_BESIDE)[None], active & (kinds == RULE_BESIDE)])
    seconds = jnp.where(second[:, None], chain[:, 1], 0)
    objects, products = rest[:num_distractors], rest[num_distractors:]
    other_kinds = jax.random.randint(key_others, (num_others,), RULE_HOLD, RULE_BESIDE + 1)
    others = jax.vmap(_rule)(other_kinds, objects[: 2 * num_others].reshape(-1, 2, 2), products)
    goal = jnp.zeros(5, jnp.int32).at[0].set(goal_kind).at[1:3].set(chain[0, 0])
    goal = goal.at[3:5].set(seconds[0])
    padding = jnp.zeros((1, 7), jnp.int32)  # the package expects at least one row of rules
    return Ruleset(
        goal.astype(jnp.uint8),
        jnp.concatenate([jnp.where(active[:, None], rules, 0), others, padding]).astype(jnp.uint8),
        jnp.concatenate([first[None], seconds, objects]).astype(jnp.uint8),
    )


def _distinct_tiles(key: Key, num: int) -> Int[Array, "num 2"]:
    # Each number stands for one pair of kind and colour.
    number = jax.random.permutation(key, len(KINDS) * len(COLOURS))[:num]
    kinds, colours = jnp.array(KINDS), jnp.array(COLOURS)
    return jnp.stack([kinds[number // len(COLOURS)], colours[number % len(COLOURS)]], axis=1)


def _rule(
    kind: Int[Array, ""], inputs: Int[Array, "2 2"], product: Int[Array, "2"]
) -> Int[Array, "7"]:
    """Encode one rule as its kind, its one or two input tiles, its product, and padding zeros."""
    one = jnp.concatenate([inputs[0], product, jnp.zeros(2, jnp.int32)])
    two = jnp.concatenate([inputs[0], inputs[1], product])
    return jnp.concatenate([kind[None], jnp.where(kind == RULE_BESIDE, two, one)])
