"""Clips: objects move, turn, grow, cross, leave and come back, and new ones enter."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sam_uniref.data.refshapes.draws import Draws
from sam_uniref.data.refshapes.language import Description, Phrase, phrases
from sam_uniref.data.refshapes.palette import Background, Style, background_pixels, draw_background
from sam_uniref.data.refshapes.scene import (
    LEAST_VISIBLE,
    ShapeObject,
    checked_side,
    draw_object,
    draw_over,
    look_alike,
    vary,
    visible_shares,
)
from sam_uniref.images import RGB

Key = tuple[float, float, float]
"""Frame, x, y."""

# An object of which less is seen is neither asked for nor given as the reference.
REFERENCE_VISIBLE = 0.4
TARGET_VISIBLE = 0.2


@dataclass(frozen=True)
class MovingObject:
    """An object on its way.

    Attributes:
        item: As it is at the start, wherever.
        keys: Frames and the places of the centre at them; straight ways between.
        spin: Degrees a frame.
        grow: Size in the last frame over size in the first.
        first: The frame in which it appears, at least 60 % visible; it is not there before.
    """

    item: ShapeObject
    keys: tuple[Key, ...]
    spin: float
    grow: float
    first: int = 0

    def at(self, frame: int, frames: int) -> ShapeObject | None:
        """The object in a frame of a clip of so many; None before it appears."""
        if frame < self.first:
            return None
        x, y = self._place(frame)
        factor = 1 + (self.grow - 1) * frame / (frames - 1)
        paint = replace(self.item.paint, period=self.item.paint.period * factor)
        angle = (self.item.angle + self.spin * frame) % 360
        return replace(self.item, paint=paint, size=self.item.size * factor, x=x, y=y, angle=angle)

    def _place(self, frame: int) -> tuple[float, float]:
        """The centre in a frame."""
        if frame <= self.keys[0][0]:
            return self.keys[0][1:]
        for (start, x0, y0), (end, x1, y1) in zip(self.keys, self.keys[1:], strict=False):
            if frame < end:
                share = (frame - start) / (end - start)
                return x0 + (x1 - x0) * share, y0 + (y1 - y0) * share
        return self.keys[-1][1:]


@dataclass(frozen=True)
class Clip:
    """Moving objects on a background that stays.

    Attributes:
        objects: By depth, the farthest first.
        background: Behind them.
        frames: How many.
        shares: ``shares[t][k]``: how much of object k is seen in frame t, 0-1.
    """

    objects: tuple[MovingObject, ...]
    background: Background
    frames: int
    shares: tuple[tuple[float, ...], ...]

    def at(self, frame: int, without: int | None = None) -> list[ShapeObject | None]:
        """The objects in a frame.

        Args:
            frame: 0 to ``frames - 1``.
            without: An object to leave out.
        """
        return [o.at(frame, self.frames) if k != without else None for k, o in enumerate(self.objects)]

    def render(self, frame: int, side: int = 128, *, without: int | None = None) -> tuple[RGB, NDArray[np.uint8]]:
        """The picture of a frame.

        Args:
            frame: 0 to ``frames - 1``.
            side: Of the picture in pixels, at least 32.
            without: An object to leave out.

        Returns:
            ``(side, side, 3)`` uint8 RGB, and ``(side, side)`` uint8 with k + 1 where object k is what is seen.
        """
        return draw_over(background_pixels(self.background, checked_side(side)), self.at(frame, without))

    def film(self, side: int = 128) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """All frames.

        Returns:
            ``(T, side, side, 3)`` uint8 RGB and ``(T, side, side)`` uint8 ids as `render` gives them.
        """
        canvas = background_pixels(self.background, checked_side(side))
        drawn = [draw_over(canvas.copy(), self.at(frame)) for frame in range(self.frames)]
        return np.stack([image for image, _ in drawn]), np.stack([ids for _, ids in drawn])

    def names(self, k: int, style: Style) -> list[Phrase]:
        """Phrases true of object k and of no other in the whole clip, by what does not change; shortest first."""
        items = [o.item for o in self.objects]
        lasting = [p for p in phrases(items[k], style)[1:] if p.size_name is None]
        return [p for p in lasting if p.members(items) == [k]]


def draw_name(draws: Draws, clip: Clip, k: int, style: Style) -> Description:
    """What singles object k out over the whole clip; now and then more is said than is needed."""
    names = clip.names(k, style)
    chosen = names[0] if draws.chance(0.3) else draws.choice(names)
    return Description("attributes", chosen)


def draw_clip(draws: Draws, style: Style = "textured", frames: int = 12) -> Clip:
    """A clip of 2-5 objects, two of them at least there from its first frame on.

    Raises:
        ValueError: If there are fewer than 4 frames: nothing can leave and come back in them.
    """
    if frames < 4:
        raise ValueError(f"a clip needs at least 4 frames, got {frames}")
    while True:
        background = draw_background(draws, style)
        moving = _draw_moves(draws, _draw_cast(draws, style), frames)
        everywhere = [visible_shares([o.at(t, frames) for o in moving]) for t in range(frames)]
        started = _with_first_frames(moving, everywhere)
        if started is not None:
            shares = tuple(
                tuple(share if t >= o.first else 0.0 for share, o in zip(row, started, strict=True))
                for t, row in enumerate(everywhere)
            )
            return Clip(tuple(started), background, frames, shares)


def _draw_cast(draws: Draws, style: Style) -> list[ShapeObject]:
    """Objects no two of which share all that a sentence can name over time, or would look like one in crossing."""
    count = draws.weighted((2, 3, 4, 5), (2, 4, 3, 1))
    names = ("shape", "colour", "texture") if style == "textured" else ("shape", "colour")
    cast = [draw_object(draws, style)]
    while len(cast) < count:
        kept = draws.shuffled(names)[: draws.between(0, len(names) - 1)]
        other = vary(draws, style, cast[0], kept)
        differs = all(any(getattr(other, n) != getattr(o, n) for n in names) for o in cast)
        if differs and not any(look_alike(other, o) for o in cast):
            cast.append(other)
    return cast


def _draw_moves(draws: Draws, cast: Sequence[ShapeObject], frames: int) -> list[MovingObject]:
    """A way for each object: the first two cross or wander, of the others some come and some go."""
    last = frames - 1
    crossing = draws.chance(0.5)
    places = [(draws.uniform(0.2, 0.8), draws.uniform(0.2, 0.8)) for _ in cast]
    moving = []
    for k, item in enumerate(cast):
        keys: tuple[Key, ...]
        role = "wander" if k < 2 else draws.weighted(("wander", "return", "enter"), (3, 3, 4))
        if k == 1 and draws.chance(0.25):
            role = "return"
        if crossing and k < 2 and role == "wander":
            keys = ((0, *places[k]), (last, *places[1 - k]))
        elif role == "return":
            out = _outside(draws, item, places[k])
            keys = ((0, *places[k]), (0.4 * last, *out), (0.6 * last, *out), (last, *_near(draws, places[k], 0.2)))
        elif role == "enter":
            start = draws.uniform(0.1, 0.4) * last
            keys = ((start, *_outside(draws, item, places[k])), (start + 0.5 * last, *places[k]))
        else:
            middle = _near(draws, places[k], 0.03 * frames)
            keys = ((0, *places[k]), (0.5 * last, *middle), (last, *_near(draws, middle, 0.03 * frames)))
        spin = draws.uniform(-12, 12) if draws.chance(0.7) else 0.0
        grow = draws.uniform(0.7, 1.4) if draws.chance(0.6) else 1.0
        moving.append(MovingObject(item, keys, spin, grow))
    return draws.shuffled(moving)


def _near(draws: Draws, place: tuple[float, float], farthest: float) -> tuple[float, float]:
    """A place not far from another, in the picture."""
    x, y = (min(0.88, max(0.12, p + draws.uniform(-farthest, farthest))) for p in place)
    return x, y


def _outside(draws: Draws, item: ShapeObject, place: tuple[float, float]) -> tuple[float, float]:
    """A place beyond the nearest side of the picture, where nothing of the object is seen even when it has grown."""
    beyond = 1.4 * item.reach + 0.02
    along = draws.uniform(-0.15, 0.15)
    x, y = place
    nearest = min(("left", x), ("right", 1 - x), ("top", y), ("bottom", 1 - y), key=lambda side: side[1])[0]
    return {
        "left": (-beyond, y + along),
        "right": (1 + beyond, y + along),
        "top": (x + along, -beyond),
        "bottom": (x + along, 1 + beyond),
    }[nearest]


def _with_first_frames(moving: Sequence[MovingObject], shares: Sequence[Sequence[float]]) -> list[MovingObject] | None:
    """The objects with the frames in which they appear; None if one is seen too little, or too few at first."""
    frames = len(shares)
    started = []
    for k, item in enumerate(moving):
        clear = [t for t in range(frames) if shares[t][k] >= LEAST_VISIBLE + 0.06]
        seen = sum(shares[t][k] >= TARGET_VISIBLE for t in range(clear[0], frames)) if clear else 0
        if seen < max(2, math.ceil(frames / 3)):
            return None
        started.append(replace(item, first=clear[0]))
    return started if sum(o.first == 0 for o in started) >= 2 else None


def crowded_pairs(pairs: list[tuple[int, int, int]], together: int) -> list[tuple[int, int, int]]:
    """Of pairs of frames by object, those with enough objects for the samples of a picture, or with the most."""
    objects = Counter((early, late) for _, early, late in pairs)
    enough = min(together, max(objects.values()))
    return [(k, early, late) for k, early, late in pairs if objects[early, late] >= enough]
