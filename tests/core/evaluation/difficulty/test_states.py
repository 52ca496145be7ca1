"""States with their best actions, against enumeration by the environment's own steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlgen import registry
from rlgen.envs import cave, maze
from rlgen.envs.rooms import keyroom, rho_rooms, rooms
from rlgen.protocols import LevelEnv
from rlgen.types import PyTree

TINY = {
    "maze": maze.Maze(height=4, width=5, num_walls=8, max_steps=20),
    "cave": cave.Cave(height=4, width=4, num_objects=8, max_steps=20),
    "keyroom": keyroom.KeyRoom(size=5, inner=1, max_steps=30),
    "rooms": rooms.Rooms(num_rooms=2, max_room_size=4, size=9, max_steps=24),
    "rho-rooms": rho_rooms.RhoRooms(size=5, layout="fresh"),
}
DRAWS, LEVELS = 400, 4


def number(state: PyTree) -> tuple[int, ...]:
    """Return a state's numbers, without its time and last event."""
    names = ("x", "y", "direction", "opened", "held")
    return tuple(int(getattr(state, name)) for name in names if hasattr(state, name))


def enumerated(env, level) -> dict[tuple[int, ...], tuple[list, int]]:
    """Enumerate the states that an episode can reach, each with the successor per action."""
    key, actions = jax.random.key(0), jnp.arange(env.num_actions)
    step = jax.jit(jax.vmap(partial(env.step_env, key), (None, 0, None)))
    first = env.reset_env(key, level)[1]
    if getattr(level, "direction", 0) == -1:
        first = first.replace(direction=jnp.zeros_like(first.x))
    found, waiting = {}, [first]
    while waiting:
        state = waiting.pop()
        if number(state) in found:
            continue
        fresh = state.replace(time=np.int32(0))  # a late success could have a reward below 0
        _, after, reward, terminated, _ = jax.device_get(step(fresh, actions, level))
        each = [jax.tree.map(lambda x, a=a: x[a], after) for a in range(len(actions))]
        ends = [None if r > 0 else () for r in reward]
        found[number(state)] = [
            number(s) if not t else end for s, t, end in zip(each, terminated, ends, strict=True)
        ]
        waiting += [s for s, t in zip(each, terminated, strict=True) if not t]
    return found


def steps_to_go(graph: dict) -> dict:
    """Compute the fewest steps to the goal, by repeated relaxation."""
    distance = {None: 0}
    for _ in graph:
        for state, after in graph.items():
            reached = [distance[s] for s in after if s in distance]
            if reached:
                distance[state] = min(min(reached) + 1, distance.get(state, 10**6))
    return distance


@pytest.mark.thorough
@pytest.mark.parametrize("name", TINY)
def test_states_and_best_actions_are_those_of_enumeration(name):
    env = TINY[name]
    label = jax.jit(partial(env.labelled_states, num=DRAWS))
    keys = jax.random.split(jax.random.key(7), LEVELS)
    levels = jax.jit(jax.vmap(env.sample_level))(keys)
    solvable = []
    for i in range(LEVELS):
        level = jax.tree.map(lambda x, i=i: x[i], levels)
        graph = enumerated(env, level)
        distance = steps_to_go(graph)
        solvable.append(any(state in distance for state in graph))
        states, best = jax.device_get(label(keys[i], level))
        drawn = [number(jax.tree.map(lambda x, s=s: x[s], states)) for s in range(DRAWS)]
        for state, mask in zip(drawn, best, strict=True):
            after = [distance.get(s, 10**6) for s in graph[state]]
            expected = [state in distance and d == distance[state] - 1 for d in after]
            assert mask.tolist() == expected
        assert (np.asarray(states.time) == 0).all()
        _check_even(drawn, set(graph))
    assert any(solvable) and all(solvable) == (name != "maze")


def _check_even(drawn: list, known: set) -> None:
    """Check that all states are drawn equally often: chi-square test with p of about 1e-6."""
    counts = np.array([drawn.count(state) for state in known])
    expected = len(drawn) / len(known)
    chi = ((counts - expected) ** 2 / expected).sum()
    free = len(known) - 1
    assert chi < free + 5 * np.sqrt(2 * free) + 10


def test_doors_that_jam_have_no_fewest_steps():
    assert not registry.has(rooms.Rooms(doors="locked"), LevelEnv.labelled_states)
    assert registry.has(rooms.Rooms(), LevelEnv.labelled_states)
