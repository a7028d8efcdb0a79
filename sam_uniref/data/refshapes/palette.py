"""Colours, textures of objects, and backgrounds; pixels by whole-number arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.raster import UNIT, Patch

Colour = tuple[int, int, int]
Style = Literal["textured", "plain"]
STYLES: tuple[Style, ...] = ("textured", "plain")

COLOURS: dict[str, Colour] = {
    "red": (215, 35, 35),
    "orange": (245, 135, 20),
    "yellow": (248, 225, 50),
    "green": (40, 155, 60),
    "cyan": (60, 205, 220),
    "blue": (40, 75, 215),
    "purple": (130, 45, 180),
    "pink": (250, 150, 200),
}
"""What sentences call colours, RGB 0-255."""

TEXTURES: tuple[str, ...] = ("plain", "striped", "dotted", "checked")
"""What sentences call textures."""

_JITTER = 14
_FIXED = 14  # bits of a cosine as a whole number
BACKGROUNDS: tuple[str, ...] = ("clouds", "stripes", "checks", "speckle")


@dataclass(frozen=True)
class Paint:
    """The surface of an object.

    Attributes:
        texture: One of `TEXTURES`, or ``shaded``, which only the plain style has and no sentence names.
        first: RGB, the named colour, jittered.
        second: RGB of the stripes, dots or checks.
        period: Of the pattern, as a share of the picture's side.
    """

    texture: str
    first: Colour
    second: Colour
    period: float


@dataclass(frozen=True)
class Background:
    """What is behind the objects.

    Attributes:
        kind: One of `BACKGROUNDS`, or ``flat``, ``halves`` or ``gradient`` in the plain style.
        first: RGB, 0-255.
        second: RGB, 0-255.
        cells: Of the pattern over the picture's side.
        key: Of the stream that the noise is drawn from.
    """

    kind: str
    first: Colour
    second: Colour
    cells: int
    key: int


def draw_paint(draws: Draws, colour: str, texture: str, size: float, style: Style) -> Paint:
    """A surface in a named colour.

    Args:
        draws: Chance.
        colour: One of `COLOURS`.
        texture: One of `TEXTURES`, or ``shaded``.
        size: Of the object: patterns must repeat even on a small one.
        style: The plain style has the colours as they are.
    """
    base = COLOURS[colour]
    if style == "plain":
        return Paint(texture, base, _scaled(base, 72), round(size * 2, 5))
    first = tuple(min(255, max(0, c + draws.between(-_JITTER, _JITTER))) for c in base)
    first = (first[0], first[1], first[2])
    # Dark or white only: a half-white red is pink.
    dark = draws.chance(0.6)
    second = _scaled(first, 40) if dark else (245, 245, 240)
    period = draws.uniform(0.052, 0.064) if size < 0.115 else draws.uniform(0.06, 0.085)
    return Paint(texture, first, second, period)


def draw_background(draws: Draws, style: Style) -> Background:
    """A background: greyish, so that no named colour drowns in it."""
    key = draws.below(2**31)
    if style == "plain":
        grey = draws.choice((25, 60, 128, 205, 245))
        other = grey + (30 if grey < 128 else -30)
        kind = draws.choice(("flat", "halves", "gradient"))
        return Background(kind, (grey, grey, grey), (other, other, other), 2, key)
    grey = draws.between(45, 200)
    first = _tinted(draws, grey)
    other = grey + draws.between(18, 45) * (1 if grey < 125 else -1)
    return Background(draws.choice(BACKGROUNDS), first, _tinted(draws, other), draws.between(4, 9), key)


def _scaled(colour: Colour, percent: int) -> Colour:
    """A darker colour."""
    return colour[0] * percent // 100, colour[1] * percent // 100, colour[2] * percent // 100


def _tinted(draws: Draws, grey: int) -> Colour:
    """A grey with a little colour."""
    channels = [min(255, max(0, grey + draws.between(-14, 14))) for _ in range(3)]
    return channels[0], channels[1], channels[2]


def blend(first: Colour, second: Colour, level: NDArray[np.int64]) -> NDArray[np.int64]:
    """Between two colours.

    Args:
        first: RGB where the level is 0.
        second: RGB where it is 255.
        level: ``(H, W)`` int64, 0-255.

    Returns:
        ``(H, W, 3)`` int64, 0-255.
    """
    start, way = np.array(first), np.array(second) - np.array(first)
    return start + (level[:, :, None] * way + 127) // 255


def paint_pixels(
    paint: Paint, patch: Patch, centre: tuple[float, float], turn: tuple[float, float], side: int
) -> NDArray[np.int64]:
    """The colours of an object's pixels; the pattern turns with the object.

    Args:
        paint: The surface.
        patch: Its pixels.
        centre: ``(x, y)`` of the object, 0-1.
        turn: Cosine and sine.
        side: Of the picture in pixels.

    Returns:
        ``(rows, columns, 3)`` int64, 0-255; ``(1, 1, 3)`` for a plain one.
    """
    if paint.texture == "plain":
        return np.array(paint.first)[None, None]
    x = np.arange(patch.columns.start, patch.columns.stop) * UNIT + UNIT // 2 - round(centre[0] * side * UNIT)
    y = np.arange(patch.rows.start, patch.rows.stop) * UNIT + UNIT // 2 - round(centre[1] * side * UNIT)
    cosine, sine = (round(value * 2**_FIXED) for value in turn)
    along = (cosine * x[None] + sine * y[:, None]) >> _FIXED
    across = (cosine * y[:, None] - sine * x[None]) >> _FIXED
    return blend(paint.first, paint.second, _pattern(paint, along, across, side))


def _pattern(paint: Paint, along: NDArray[np.int64], across: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """How much of the second colour each pixel has, 0-255, with borders one pixel soft."""
    period = max(2 * UNIT, round(paint.period * side * UNIT))
    if paint.texture == "shaded":
        return np.clip(128 + along * 255 // period, 0, 255)
    if paint.texture == "striped":
        return _wave(along, period, period * 3 // 10)
    if paint.texture == "checked":
        # A check is half a period: as wide as the stripes are far apart would be too coarse on small objects.
        first, second = _wave(along, period, period // 4), _wave(across, period, period // 4)
        return first + second - 2 * first * second // 255
    if paint.texture == "dotted":
        radius = period * 31 // 100
        x, y = along % period - period // 2, across % period - period // 2
        return np.clip((radius * radius - x * x - y * y) // (2 * radius) + 128, 0, 255)
    raise ValueError(f"there is no texture {paint.texture!r}; known are {(*TEXTURES, 'shaded')}")


def _wave(position: NDArray[np.int64], period: int, half_width: int) -> NDArray[np.int64]:
    """255 outside a band of each period, 0 inside, soft between."""
    return np.clip(np.abs(position % period - period // 2) - half_width + 128, 0, 255)


def background_pixels(background: Background, side: int) -> NDArray[np.uint8]:
    """A background.

    Returns:
        ``(side, side, 3)`` uint8 RGB.
    """
    place = np.arange(side) * UNIT * background.cells // side
    if background.kind in ("flat", "halves", "gradient"):
        ramp = place * 255 // (UNIT * background.cells)
        level = {"flat": ramp * 0, "halves": (ramp >= 128) * 255, "gradient": ramp}[background.kind]
        pixels = blend(background.first, background.second, np.broadcast_to(level, (side, side)))
        return pixels.astype(np.uint8)
    noise = Draws(background.key)
    level = _clouds(noise.grid(background.cells + 1, background.cells + 1, 256), place)
    if background.kind == "stripes":
        band = ((place[None] + place[:, None]) // (UNIT // 2)) % 2 * 255
        level = (level + 2 * band) // 3
    elif background.kind == "checks":
        cell = place // (UNIT // 2)
        level = (level + 2 * ((cell[None] + cell[:, None]) % 2 * 255)) // 3
    grain = 48 if background.kind == "speckle" else 20
    pixels = blend(background.first, background.second, level)
    pixels += noise.grid(side, side, grain)[:, :, None] - grain // 2
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _clouds(grid: NDArray[np.int64], place: NDArray[np.int64]) -> NDArray[np.int64]:
    """A grid of levels, interpolated at every pixel's place in 1/256 cell."""
    cell, share = place // UNIT, place % UNIT
    rows: NDArray[np.int64] = (grid[cell] * (UNIT - share)[:, None] + grid[cell + 1] * share[:, None]) // UNIT
    level: NDArray[np.int64] = (rows[:, cell] * (UNIT - share) + rows[:, cell + 1] * share) // UNIT
    return level
