"""Scenes of shapes: what is where, drawn by chance; and their pictures at any size.

Positions and sizes are shares of the picture's side, x to the right and y down. Pictures are square.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.draws import Draws, cos_sin
from sam_uniref.data.refshapes.palette import (
    COLOURS,
    TEXTURES,
    Background,
    Paint,
    Style,
    background_pixels,
    draw_background,
    draw_paint,
    paint_pixels,
)
from sam_uniref.data.refshapes.raster import Patch, coverage, place
from sam_uniref.data.refshapes.shapes import SEEN_SHAPES, outline
from sam_uniref.images import RGB

SIZES: dict[Style, dict[str, tuple[float, float]]] = {
    "textured": {"small": (0.075, 0.095), "large": (0.14, 0.18)},
    "plain": {"small": (0.082, 0.1), "large": (0.132, 0.165)},
}
"""Radii of the circles that have the area of the shapes' hulls. Nothing is drawn between small and large."""

SMALL_BELOW = 0.115
LEAST_VISIBLE = 0.6
LEAST_SIDE = 32
# Measured on a coarse grid whatever the picture's size is; the margin covers the difference.
_MEASURED_VISIBLE = 0.66
_MEASURING_SIDE = 64
_TRIES = 12


@dataclass(frozen=True)
class ShapeObject:
    """One object.

    Attributes:
        shape: One of `SEEN_SHAPES` or `UNSEEN_SHAPES`.
        colour: One of `COLOURS`.
        paint: The surface.
        size: Radius of the circle that has the area of the shape's hull.
        x: Of the centre.
        y: Of the centre.
        angle: Degrees.
    """

    shape: str
    colour: str
    paint: Paint
    size: float
    x: float
    y: float
    angle: float

    @property
    def texture(self) -> str:
        """One of `TEXTURES`, or ``shaded``."""
        return self.paint.texture

    @property
    def size_name(self) -> str:
        """``small`` or ``large``."""
        return "small" if self.size < SMALL_BELOW else "large"

    @property
    def reach(self) -> float:
        """Distance of the farthest point from the centre."""
        return self.size * outline(self.shape).reach

    def patch(self, side: int) -> Patch:
        """Its pixels in a picture, as if nothing hid it."""
        border = outline(self.shape)
        x, y = place(border, (self.x, self.y), self.size, cos_sin(self.angle), side)
        return coverage(x, y, border.following, side)


@dataclass(frozen=True)
class Scene:
    """Objects on a background.

    Attributes:
        objects: By depth, the farthest first: each hides those before it.
        background: Behind them.
    """

    objects: tuple[ShapeObject, ...]
    background: Background


# ---- Pictures ----


def render(scene: Scene, side: int = 128) -> tuple[RGB, NDArray[np.uint8]]:
    """The picture of a scene.

    Args:
        scene: What to draw.
        side: Of the picture in pixels, at least 32.

    Returns:
        ``(side, side, 3)`` uint8 RGB, and ``(side, side)`` uint8 with k + 1 where object k is what is seen.

    Raises:
        ValueError: If the side is below 32.
    """
    return draw_over(background_pixels(scene.background, checked_side(side)), scene.objects)


def checked_side(side: int) -> int:
    """The side, if a picture can have it.

    Raises:
        ValueError: If it is below 32: a small object would have no pixel.
    """
    if side < LEAST_SIDE:
        raise ValueError(f"side must be at least {LEAST_SIDE} pixels, got {side}")
    return side


def draw_over(image: RGB, objects: Sequence[ShapeObject | None]) -> tuple[RGB, NDArray[np.uint8]]:
    """Draw objects over a picture, in place.

    Args:
        image: ``(side, side, 3)`` uint8 RGB.
        objects: By depth; None is not there and leaves its number unused.

    Returns:
        The picture, and ``(side, side)`` uint8 with k + 1 where object k is what is seen.
    """
    side = image.shape[0]
    ids = np.zeros((side, side), np.uint8)
    for number, item in enumerate(objects, start=1):
        patch = item.patch(side) if item is not None else None
        if item is None or patch is None or not patch.alpha.size:
            continue
        window = patch.rows, patch.columns
        colours = paint_pixels(item.paint, patch, (item.x, item.y), cos_sin(item.angle), side)
        behind = image[window].astype(np.int64)
        alpha = patch.alpha.astype(np.int64)[:, :, None]
        image[window] = behind + ((colours - behind) * alpha + 127) // 255
        ids[window][patch.alpha >= 128] = number
    return image, ids


def visible_shares(objects: Sequence[ShapeObject | None]) -> list[float]:
    """How much of each object is seen: neither hidden by later ones nor outside the picture.

    Measured on a coarse grid of its own, so that what may be said of a scene does not depend on the picture's size.

    Args:
        objects: By depth; None is not there.

    Returns:
        0-1 for each.
    """
    shares = []
    for k, item in enumerate(objects):
        if item is None:
            shares.append(0.0)
            continue
        above = [o for o in objects[k + 1 :] if o is not None and _distance(o, item) < o.reach + item.reach]
        inside = item.reach <= min(item.x, item.y, 1 - item.x, 1 - item.y)
        shares.append(1.0 if inside and not above else _measured_share(item, above))
    return shares


def _measured_share(item: ShapeObject, above: Sequence[ShapeObject]) -> float:
    """By counting pixels."""
    whole = outline(item.shape).area * (item.size * _MEASURING_SIDE) ** 2
    patch = item.patch(_MEASURING_SIDE)
    if not patch.alpha.size:
        return 0.0
    seen = np.zeros((_MEASURING_SIDE, _MEASURING_SIDE), bool)
    seen[patch.rows, patch.columns] = patch.alpha >= 128
    for other in above:
        cover = other.patch(_MEASURING_SIDE)
        seen[cover.rows, cover.columns] &= cover.alpha < 128
    return min(1.0, float(seen.sum()) / whole)


def _distance(first: ShapeObject, second: ShapeObject) -> float:
    x, y = first.x - second.x, first.y - second.y
    return math.sqrt(x * x + y * y)  # exact everywhere, which powers are not


# ---- Chance ----


def draw_object(
    draws: Draws,
    style: Style,
    *,
    shape: str | None = None,
    colour: str | None = None,
    texture: str | None = None,
    size_name: str | None = None,
    shapes: Sequence[str] = SEEN_SHAPES,
) -> ShapeObject:
    """An object in the middle of the picture; what is not given is drawn."""
    shape = shape or draws.choice(shapes)
    colour = colour or draws.choice(tuple(COLOURS))
    texture = texture or draw_texture(draws, style)
    low, high = SIZES[style][size_name or draws.choice(("small", "large"))]
    size = draws.uniform(low, high)
    paint = draw_paint(draws, colour, texture, size, style)
    return ShapeObject(shape, colour, paint, size, 0.5, 0.5, float(draws.below(360)))


def draw_texture(draws: Draws, style: Style) -> str:
    """A texture that the style has."""
    return draws.choice(TEXTURES) if style == "textured" else draws.choice(("plain", "shaded"))


def vary(draws: Draws, style: Style, target: ShapeObject, kept: Sequence[str]) -> ShapeObject:
    """An object that shares some attributes with another.

    Args:
        draws: Chance.
        style: Of the scene.
        target: Whose attributes are kept.
        kept: Some of ``shape``, ``colour``, ``texture`` and ``size_name``.
    """
    return draw_object(draws, style, **{name: str(getattr(target, name)) for name in kept})


def draw_scene(draws: Draws, style: Style = "textured") -> Scene:
    """A scene of 2-6 objects, each at least 60 % visible."""
    background = draw_background(draws, style)
    count = draws.weighted((2, 3, 4, 5, 6), (1, 3, 4, 3, 2))
    objects: tuple[ShapeObject, ...] = ()
    while len(objects) < 2:
        wanted = draws.shuffled(_draw_company(draws, style, count))
        objects = arrange(draws, wanted)
    return Scene(objects, background)


def _draw_company(draws: Draws, style: Style, count: int) -> list[ShapeObject]:
    """A target and others that share attributes with it, so that one word is seldom enough."""
    target = draw_object(draws, style)
    company = [target]
    mode = draws.weighted(("mixed", "one shape", "one colour", "twins"), (5, 3, 1, 2))
    for number in range(1, count):
        if mode == "one shape" and draws.chance(0.85):
            kept: tuple[str, ...] = ("shape",)
        elif mode == "one colour" and draws.chance(0.85):
            kept = ("colour",)
        elif mode == "twins" and number < 3:
            kept = ("shape", "colour", draws.choice(("texture", "size_name")))
        elif draws.chance(0.6):
            names = draws.shuffled(("shape", "colour", "texture", "size_name"))
            kept = tuple(names[: draws.between(1, 2)])
        else:
            kept = ()
        company.append(vary(draws, style, target, kept))
    return company


def arrange(draws: Draws, objects: Sequence[ShapeObject]) -> tuple[ShapeObject, ...]:
    """Objects at places where all stay visible; one that finds none is left out."""
    placed: list[ShapeObject] = []
    for item in objects:
        # Most keep apart; the rest may hide a part of those before them.
        closest = 0.6 if draws.chance(0.4) else 0.9
        for _ in range(_TRIES):
            low, high = min(item.reach, 0.5), max(1 - item.reach, 0.5)
            tried = replace(item, x=draws.uniform(low, high), y=draws.uniform(low, high))
            if any(_distance(tried, o) < closest * (tried.size + o.size) or _merge(tried, o) for o in placed):
                continue
            shares = visible_shares([*placed, tried])
            if min(shares) >= _MEASURED_VISIBLE:
                placed.append(tried)
                break
    return tuple(placed)


def look_alike(first: ShapeObject, second: ShapeObject) -> bool:
    """Whether two objects look like one where they touch: of one colour, and one pattern or none."""
    unmarked = first.texture in ("plain", "shaded") and second.texture in ("plain", "shaded")
    return first.colour == second.colour and (unmarked or first.texture == second.texture)


def _merge(first: ShapeObject, second: ShapeObject) -> bool:
    """Whether two objects that look alike may touch."""
    return look_alike(first, second) and _distance(first, second) < first.reach + second.reach
