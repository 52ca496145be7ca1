"""Difficulty card of an environment family: how hard its levels are, measured without training.

A card is a dict of plain values, which is saved as `card.json`. It contains the number of levels,
the length of their shortest solutions, the returns of random and of optimal actions, the structure
that levels share, and the bits of generalisation (see `inductive_bias`). An unknown value is null,
and its entry under `unknown` is the reason. Equal arguments give equal cards.
"""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from rlgen import config, registry
from rlgen.evaluation.difficulty import inductive_bias, levels
from rlgen.evaluation.difficulty.states import TooFewError
from rlgen.evaluation.suites import family_of
from rlgen.protocols import LevelEnv
from rlgen.types import Key, PyTree

FORMAT = "rlgen-card-1"

_PICTURES = 0x9C7  # folded into the seed's key to sample the levels for pictures

_NEEDS = {
    "solver": (LevelEnv.solve, "shortest solution and best return of a level"),
    "features": (LevelEnv.level_features, "numbers that describe a level"),
    "structure": (LevelEnv.feature_values, "optimal values of states, by feature"),
    "solve_rate": (LevelEnv.success, "a test of whether an episode was solved"),
    "bits": (LevelEnv.labelled_states, "states with their best actions"),
}
"""Parts of a card, each with the capability that it needs and a description of that capability."""

Progress = Callable[[str], None]


def _quietly(text: str) -> None:
    """Ignore a progress message."""


class Ask(NamedTuple):
    """Sizes and seed of a card."""

    sampled: int = 1000  # number M of levels
    seed: int = 0
    curves: inductive_bias.Asked = inductive_bias.Asked()


DEFAULT = Ask()


def check(ask: Ask) -> None:
    """Check the sizes of a card before anything is compiled.

    Raises:
        ValueError: A size is invalid. The message gives the option, its value and the valid range.
    """
    levels, rhos = ask.curves
    if ask.sampled < 2:
        raise ValueError(f"sampled must be at least 2 levels, usually 1000; got {ask.sampled}")
    if not levels or min(levels) < 1 or list(levels) != sorted(set(levels)):
        raise ValueError(
            f"levels must be increasing numbers of training levels, such as 16,64,256,1024; got "
            f"{_list(levels)}"
        )
    if levels[-1] > inductive_bias.MOST_LEVELS:
        raise ValueError(
            f"levels={_list(levels)}: more than {inductive_bias.MOST_LEVELS:,} training levels "
            "need matrices of many GB; use fewer levels"
        )
    if not rhos or not all(0 < rho < 1 for rho in rhos) or len(set(rhos)) != len(rhos):
        raise ValueError(
            f"rho must be distinct fractions between 0 and 1, such as .5,.25,.1; got {_list(rhos)}"
        )


def card(env: Any, name: str, ask: Ask = DEFAULT, say: Progress = _quietly) -> dict[str, Any]:
    """Measure a family and return its card.

    Args:
        env: Environment of the family.
        name: Name of the environment on the card.
        ask: Sizes and seed.
        say: Callback that receives a description of each step before the step starts.

    Raises:
        ValueError: A size is invalid, or a measured number is not finite.
    """
    check(ask)
    key_levels, key_play, key_bits = jax.random.split(jax.random.key(ask.seed), 3)
    say(f"sampling {ask.sampled:,} levels")
    sample = levels.sample_levels(key_levels, env, ask.sampled)
    parts: dict[str, tuple[str, Callable[[], Any]]] = {
        "solver": ("solving the levels", lambda: levels.solved(env, sample)),
        "features": ("computing level features", lambda: levels.features(env, sample)),
        "structure": ("computing shared structure", lambda: levels.structure(env, sample)),
        "random": ("playing random actions", lambda: levels.random_policy(key_play, env, sample)),
    }
    # If the environment lacks a capability, the parts of the card that need it are null.
    unknown = {
        part: f"{type(env).__name__} has no `{capability.__name__}`: {words}"
        for part, (capability, words) in _NEEDS.items()
        if not registry.has(env, capability)
    }
    found: dict[str, Any] = dict.fromkeys(parts)
    for part in (part for part in parts if part not in unknown):
        doing, measure = parts[part]
        say(doing)
        found[part] = measure()
    head, distinct = _head(env, name, ask), levels.distinct(sample.words)._asdict()
    bits = _bits(key_bits, env, ask, say, unknown)
    return _plain({**head, "distinct": distinct, **found, **bits, "unknown": unknown})


def first_levels(env: Any, seed: int, num: int) -> PyTree:
    """Sample levels [num, ...] of the family for pictures; equal seeds give equal levels."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), _PICTURES), num)
    return jax.jit(jax.vmap(env.sample_level))(keys)


def to_json(made: dict[str, Any]) -> str:
    """Return the text of `card.json`."""
    return json.dumps(made, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def _head(env: Any, name: str, ask: Ask) -> dict[str, Any]:
    obs, _ = jax.eval_shape(  # shapes and dtypes only; nothing is compiled
        lambda key: env.reset_env(key, env.sample_level(key)), jax.random.key(0)
    )
    leaves = jax.tree_util.tree_leaves_with_path(obs)
    shapes = {
        jax.tree_util.keystr(path).strip(".[]'\"") or "observation": f"{x.dtype}{list(x.shape)}"
        for path, x in leaves
    }
    return {
        "format": FORMAT,
        "env": name,
        "family": family_of(env),
        "fields": config.to_json(config.flatten(env)),
        "seed": ask.seed,
        "sampled": ask.sampled,
        "levels": ask.curves.levels,
        "num_actions": env.num_actions,
        "observation": shapes,
    }


def _bits(key: Key, env: Any, ask: Ask, say: Progress, unknown: dict[str, str]) -> dict[str, Any]:
    """Compute kernel, table and closed-form bits; add the reasons for missing bits to `unknown`."""
    bits, reference = None, None
    if "bits" not in unknown:
        say("labelling states for bits of generalisation")
        try:
            bits, reference = inductive_bias.measure(
                key, env, ask.curves, lambda done, of: say(f"bits: draw {done} of {of}")
            )
        except TooFewError as error:
            unknown["bits"] = str(error)
    if reference is None:
        # The closed-form bound needs a sample of observations, but not the best actions.
        say("sampling observations from random play")
        reference = inductive_bias.reference_of(key, env)
    closed = inductive_bias.closed_form(reference, ask.curves)
    if "why" in closed:
        unknown["closed_form"] = closed.pop("why")
    return {"bits": _told(bits) if bits else None, "closed_form": closed}


def _told(bits: inductive_bias.Bits) -> dict[str, Any]:
    return {
        "protocol": inductive_bias.PROTOCOL,
        "aliasing": bits.aliasing._asdict(),
        "new_observations": bits.new,
        "kernel": [curve._asdict() for curve in bits.kernel],
        "table": [curve._asdict() for curve in bits.table],
    }


def _plain(x: Any) -> Any:
    """Convert values to JSON types; NaN and infinity become null."""
    if isinstance(x, dict):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, np.generic):
        x = x.item()
    return None if isinstance(x, float) and not math.isfinite(x) else x


def _list(values: tuple) -> str:
    return ",".join(map(str, values)) or "nothing"
