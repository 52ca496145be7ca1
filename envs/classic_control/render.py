"""Pictures of the physical systems, drawn on the host with Pillow.

Lengths are to scale. Masses are shown as areas or widths, forces as red arrows and gravity as a
grey arrow.
"""

import math
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

Number: TypeAlias = float | int
Point: TypeAlias = tuple[Number, Number]  # (right, down), in pixels
Picture: TypeAlias = UInt8[np.ndarray, "H W 3"]

PAPER, LINE, BODY = (250, 249, 246), (176, 174, 168), (84, 88, 97)
ACCENT, GOAL, FORCE, GRAVITY = (46, 111, 178), (46, 160, 96), (214, 69, 61), (150, 148, 142)
_SAMPLES = 4  # samples per pixel and axis; pictures are drawn enlarged and averaged

_TRACK, _METRE = 2.4, 44  # cart-pole: half the length of the track in metres; pixels per metre
_ROD_METRE = 36  # pendulum: pixels per metre
_HILL_METRE, _HILL_HEIGHT = 120, 32  # mountain car: pixels per unit; amplitude in pixels


def cart_pole(level: Any, state: Any = None) -> Picture:
    """Draw the cart and the pole; without a state the pole is upright."""
    canvas = _Canvas(240, 160)
    x, angle = (0.0, 0.0) if state is None else (float(state.x), float(state.theta))
    # The side is proportional to the square root of the mass, so the cart's area shows the mass.
    ground, side = 138, math.sqrt(level.masscart) * 0.5 * _METRE
    canvas.line([(0, ground), (240, ground)], LINE, 1.5)
    for end in (-_TRACK, _TRACK):
        at = 120 + end * _METRE
        canvas.line([(at, ground - 5), (at, ground + 5)], LINE, 1.5)
    middle, top = 120 + x * _METRE, ground - 0.55 * side
    corners = [(middle - side / 2, top), (middle + side / 2, ground - 2)]
    canvas.draw.rectangle(canvas.scaled(corners), fill=BODY)
    reach = 2 * float(level.length) * _METRE  # gymnax's length is half the length of the pole
    tip = (middle + reach * math.sin(angle), top - reach * math.cos(angle))
    canvas.line([(middle, top), tip], ACCENT, 12 * math.sqrt(level.masspole))
    if state is None:
        tail = (middle + side / 2 + 3, (top + ground) / 2)
        canvas.arrow(tail, (tail[0] + 3.0 * float(level.force_mag), tail[1]), FORCE)
        canvas.gravity(2.0 * float(level.gravity))
    return canvas.picture()


def pendulum(level: Any, state: Any = None) -> Picture:
    """Draw the rod, and the torque as an arc; without a state the rod hangs down."""
    canvas = _Canvas(160, 160)
    angle, torque = math.pi, float(level.max_torque)
    if state is not None:
        angle, torque = float(state.theta), float(state.last_u)
    reach = float(level.length) * _ROD_METRE
    tip = (80 - reach * math.sin(angle), 80 - reach * math.cos(angle))
    canvas.line([(80, 8), (80, 14)], GOAL, 3)  # the direction in which the tip should point
    canvas.line([(80, 80), tip], ACCENT, 10 * float(level.mass))
    canvas.disc((80, 80), 3, BODY)
    canvas.arc((80, 80), 18, torque * math.pi / 4, FORCE)
    if state is None:
        canvas.gravity(2.0 * float(level.gravity))
    return canvas.picture()


def mountain_car(level: Any, state: Any = None) -> Picture:
    """Draw the car and the hill, which is drawn higher for stronger gravity.

    Without a state the car is at the bottom.
    """
    canvas = _Canvas(240, 160)
    # Gymnax's force along the hill is -gravity * cos(3 x), so the height is gravity * sin(3 x) / 3.
    height = _HILL_HEIGHT * float(level.gravity) / 0.0025

    def at(x: float) -> Point:
        return 12 + (x + 1.2) * _HILL_METRE, 88 - height * math.sin(3 * x)

    hill = [at(x) for x in np.linspace(-1.2, 0.6, 80)]
    canvas.draw.polygon(canvas.scaled([*hill, (228, 160), (12, 160)]), fill=(226, 224, 217))
    canvas.line(hill, LINE, 1.5)
    foot = at(0.5)  # gymnax's goal position
    canvas.line([foot, (foot[0], foot[1] - 22)], BODY, 1.5)
    flag = [(foot[0], foot[1] - 22), (foot[0] - 12, foot[1] - 17), (foot[0], foot[1] - 12)]
    canvas.draw.polygon(canvas.scaled(flag), fill=GOAL)
    # sin(3 x) is smallest at x = -pi / 6.
    x = -math.pi / 6 if state is None else float(state.position)
    car = at(x)
    canvas.disc((car[0], car[1] - 6), 6, ACCENT)
    if state is None:
        tail = (car[0] + 8, car[1] - 6)
        canvas.arrow(tail, (tail[0] + 12e3 * float(level.force), tail[1]), FORCE)
    return canvas.picture()


class _Canvas:
    """Canvas of `width` times `height` pixels; all lengths are in pixels."""

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width * _SAMPLES, height * _SAMPLES), PAPER)
        self.draw = ImageDraw.Draw(self._image)

    def scaled(self, points: list[Point]) -> list[Point]:
        """Scale points to the enlarged image."""
        return [(x * _SAMPLES, y * _SAMPLES) for x, y in points]

    def line(self, points: list[Point], colour: tuple, width: Number) -> None:
        """Draw a line with round ends."""
        fine = max(round(width * _SAMPLES), 1)
        self.draw.line(self.scaled(points), colour, fine, joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, fine / _SAMPLES / 2, colour)

    def disc(self, centre: Point, radius: Number, colour: tuple) -> None:
        """Draw a filled circle."""
        x, y = centre
        corners = [(x - radius, y - radius), (x + radius, y + radius)]
        self.draw.ellipse(self.scaled(corners), fill=colour)

    def arrow(self, tail: Point, head: Point, colour: tuple) -> None:
        """Draw a thin arrow."""
        self.line([tail, head], colour, 2)
        self._point(head, math.atan2(head[1] - tail[1], head[0] - tail[0]), colour)

    def arc(self, centre: Point, radius: Number, angle: Number, colour: tuple) -> None:
        """Draw a circular arrow from the top; positive angles are counterclockwise."""
        if abs(angle) < 0.05:
            return
        turns = [-math.pi / 2 - angle * i / 24 for i in range(25)]
        path = [(centre[0] + radius * math.cos(t), centre[1] + radius * math.sin(t)) for t in turns]
        self.line(path, colour, 2)
        self._point(path[-1], turns[-1] - math.copysign(math.pi / 2, angle), colour)

    def gravity(self, length: Number) -> None:
        """Draw an arrow in the upper left corner that points down."""
        self.arrow((14, 12), (14, 12 + length), GRAVITY)

    def picture(self) -> Picture:
        """Return the finished picture."""
        return np.asarray(self._image.reduce(_SAMPLES))

    def _point(self, tip: Point, direction: Number, colour: tuple) -> None:
        along = (math.cos(direction), math.sin(direction))
        ahead = (tip[0] + 4 * along[0], tip[1] + 4 * along[1])
        sides = [
            (tip[0] - s * 4 * along[1] - 2 * along[0], tip[1] + s * 4 * along[0] - 2 * along[1])
            for s in (-1, 1)
        ]
        self.draw.polygon(self.scaled([ahead, *sides]), fill=colour)
