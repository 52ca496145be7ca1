"""Plans of vaults: a tree of rooms, locked doors on the path to the goal, and keys in dead ends.

Everything here runs once for each vault on the host, with numpy. Plans are resampled until the
shortest solution has the required length. Then lava is placed where it does not block this
solution.
"""

from collections import deque
from typing import NamedTuple

import numpy as np

NUM_KEYS = 3
LONGEST_SEARCH = 1000  # number of plans drawn before the search fails
MOVES = ((1, 0), (0, 1), (-1, 0), (0, -1))


class Design(NamedTuple):
    """Parameters of the distribution of vaults."""

    columns: int  # rooms from left to right
    rows: int  # rooms from top to bottom
    room_size: int  # cells per side of a room, without walls
    lava: float  # fraction of the free cells off the solution that become lava
    least_steps: int  # lower bound on the length of the shortest solution
    most_steps: int  # upper bound on this length


class Plan(NamedTuple):
    """A vault."""

    walls: np.ndarray  # bool[H, W]
    lava: np.ndarray  # bool[H, W]
    doors: np.ndarray  # int[3, 2]: x, y of the locked doors, in path order
    keys: np.ndarray  # int[3, 2]: x, y of the key to each door
    start: tuple[int, int]
    goal: tuple[int, int]


def draw_plan(seed: int, design: Design) -> Plan:
    """Return the first plan in a seed's random stream that has a solution of the required length.

    Raises:
        ValueError: None of the first thousand plans has such a solution.
    """
    bits = np.random.Generator(np.random.PCG64(seed))
    for _ in range(LONGEST_SEARCH):
        plan = _candidate(bits, design)
        way = solution(plan) if plan else []
        if plan and design.least_steps <= len(way) - 1 <= design.most_steps:
            return _with_lava(bits, plan, way, design)
    raise ValueError(
        f"no vault of {design.columns} x {design.rows} rooms of {design.room_size} cells needs "
        f"{design.least_steps} .. {design.most_steps} steps; use more rooms or change max_steps"
    )


def solution(plan: Plan) -> list[tuple[int, int]]:
    """The agent's cells in a shortest solution, start first; empty if the plan is unsolvable."""
    doors = {tuple(cell): i for i, cell in enumerate(plan.doors.tolist())}
    items = {tuple(cell): i for i, cell in enumerate(plan.keys.tolist())}
    first = (plan.start, 0, 0)  # cell, held keys, open doors
    origin, queue = {first: first}, deque([first])
    while queue:
        state = queue.popleft()
        if state[0] == plan.goal:
            return _back(origin, state)
        found = [x for x in _successors(plan, state, doors, items) if x not in origin]
        origin |= dict.fromkeys(found, state)
        queue.extend(found)
    return []


def _successors(plan: Plan, state: tuple, doors: dict, items: dict) -> list[tuple]:
    (x, y), held, opened = state
    near = [(x + dx, y + dy) for dx, dy in MOVES]
    item = items.get((x, y))
    if item is not None and not held >> item & 1:
        found = [((x, y), held | 1 << item, opened)]
    else:
        fitting = sum(1 << doors[cell] for cell in near if cell in doors) & held
        found = [((x, y), held, opened | fitting)]
    for cell in near:
        door = doors.get(cell)
        shut = door is not None and not opened >> door & 1
        if not (shut or plan.walls[cell[::-1]] or plan.lava[cell[::-1]]):
            found.append((cell, held, opened))
    return found


def _back(origin: dict, state: tuple) -> list[tuple[int, int]]:
    way = [state[0]]
    while origin[state] != state:
        state = origin[state]
        way.append(state[0])
    return way[::-1]


def _candidate(bits: np.random.Generator, design: Design) -> Plan | None:
    """Sample a plan without lava; None if the path to the goal has too few rooms for the doors.

    The solution of the plan may have any length.
    """
    tree = _tree(bits, design)
    rooms = _steps_from((0, 0), tree)
    # The goal is in the room farthest from the start; ties are broken by the room's number.
    last = max(rooms, key=lambda room: (rooms[room], room))
    way = _way(tree, (0, 0), last)
    # Locked doors are at 1/4, 1/2 and 3/4 of the path. For each i in `cut`, a locked door leads
    # from room i - 1 of the path to room i.
    cut = [max(1, round(len(way[1:]) * part)) for part in (0.25, 0.5, 0.75)]
    if len(set(cut)) < NUM_KEYS:
        return None
    side = design.room_size + 1
    walls = np.ones((design.rows * side + 1, design.columns * side + 1), bool)
    for column, row in rooms:
        walls[row * side + 1 : (row + 1) * side, column * side + 1 : (column + 1) * side] = False
    doorways = {}
    for pair in sorted({tuple(sorted((a, b))) for a in tree for b in tree[a]}):
        x, y = doorways[pair] = _doorway(bits, pair, side)
        walls[y, x] = False
    locked = [tuple(sorted((way[i - 1], way[i]))) for i in cut]
    places = _key_rooms(tree, way, cut)
    middle = design.room_size // 2 + 1
    start, goal = ((c * side + middle, r * side + middle) for c, r in ((0, 0), last))
    taken = {start, goal}
    items = [_free_cell(bits, room, side, taken) for room in places]
    doors = np.array([doorways[pair] for pair in locked])
    return Plan(walls, np.zeros_like(walls), doors, np.array(items), start, goal)


def _tree(bits: np.random.Generator, design: Design) -> dict:
    """Sample a spanning tree; return the neighbours of each room (column, row) in the tree.

    The tree is the minimum spanning tree for random weights of the walls, so it has many branches.
    """
    rooms = [(c, r) for c in range(design.columns) for r in range(design.rows)]
    pairs = [(a, (a[0] + dx, a[1] + dy)) for a in rooms for dx, dy in MOVES[:2]]
    pairs = [pair for pair in pairs if pair[1] in set(rooms)]
    tree = {room: [] for room in rooms}
    group = {room: room for room in rooms}
    for i in bits.permutation(len(pairs)):  # Kruskal's algorithm
        a, b = pairs[i]
        if group[a] != group[b]:
            tree[a].append(b)
            tree[b].append(a)
            old, new = group[b], group[a]
            group = {room: new if at == old else at for room, at in group.items()}
    return tree


def _steps_from(room: tuple, tree: dict, closed: tuple = ()) -> dict:
    """Distance, in rooms, to each room that can be reached without the door between `closed`."""
    steps, queue = {room: 0}, deque([room])
    while queue:
        room = queue.popleft()
        ways = [other for other in tree[room] if tuple(sorted((room, other))) != closed]
        found = [other for other in ways if other not in steps]
        steps |= dict.fromkeys(found, steps[room] + 1)
        queue.extend(found)
    return steps


def _way(tree: dict, first: tuple, last: tuple) -> list[tuple]:
    steps, way = _steps_from(last, tree), [first]
    while way[-1] != last:
        way.append(min(tree[way[-1]], key=lambda room: steps[room]))
    return way


def _key_rooms(tree: dict, way: list[tuple], cut: list[int]) -> list[tuple]:
    """For each locked door, the dead end farthest from it among the rooms in front of the door.

    The start counts as a dead end only if no other dead end exists.
    """
    found = []
    for i in cut:
        front = _steps_from(way[0], tree, tuple(sorted((way[i - 1], way[i]))))
        far = _steps_from(way[i], tree)
        ends = [room for room in front if len(tree[room]) == 1 and room != way[0]] or [way[0]]
        found.append(max(ends, key=lambda room: (far[room], room)))
    return found


def _doorway(bits: np.random.Generator, pair: tuple, side: int) -> tuple[int, int]:
    """Draw the cell of a doorway in the wall between two rooms.

    If the wall is long enough, the cell is not next to a corner.
    """
    (column, row), (other, _) = pair
    spare = 1 if side > 4 else 0
    along = int(bits.integers(1 + spare, side - spare))
    if other > column:
        return (column + 1) * side, row * side + along
    return column * side + along, (row + 1) * side


def _free_cell(bits: np.random.Generator, room: tuple, side: int, taken: set) -> tuple[int, int]:
    while True:
        x, y = (int(bits.integers(1, side)) + r * side for r in room)
        if (x, y) not in taken:
            taken.add((x, y))
            return x, y


def _with_lava(bits: np.random.Generator, plan: Plan, way: list, design: Design) -> Plan:
    kept = plan.walls.copy()
    side = design.room_size + 1
    on_walls = np.zeros_like(plan.walls)
    on_walls[::side], on_walls[:, ::side] = True, True
    for y, x in np.argwhere(~plan.walls & on_walls):  # doorways and the cells next to them
        for dx, dy in ((0, 0), *MOVES):
            kept[y + dy, x + dx] = True
    for x, y in (*way, *map(tuple, plan.keys.tolist())):
        kept[y, x] = True
    spare = np.argwhere(~kept)
    chosen = spare[bits.permutation(len(spare))[: round(design.lava * len(spare))]]
    lava = np.zeros_like(plan.walls)
    lava[tuple(chosen.T)] = True
    return plan._replace(lava=lava)
