"""What is asked of the package craftax; it is imported when a world is first played, not before.

    pip install "rlgen[craftax]"

The games are taken without their own resets and without their own time limit, so that a death is
told from a cut. Their states are held to the types that they start with.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.external.adapter import as_type, import_module, typed_as
from rlgen.types import Key, PyTree

EXTRA = "craftax"
NEVER = 2**31 - 1  # a time limit


class Game(NamedTuple):
    """What is known of a game before it is loaded."""

    id: str  # in the package
    module: str  # of its pictures
    shape: tuple[int, int, int]  # floors, rows and columns of the world
    num_inputs: int  # length of an observation
    num_actions: int
    num_achievements: int
    max_steps: int  # of an episode, as published


GAMES = {
    "symbolic": Game(
        id="Craftax-Symbolic-v1",
        module="craftax.craftax",
        shape=(9, 48, 48),
        num_inputs=8268,
        num_actions=43,
        num_achievements=67,
        max_steps=100_000,
    ),
    "classic": Game(
        id="Craftax-Classic-Symbolic-v1",
        module="craftax.craftax_classic",
        shape=(1, 64, 64),
        num_inputs=1345,
        num_actions=17,
        num_achievements=22,
        max_steps=10_000,
    ),
}


class Step(NamedTuple):
    """What one step led to."""

    obs: Float[Array, " F"]
    state: PyTree
    reward: Float[Array, ""]
    is_over: Bool[Array, ""]  # by death, or the last boss's


@functools.cache
def load(game: str) -> Any:
    """The package's environment without resets.

    Raises:
        ValueError: the package is missing.
    """
    # Its modules keep arrays, which must be no tracers where a trace is the first to ask for them.
    with jax.ensure_compile_time_eval():
        return _module("craftax.craftax_env").make_craftax_env_from_name(
            GAMES[game].id, auto_reset=False
        )


def begin(game: str, world: UInt32[Array, "2"]) -> tuple[Float[Array, " F"], PyTree]:
    """The first moment of the world that grows from a key."""
    env = load(game)
    obs, state = env.reset_env(world, _params(env))
    return obs.astype(jnp.float32), typed_as(state, state)


def step(game: str, key: Key, state: PyTree, action: Int[Array, ""]) -> Step:
    """One step."""
    env = load(game)
    # The state keeps a key, of the old kind as the world's is.
    raw = jax.random.key_data(key)
    obs, new, reward, over, _ = env.step_env(raw, state, action, _params(env))
    new = typed_as(new, state)
    return Step(obs.astype(jnp.float32), new, as_type(reward, jnp.float32), as_type(over, bool))


def floor_of(game: str, state: PyTree) -> Int[Array, ""]:
    """On which floor the agent is; the surface is 0."""
    return state.player_level if GAMES[game].shape[0] > 1 else jnp.int32(0)


@functools.cache
def painter(game: str) -> Any:
    """Draws what the agent sees of a state, as float [H, W, 3] up to 255."""
    with jax.ensure_compile_time_eval():
        module = _module(f"{GAMES[game].module}.renderer")
        return jax.jit(module.make_craftax_pixel_renderer(16))


def _module(name: str) -> Any:
    return import_module(name, "craftax", EXTRA)


def _params(env: Any) -> PyTree:
    return env.default_params.replace(max_timesteps=NEVER)
