"""Cell-by-cell reference for MiniGrid's rules in plain Python, and two slow solvers."""

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

AHEAD = [(1, 0), (0, 1), (-1, 0), (0, -1)]  # x, y of a step right, down, left, up
LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE, DONE = range(7)
KEY, BALL, BOX = 1, 2, 3
OPEN, CLOSED, LOCKED = 0, 1, 2
NUMBERS = {KEY: 5, BALL: 6, BOX: 7}  # object codes of upstream
NOWHERE = (31, 31)


def _cell(number):
    return int(number) % 32, int(number) // 32


@dataclass(frozen=True)
class Moment:
    """State of an episode."""

    cell: tuple
    direction: int
    things: tuple  # (cell, code) of each object; the cell is None while it is carried
    doors: tuple  # state of each door
    carried: int | None = None


class World:
    """Rules of one level."""

    def __init__(self, level):
        level = type(level)(**{k: np.asarray(v) for k, v in vars(level).items()})
        self.height = int(level.height)
        self.width = len(level.walls) - self.height - 24
        rows = level.walls[6 : 6 + self.height]
        cells = [(x, y) for y in range(self.height) for x in range(self.width)]
        self.walls = {(x, y) for x, y in cells if int(rows[y]) >> (x + 6) & 1}
        pairs = enumerate(zip(level.door_cell, level.door_colour, strict=True))
        self.doors = {_cell(at): (d, int(colour)) for d, (at, colour) in pairs}
        self.doors.pop(NOWHERE, None)
        locked = [int(level.locked) >> d & 1 for d in range(len(level.door_cell))]
        self.contents = [int(code) for code in level.content_code]
        things = zip(map(_cell, level.object_cell), map(int, level.object_code), strict=True)
        self.first = Moment(
            tuple(int(x) for x in level.start),
            int(level.direction),
            tuple(things),
            tuple(LOCKED if lock else CLOSED for lock in locked),
        )
        self.target = int(level.target).bit_length() - 1

    def ahead(self, now):
        (x, y), (dx, dy) = now.cell, AHEAD[now.direction]
        return x + dx, y + dy

    def thing_at(self, now, cell):
        return next((k for k, (at, _) in enumerate(now.things) if at == cell), None)

    def is_empty(self, now, cell):
        return not (
            cell in self.walls or cell in self.doors or self.thing_at(now, cell) is not None
        )

    def step(self, now, action):
        """Return the next state, the name of the event, and whether the level is solved."""
        cell = self.ahead(now)
        thing = self.thing_at(now, cell)
        if action in (LEFT, RIGHT):
            turn = 1 if action == RIGHT else -1
            return replace(now, direction=(now.direction + turn) % 4), "nothing", False
        if action == FORWARD:
            door = self.doors.get(cell)
            free = self.is_empty(now, cell) or (door and now.doors[door[0]] == OPEN)
            return (replace(now, cell=cell) if free else now), "nothing", False
        if action == PICK_UP and thing is not None and now.carried is None:
            return self._take(now, thing)
        if action == DROP and now.carried is not None and self.is_empty(now, cell):
            things = self._with(now, now.carried, cell, now.things[now.carried][1])
            return replace(now, things=things, carried=None), "dropped something", False
        if action == TOGGLE:
            after, what = self._toggle(now, cell, thing)
            return after, what, False
        return now, "nothing", False

    def _with(self, now, thing, cell, code):
        return (*now.things[:thing], (cell, code), *now.things[thing + 1 :])

    def _take(self, now, thing):
        code = now.things[thing][1]
        after = replace(now, things=self._with(now, thing, None, code), carried=thing)
        if thing == self.target:
            return after, "took what was looked for", True
        return after, f"took a { {KEY: 'key', BALL: 'ball', BOX: 'box'}[code >> 3] }", False

    def _toggle(self, now, cell, thing):
        if thing is not None and now.things[thing][1] >> 3 == BOX:
            things = self._with(now, thing, cell, self.contents[thing])
            return replace(now, things=things), "opened a box"
        if cell not in self.doors:
            return now, "nothing"
        door, colour = self.doors[cell]
        was = now.doors[door]
        held = None if now.carried is None else now.things[now.carried][1]
        if was == LOCKED and held != 8 * KEY + colour:
            return now, "found a door locked"
        state = CLOSED if was == OPEN else OPEN
        doors = (*now.doors[:door], state, *now.doors[door + 1 :])
        happened = {OPEN: "closed a door", CLOSED: "opened a door", LOCKED: "unlocked a door"}
        return replace(now, doors=doors), happened[was]

    def numbers(self, now, cell):
        """Object, colour and state of a cell, as encoded upstream."""
        x, y = cell
        if cell in self.walls or not (0 <= x < self.width and 0 <= y < self.height):
            return 2, 5, 0
        if cell in self.doors:
            door, colour = self.doors[cell]
            return 4, colour, now.doors[door]
        thing = self.thing_at(now, cell)
        if thing is None:
            return 1, 0, 0
        return self.look(now, thing)

    def look(self, now, thing):
        code = now.things[thing][1]
        return NUMBERS[code >> 3], code & 7, 0

    def image(self, now):
        """Observation, int[7, 7, 3]."""
        ahead, right = AHEAD[now.direction], AHEAD[(now.direction + 1) % 4]
        image = np.zeros((7, 7, 3), int)
        for x in range(7):
            for y in range(7):
                side, far = x - 3, 6 - y
                cell = (now.cell[i] + side * right[i] + far * ahead[i] for i in (0, 1))
                image[x, y] = self.numbers(now, tuple(cell))
        opaque = (image[..., 0] == 2) | ((image[..., 0] == 4) & (image[..., 2] != OPEN))
        image[~sight(opaque)] = 0
        image[3, 6] = (1, 0, 0) if now.carried is None else self.look(now, now.carried)
        return image


def sight(opaque):
    """Cells visible from the bottom middle, computed one by one in upstream's order."""
    seen = np.zeros((7, 7), bool)
    seen[3, 6] = True
    for y in range(6, -1, -1):
        for columns, side in ((range(6), 1), (range(6, 0, -1), -1)):
            for x in columns:
                if seen[x, y] and not opaque[x, y]:
                    seen[x + side, y] = True
                    seen[x : x + side + 1 or None, max(y - 1, 0)] |= y > 0
                    if y:
                        seen[x, y - 1] = seen[x + side, y - 1] = True
    return seen


def fewest_steps(world, actions=(LEFT, RIGHT, FORWARD, PICK_UP, DROP, TOGGLE)):
    """Fewest steps to success, by exhaustive search over all actions."""
    seen, layer = {world.first}, [world.first]
    for steps in range(1, 10_000):
        following = []
        for now in layer:
            for action in actions:
                after, _, success = world.step(now, action)
                if success:
                    return steps
                if after not in seen:
                    seen.add(after)
                    following.append(after)
        layer = following
    raise AssertionError("no way to success")


class Walker:
    """Heuristic player that solves a level one locked door after another."""

    def __init__(self, world):
        self.world, self.now, self.actions, self.success = world, world.first, [], False

    def act(self, *actions):
        for action in actions:
            self.now, _, self.success = self.world.step(self.now, action)
            self.actions.append(action)

    def route(self, is_goal):
        """Actions to the nearest goal state, opening doors on the path; None if unreachable."""
        first = replace(self.now)
        seen: set = {first}
        queue: deque = deque([(first, ())])
        while queue:
            now, actions = queue.popleft()
            if is_goal(now):
                return actions
            cell = self.world.ahead(now)
            door = self.world.doors.get(cell)
            opens = door is not None and now.doors[door[0]] == CLOSED
            for action in (LEFT, RIGHT, TOGGLE if opens else FORWARD):
                after = self.world.step(now, action)[0]
                if after not in seen:
                    seen.add(after)
                    queue.append((after, (*actions, action)))
        return None

    def face(self, cell):
        """Turn and walk so as to face a cell; return whether it is possible."""
        actions = self.route(lambda now: self.world.ahead(now) == cell)
        self.act(*actions or ())
        return actions is not None

    def put_down(self):
        """Drop the carried object, away from doors if possible."""
        if self.now.carried is None:
            return
        routes = (self.route(lambda now: self._is_spot(now, gap)) for gap in (2, 0))  # noqa: B023
        self.act(*next(route for route in routes if route is not None), DROP)

    def _is_spot(self, now, gap):
        """Return whether an object dropped ahead blocks access to no cell."""
        (x, y), world = self.world.ahead(now), self.world
        near = any(max(abs(x - i), abs(y - j)) < gap for i, j in world.doors)
        if near or not world.is_empty(now, (x, y)):
            return False
        return gap == 0 or len(self._reach(now, (x, y))) == len(self._reach(now)) - 1

    def _reach(self, now, without=None):
        """Cells that can be reached through doors that are not locked."""
        found, stack = {now.cell}, [now.cell]
        while stack:
            x, y = stack.pop()
            for dx, dy in AHEAD:
                cell = x + dx, y + dy
                door = self.world.doors.get(cell)
                passable = door is not None and now.doors[door[0]] != LOCKED
                free = passable or self.world.is_empty(now, cell)
                if free and cell not in found and cell != without:
                    found.add(cell)
                    stack.append(cell)
        return found

    def locks(self):
        """Cells of doors that are still locked."""
        doors = self.world.doors.items()
        return [cell for cell, (d, _) in doors if self.now.doors[d] == LOCKED]

    def things(self, *kinds):
        found = [(k, at, code) for k, (at, code) in enumerate(self.now.things) if at is not None]
        return [each for each in found if each[2] >> 3 in kinds and each[0] != self.world.target]

    def take_target(self):
        if self.face(self.now.things[self.world.target][0]):
            self.put_down()
            self.face(self.now.things[self.world.target][0])
            self.act(PICK_UP)
        return self.success

    def clear(self, door):
        """Remove objects in front of a door; return whether the door can then be faced."""
        for _, at, _ in self.things(BALL, BOX, KEY):
            if abs(at[0] - door[0]) + abs(at[1] - door[1]) == 1 and self.face(at):
                self.act(PICK_UP)
                self.put_down()
        return self.face(door)

    def unlock(self, lock):
        for _, at, _ in self.things(BOX):
            if self.face(at):
                self.act(TOGGLE)
        wanted = 8 * KEY + self.world.doors[lock][1]
        for _, at, code in self.things(KEY):
            if code == wanted and self.clear(lock) and self.face(at):
                self.act(PICK_UP)
                self.face(lock)
                self.act(TOGGLE)
                self.put_down()
                return True
        return False

    def solve(self):
        """Return actions that solve the level."""
        for _ in range(20):
            if self.take_target():
                return self.actions
            if not any([self.unlock(lock) for lock in self.locks()]):
                for door in self.world.doors:
                    self.clear(door)  # an object may block a door that is not locked
        raise AssertionError("the target is out of reach")
