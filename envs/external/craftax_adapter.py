"""Interface to the package craftax, which is imported when a world is first played.

    pip install "rlgen[craftax]"

The games are used without their automatic resets and without their time limit, so that termination
can be distinguished from truncation. After every step, the arrays of a state are converted to the
dtypes that they have at reset.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt32

from rlgen.envs.external.adapter import as_type, import_module, typed_as
from rlgen.types import Key, PyTree

EXTRA = "craftax"
NEVER = 2**31 - 1  # a time limit that is never reached


class Game(NamedTuple):
    """Properties of a game that are needed before the package is loaded."""

    id: str  # name in the package
    module: str  # package that contains the renderer
    shape: tuple[int, int, int]  # floors, rows, columns of the world
    num_inputs: int  # length of an observation
    num_actions: int
    num_achievements: int
    max_steps: int  # time limit of an episode, unless the environment sets another one


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
    """Result of one step."""

    obs: Float[Array, " F"]
    state: PyTree
    reward: Float[Array, ""]
    is_over: Bool[Array, ""]  # whether the agent or the final boss has died


@functools.cache
def load(game: str) -> Any:
    """Load the environment of the package, without automatic resets.

    Raises:
        ValueError: The package is not installed.
    """
    # The modules create global arrays at import; under a trace, these would be leaked tracers.
    with jax.ensure_compile_time_eval():
        return _module("craftax.craftax_env").make_craftax_env_from_name(
            GAMES[game].id, auto_reset=False
        )


def begin(game: str, world: UInt32[Array, "2"]) -> tuple[Float[Array, " F"], PyTree]:
    """Start an episode in the world generated from a key; return `(obs, state)`."""
    env = load(game)
    obs, state = env.reset_env(world, _params(env))
    return obs.astype(jnp.float32), typed_as(state, state)


def step(game: str, key: Key, state: PyTree, action: Int[Array, ""]) -> Step:
    """Take one step of the game, without automatic reset and without time limit."""
    env = load(game)
    # The state stores this key, which must be a raw uint32[2] key like that of the world.
    raw = jax.random.key_data(key)
    obs, new, reward, over, _ = env.step_env(raw, state, action, _params(env))
    new = typed_as(new, state)
    return Step(obs.astype(jnp.float32), new, as_type(reward, jnp.float32), as_type(over, bool))


def floor_of(game: str, state: PyTree) -> Int[Array, ""]:
    """Return the floor of the agent; the surface is 0."""
    return state.player_level if GAMES[game].shape[0] > 1 else jnp.int32(0)


@functools.cache
def painter(game: str) -> Any:
    """Load the function that draws the agent's view of a state, float [H, W, 3] in 0 .. 255."""
    with jax.ensure_compile_time_eval():
        module = _module(f"{GAMES[game].module}.renderer")
        return jax.jit(module.make_craftax_pixel_renderer(16))


def _module(name: str) -> Any:
    return import_module(name, "craftax", EXTRA)


def _params(env: Any) -> PyTree:
    return env.default_params.replace(max_timesteps=NEVER)
