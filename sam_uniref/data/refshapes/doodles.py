"""Shapes without a name: as many outlines as one likes, so that examples of a class teach more than a dozen classes."""

from __future__ import annotations

from sam_uniref.data.refshapes.draws import Draws, cos_sin

DOODLES = 5000
"""How many there are."""

_NAME = "doodle "
_STEPS = 8


def doodle(number: int) -> str:
    """The shape's name, which says nothing about it."""
    return f"{_NAME}{number}"


def doodle_number(shape: str) -> int | None:
    """Its number; None if the shape has a name of its own."""
    digits = shape.removeprefix(_NAME)
    known = shape.startswith(_NAME) and digits.isdecimal() and doodle(int(digits)) == shape and int(digits) < DOODLES
    return int(digits) if known else None


def doodle_loop(number: int) -> list[tuple[float, float]]:
    """The border: corners at even angles, each somewhere on its ray; straight or waved between them.

    Some are symmetric, as most named shapes are.
    """
    draws = Draws(DOODLES, number)
    symmetry = draws.weighted(("none", "mirror", "half turn", "third turn"), (3, 3, 2, 1))
    count = {"none": 6, "mirror": 4, "half turn": 3, "third turn": 2}[symmetry] + draws.below(3)
    rays = [draws.uniform(0.3, 1.0) for _ in range(count)]
    radii = {"none": rays, "mirror": rays + rays[-2:0:-1], "half turn": 2 * rays, "third turn": 3 * rays}[symmetry]
    if draws.chance(0.4):
        radii = _waved(radii)
    corners = [(radius, cos_sin(360 * k / len(radii))) for k, radius in enumerate(radii)]
    return [(radius * cosine, radius * sine) for radius, (cosine, sine) in corners]


def _waved(radii: list[float]) -> list[float]:
    """Radii between those given, level at each of them."""
    shares = [(1 - cos_sin(180 * step / _STEPS)[0]) / 2 for step in range(_STEPS)]
    return [a + (b - a) * t for a, b in zip(radii, radii[1:] + radii[:1], strict=True) for t in shares]
