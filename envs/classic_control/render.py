"""Pictures of the physical systems, drawn on the host with pillow.

Lengths are to scale, masses are areas or widths, forces are red arrows and gravity is a grey one.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

Number: TypeAlias = float | int
Point: TypeAlias = tuple[Number, Number]  # pixels to the right and down
Picture: TypeAlias = UInt8[np.ndarray, "H W 3"]

PAPER, LINE, BODY = (250, 249, 246), (176, 174, 168), (84, 88, 97)
ACCENT, GOAL, FORCE, GRAVITY = (46, 111, 178), (46, 160, 96), (214, 69, 61), (150, 148, 142)
_SAMPLES = 4  # a side: drawn this much larger and averaged, for smooth edges

_TRACK, _METRE = 2.4, 44  # of cart-pole: half the track in metres, pixels a metre
_ROD_METRE = 36  # of the pendulum
_HILL_METRE, _HILL_HEIGHT = 120, 32  # of mountain car: pixels along, and half the usual height up


def cart_pole(level: Any, state: Any = None) -> Picture:
    """Cart and pole, the pole upright where there is no state."""
    canvas = _Canvas(240, 160)
    x, angle = (0.0, 0.0) if state is None else (float(state.x), float(state.theta))
    ground, side = 138, math.sqrt(level.masscart) * 0.5 * _METRE
    canvas.line([(0, ground), (240, ground)], LINE, 1.5)
    for end in (-_TRACK, _TRACK):
        at = 120 + end * _METRE
        canvas.line([(at, ground - 5), (at, ground + 5)], LINE, 1.5)
    middle, top = 120 + x * _METRE, ground - 0.55 * side
    corners = [(middle - side / 2, top), (middle + side / 2, ground - 2)]
    canvas.draw.rectangle(canvas.scaled(corners), fill=BODY)
    reach = 2 * float(level.length) * _METRE  # gymnax's length is half of the pole's
    tip = (middle + reach * math.sin(angle), top - reach * math.cos(angle))
    canvas.line([(middle, top), tip], ACCENT, 12 * math.sqrt(level.masspole))
    if state is None:
        tail = (middle + side / 2 + 3, (top + ground) / 2)
        canvas.arrow(tail, (tail[0] + 3.0 * float(level.force_mag), tail[1]), FORCE)
        canvas.gravity(2.0 * float(level.gravity))
    return canvas.picture()


def pendulum(level: Any, state: Any = None) -> Picture:
    """The rod, hanging where there is no state, and the torque as an arc."""
    canvas = _Canvas(160, 160)
    angle, torque = math.pi, float(level.max_torque)
    if state is not None:
        angle, torque = float(state.theta), float(state.last_u)
    reach = float(level.length) * _ROD_METRE
    tip = (80 - reach * math.sin(angle), 80 - reach * math.cos(angle))
    canvas.line([(80, 8), (80, 14)], GOAL, 3)  # where the tip should point
    canvas.line([(80, 80), tip], ACCENT, 10 * float(level.mass))
    canvas.disc((80, 80), 3, BODY)
    canvas.arc((80, 80), 18, torque * math.pi / 4, FORCE)
    if state is None:
        canvas.gravity(2.0 * float(level.gravity))
    return canvas.picture()


def mountain_car(level: Any, state: Any = None) -> Picture:
    """The hill, as high as gravity makes it, and the car, at the bottom where there is no state."""
    canvas = _Canvas(240, 160)
    height = _HILL_HEIGHT * float(level.gravity) / 0.0025

    def at(x: float) -> Point:
        return 12 + (x + 1.2) * _HILL_METRE, 88 - height * math.sin(3 * x)

    hill = [at(x) for x in np.linspace(-1.2, 0.6, 80)]
    canvas.draw.polygon(canvas.scaled([*hill, (228, 160), (12, 160)]), fill=(226, 224, 217))
    canvas.line(hill, LINE, 1.5)
    foot = at(0.5)
    canvas.line([foot, (foot[0], foot[1] - 22)], BODY, 1.5)
    flag = [(foot[0], foot[1] - 22), (foot[0] - 12, foot[1] - 17), (foot[0], foot[1] - 12)]
    canvas.draw.polygon(canvas.scaled(flag), fill=GOAL)
    x = -math.pi / 6 if state is None else float(state.position)
    car = at(x)
    canvas.disc((car[0], car[1] - 6), 6, ACCENT)
    if state is None:
        tail = (car[0] + 8, car[1] - 6)
        canvas.arrow(tail, (tail[0] + 12e3 * float(level.force), tail[1]), FORCE)
    return canvas.picture()


class _Canvas:
    """A sheet of `width` times `height` pixels; all lengths are in pixels."""

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width * _SAMPLES, height * _SAMPLES), PAPER)
        self.draw = ImageDraw.Draw(self._image)

    def scaled(self, points: list[Point]) -> list[Point]:
        """Points as the finer image has them."""
        return [(x * _SAMPLES, y * _SAMPLES) for x, y in points]

    def line(self, points: list[Point], colour: tuple, width: Number) -> None:
        """A line with round ends."""
        fine = max(round(width * _SAMPLES), 1)
        self.draw.line(self.scaled(points), colour, fine, joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, fine / _SAMPLES / 2, colour)

    def disc(self, centre: Point, radius: Number, colour: tuple) -> None:
        """A filled circle."""
        x, y = centre
        corners = [(x - radius, y - radius), (x + radius, y + radius)]
        self.draw.ellipse(self.scaled(corners), fill=colour)

    def arrow(self, tail: Point, head: Point, colour: tuple) -> None:
        """A thin arrow."""
        self.line([tail, head], colour, 2)
        self._point(head, math.atan2(head[1] - tail[1], head[0] - tail[0]), colour)

    def arc(self, centre: Point, radius: Number, angle: Number, colour: tuple) -> None:
        """An arrow round a centre, from the top; positive angles go counterclockwise."""
        if abs(angle) < 0.05:
            return
        turns = [-math.pi / 2 - angle * i / 24 for i in range(25)]
        path = [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]
        self.line(path, colour, 2)
        self._point(path[-1], turns[-1] - math.copysign(math.pi / 2, angle), colour)

    def gravity(self, length: Number) -> None:
        """An arrow down in the upper left corner."""
        self.arrow((14, 12), (14, 12 + length), GRAVITY)

    def picture(self) -> Picture:
        """The finished picture."""
        return np.asarray(self._image.reduce(_SAMPLES))

    def _point(self, tip: Point, direction: Number, colour: tuple) -> None:
        along = (math.cos(direction), math.sin(direction))
        ahead = (tip[0] + 4 * along[0], tip[1] + 4 * along[1])
        sides = [
            (tip[0] - s * 4 * along[1] - 2 * along[0], tip[1] + s * 4 * along[0] - 2 * along[1])
            for s in (-1, 1)
        ]
        self.draw.polygon(self.scaled([ahead, *sides]), fill=colour)
