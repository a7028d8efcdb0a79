"""Outlines of the shapes, all of one size: their convex hulls have the area of the unit circle.

Coordinates are (x, y) with y down, centred on the hull's centroid. Everything is rounded to 4 decimals, so that
the outlines are the same numbers on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.doodles import doodle_loop, doodle_number

Point = tuple[float, float]

SEEN_SHAPES: tuple[str, ...] = (
    "circle",
    "square",
    "triangle",
    "star",
    "heart",
    "cross",
    "ring",
    "crescent",
    "diamond",
    "arrow",
    "rectangle",
    "drop",
)
"""Used in training, named in sentences."""

UNSEEN_SHAPES: tuple[str, ...] = ("house", "bolt", "clover", "hourglass", "ell", "fish")
"""Only in few-shot validation; no training sample shows one."""


@dataclass(frozen=True)
class Outline:
    """The border of a shape, of one or more closed loops; a hole runs against its outer loop.

    Attributes:
        x: ``(V,)`` float64 of the vertices, loop after loop.
        y: ``(V,)`` float64.
        following: ``(V,)`` int64, the vertex after each one in its loop.
        reach: Distance of the farthest vertex from the centre.
        area: Inside the loops.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    following: NDArray[np.int64]
    reach: float
    area: float


@cache
def outline(shape: str) -> Outline:
    """The outline of a shape, by its name or that of a doodle.

    Raises:
        ValueError: If there is no such shape.
    """
    number = doodle_number(shape)
    if number is None and shape not in _LOOPS:
        raise ValueError(f"there is no shape {shape!r}; known are {sorted(_LOOPS)} and doodles")
    drawn = _LOOPS[shape]() if number is None else [doodle_loop(number)]
    # Rounded before anything is decided by comparing, too: sines differ in their last digits between machines.
    loops = _normalised([[(round(x, 6), round(y, 6)) for x, y in loop] for loop in drawn])
    points = [point for loop in loops for point in loop]
    following, first = [], 0
    for loop in loops:
        following += [first + (k + 1) % len(loop) for k in range(len(loop))]
        first += len(loop)
    return Outline(
        x=np.array([p[0] for p in points]),
        y=np.array([p[1] for p in points]),
        following=np.array(following, np.int64),
        reach=round(max(math.hypot(*p) for p in points), 4),
        area=round(abs(math.fsum(_area(loop) for loop in loops)), 4),
    )


def _normalised(loops: Sequence[Sequence[Point]]) -> list[list[Point]]:
    """Hull centroid at 0, hull area pi."""
    hull = _hull([p for loop in loops for p in loop])
    area = _area(hull)
    pairs = list(zip(hull, hull[1:] + hull[:1], strict=True))
    centre_x = math.fsum((a[0] + b[0]) * (a[0] * b[1] - b[0] * a[1]) for a, b in pairs) / (6 * area)
    centre_y = math.fsum((a[1] + b[1]) * (a[0] * b[1] - b[0] * a[1]) for a, b in pairs) / (6 * area)
    scale = math.sqrt(math.pi / abs(area))
    return [[(round((x - centre_x) * scale, 4), round((y - centre_y) * scale, 4)) for x, y in loop] for loop in loops]


def _area(loop: Sequence[Point]) -> float:
    """Signed area of a closed loop."""
    return math.fsum(a[0] * b[1] - b[0] * a[1] for a, b in zip(loop, [*loop[1:], loop[0]], strict=True)) / 2


def _hull(points: Sequence[Point]) -> list[Point]:
    """Convex hull by monotone chains."""

    def chain(ordered: Sequence[Point]) -> list[Point]:
        kept: list[Point] = []
        for p in ordered:
            while len(kept) > 1 and _area([kept[-2], kept[-1], p]) <= 0:
                kept.pop()
            kept.append(p)
        return kept[:-1]

    ordered = sorted(points)
    return chain(ordered) + chain(ordered[::-1])


def _arc(radius: float, start: float, end: float, steps: int, centre: Point = (0.0, 0.0)) -> list[Point]:
    """Points of a circle's arc, degrees, both ends included."""
    angles = [math.radians(start + (end - start) * k / steps) for k in range(steps + 1)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def _circle(radius: float = 1.0) -> list[Point]:
    return _arc(radius, 0, 360, 48)[:-1]


def _star() -> list[Point]:
    return [
        (radius * math.cos(a), radius * math.sin(a))
        for k in range(10)
        for radius, a in [(1.0 if k % 2 == 0 else 0.42, math.radians(36 * k - 90))]
    ]


def _heart() -> list[Point]:
    turns = [2 * math.pi * k / 44 for k in range(44)]
    return [
        (16 * math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)))
        for t in turns
    ]


def _cross() -> list[Point]:
    arm, long = 0.34, 1.0
    corner = [(arm, -long), (arm, -arm), (long, -arm)]
    return [
        *corner,
        *[(-y, x) for x, y in corner],
        *[(-x, -y) for x, y in corner],
        *[(y, -x) for x, y in corner],
    ]


def _crescent() -> list[Point]:
    # Two circles that meet at x = (d² + 1 - r²) / 2d.
    distance, radius = 0.45, 0.85
    meet = (distance**2 + 1 - radius**2) / (2 * distance)
    height = math.sqrt(1 - meet**2)
    outer = math.degrees(math.atan2(height, meet))
    inner = math.degrees(math.atan2(height, meet - distance))
    bulge = _arc(1.0, outer, 360 - outer, 32)
    return bulge + _arc(radius, 360 - inner, inner, 26, (distance, 0.0))[1:-1]


def _arrow() -> list[Point]:
    return [(-1.3, -0.3), (0.1, -0.3), (0.1, -0.9), (1.3, 0.0), (0.1, 0.9), (0.1, 0.3), (-1.3, 0.3)]


def _drop() -> list[Point]:
    # The tangents from the tip touch the unit circle where cos = 1 / distance.
    distance = 2.0
    touch = math.degrees(math.acos(1 / distance))
    return [(0.0, -distance), *_arc(1.0, -90 + touch, 270 - touch, 36)]


def _bolt() -> list[Point]:
    return [(0.3, -1.5), (-0.8, 0.25), (-0.05, 0.25), (-0.4, 1.5), (0.85, -0.45), (0.1, -0.45), (0.75, -1.5)]


def _clover() -> list[Point]:
    turns = [2 * math.pi * k / 64 for k in range(64)]
    radii = [0.64 + 0.36 * math.cos(4 * t) for t in turns]
    return [(r * math.cos(t), r * math.sin(t)) for r, t in zip(radii, turns, strict=True)]


def _fish() -> list[Point]:
    body = [(1.2 * x, 0.75 * y) for x, y in _arc(1.0, -158, 158, 36)]
    return [*body, (-1.85, 0.75), (-1.6, 0.0), (-1.85, -0.75)]


_LOOPS = {
    "circle": lambda: [_circle()],
    "square": lambda: [[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]],
    "triangle": lambda: [_arc(1.0, -90, 270, 3)[:-1]],
    "star": lambda: [_star()],
    "heart": lambda: [_heart()],
    "cross": lambda: [_cross()],
    "ring": lambda: [_circle(), _circle(0.58)[::-1]],
    "crescent": lambda: [_crescent()],
    "diamond": lambda: [[(0.0, -1.5), (0.8, 0.0), (0.0, 1.5), (-0.8, 0.0)]],
    "arrow": lambda: [_arrow()],
    "rectangle": lambda: [[(-1.5, -0.62), (1.5, -0.62), (1.5, 0.62), (-1.5, 0.62)]],
    "drop": lambda: [_drop()],
    "house": lambda: [[(-0.7, 1.0), (-0.7, 0.0), (-1.15, 0.0), (0.0, -1.1), (1.15, 0.0), (0.7, 0.0), (0.7, 1.0)]],
    "bolt": lambda: [_bolt()],
    "clover": lambda: [_clover()],
    "hourglass": lambda: [[(-1.0, -1.2), (1.0, -1.2), (0.2, 0.0), (1.0, 1.2), (-1.0, 1.2), (-0.2, 0.0)]],
    "ell": lambda: [[(-0.8, -1.2), (-0.15, -1.2), (-0.15, 0.6), (0.9, 0.6), (0.9, 1.2), (-0.8, 1.2)]],
    "fish": lambda: [_fish()],
}
