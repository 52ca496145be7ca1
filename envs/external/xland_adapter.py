"""Interface to the package xminigrid, which is imported when a level is first played.

    pip install "rlgen[xland]"

The tasks are used without their time limit and without the decay of the reward with time.
"""

import functools
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Int, UInt8, UInt32

from rlgen.envs.external.adapter import import_module, typed_as
from rlgen.envs.external.xland_rulesets import Ruleset
from rlgen.types import PyTree

EXTRA = "xminigrid"
NEVER = 2**30  # a time limit that is never reached; it keeps the reward of a solution positive


class Task(NamedTuple):
    """Properties of a task that are needed before the package is loaded."""

    id: str  # name in the package
    height: int
    width: int
    view: int  # side of the square view, in cells
    max_steps: int  # time limit of an episode, unless the environment sets another one


_ROOMS = {
    "r1": (9, 11, 13, 15, 17),
    "r2": (9, 11, 13, 15, 17),
    "r4": (9, 11, 13, 15, 17),
    "r6": (13, 17, 19),
    "r9": (16, 19, 25),
}
_SIZES = (5, 6, 8, 16)
RULED = {
    f"{rooms}-{n}x{n}": Task(f"XLand-MiniGrid-{rooms.upper()}-{n}x{n}", n, n, 5, 3 * n**2)
    for rooms, sizes in _ROOMS.items()
    for n in sizes
}
"""Worlds of 1 to 9 rooms; the level sets the goal and the rules."""
FIXED = {
    **{f"door-key-{n}x{n}": Task(f"MiniGrid-DoorKey-{n}x{n}", n, n, 7, 10 * n**2) for n in _SIZES},
    **{f"empty-{n}x{n}": Task(f"MiniGrid-Empty-{n}x{n}", n, n, 7, 4 * n**2) for n in _SIZES},
    **{
        f"empty-random-{n}x{n}": Task(f"MiniGrid-EmptyRandom-{n}x{n}", n, n, 7, 4 * n**2)
        for n in _SIZES
    },
    **{
        f"memory-s{n}": Task(f"MiniGrid-MemoryS{n}", 7, n, 3, 5 * n**2)
        for n in (8, 16, 32, 64, 128)
    },
    "four-rooms": Task("MiniGrid-FourRooms", 19, 19, 7, 100),
    "locked-room": Task("MiniGrid-LockedRoom", 19, 19, 7, 190),
    "unlock": Task("MiniGrid-Unlock", 6, 11, 7, 288),
    "unlock-pick-up": Task("MiniGrid-UnlockPickUp", 6, 11, 7, 288),
    "blocked-unlock-pick-up": Task("MiniGrid-BlockedUnlockPickUp", 6, 11, 7, 576),
}
"""MiniGrid tasks. The package's task Playground is omitted because it has no goal."""
TASKS = RULED | FIXED


class Step(NamedTuple):
    """Result of one step."""

    obs: UInt8[Array, "V V 2"]
    state: PyTree
    solved: Bool[Array, ""]
    is_over: Bool[Array, ""]


@functools.cache
def load(task: str) -> tuple[Any, Any]:
    """Load a task of the package, `(environment, parameters)`.

    Raises:
        ValueError: The package is not installed.
    """
    # The modules create global arrays at import; under a trace, these would be leaked tracers.
    with jax.ensure_compile_time_eval():
        env, params = _module("xminigrid").make(TASKS[task].id)
    return env, params.replace(max_steps=NEVER)


def begin(
    task: str, world: UInt32[Array, "2"], ruleset: Ruleset | tuple[()]
) -> tuple[UInt8[Array, "V V 2"], PyTree]:
    """Start an episode on the layout generated from a key; return `(obs, state)`."""
    env, params = load(task)
    if ruleset:
        params = params.replace(ruleset=_module("xminigrid.types").RuleSet(*ruleset))
    # The package needs rank promotion, even if the user forbids it.
    with jax.numpy_rank_promotion("allow"):
        moment = env.reset(params, world)
    state = typed_as(moment.state, moment.state)
    return moment.observation, state


def step(task: str, state: PyTree, action: Int[Array, ""]) -> Step:
    """Take one step of the task."""
    env, params = load(task)
    # The package reads only the state of the previous `TimeStep`.
    before = _module("xminigrid.types").TimeStep(
        state=state, step_type=(), reward=(), discount=(), observation=()
    )
    with jax.numpy_rank_promotion("allow"):
        moment = env.step(params, before, action)
    new = typed_as(moment.state, state)
    # The package signals termination by a discount of 0.
    return Step(moment.observation, new, moment.reward > 0, moment.discount == 0)


def paint(task: str, state: PyTree) -> Any:
    """Draw the whole grid on the host, uint8 [32 H, 32 W, 3]."""
    module = _module("xminigrid.rendering.rgb_render")
    state = jax.device_get(state)
    return module.render(state.grid, state.agent, TASKS[task].view)


def _module(name: str) -> Any:
    return import_module(name, "xland", EXTRA)
