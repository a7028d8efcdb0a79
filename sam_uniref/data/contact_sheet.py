"""Pictures with captions on one sheet.

Notation: a picture is ``(H, W, 3)`` uint8 RGB.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from sam_uniref.images import RGB

TILE_WIDTH, TILE_HEIGHT = 320, 240
MOST_COLUMNS = 4
_MARGIN, _GAP = 16, 12
_FONT_SIZE, _LINE_HEIGHT = 15, 20
# A caption's part has so many lines at most; the page beside the sheet has all of it.
_LINES = 3
_PAPER, _INK = (250, 250, 250), (20, 20, 20)
_MOST_CHARACTERS = 1000

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def wrap(text: str, width: float, lines: int, measure: Callable[[str], float]) -> list[str]:
    """Text broken into lines, between words where it can be; what does not fit is cut off with an ellipsis.

    Args:
        text: Of any letters; line ends and tabs are blanks.
        width: That a line may have, in what ``measure`` gives.
        lines: At most so many.
        measure: Width of a string.

    Returns:
        At most ``lines`` lines, none wider than ``width`` unless a single letter is.
    """
    broken: list[str] = []
    for word in text[:_MOST_CHARACTERS].split():
        if len(broken) > lines:
            break
        if broken and measure(f"{broken[-1]} {word}") <= width:
            broken[-1] = f"{broken[-1]} {word}"
            continue
        while measure(word) > width and len(word) > 1 and len(broken) <= lines:
            fits = max(1, bisect_right(range(1, len(word)), width, key=lambda end: measure(word[:end])))
            broken.append(word[:fits])
            word = word[fits:]
        broken.append(word)
    if not broken or (len(broken) <= lines and len(text) <= _MOST_CHARACTERS):
        return broken
    kept = broken[:lines]
    while len(kept[-1]) > 1 and measure(f"{kept[-1]}…") > width:
        kept[-1] = kept[-1][:-1]
    if measure(f"{kept[-1]}…") <= width:
        kept[-1] += "…"
    return kept


def contact_sheet(entries: Sequence[tuple[Sequence[RGB], Sequence[str]]]) -> PILImage.Image:
    """A grid of pictures with their captions below them.

    Args:
        entries: Pictures that belong together, which stand in a row, and the parts of their caption, each of which
            begins a line. At least one entry.

    Returns:
        The sheet: as many entries in a row as there is room for.
    """
    side_by_side = max(1, *(len(pictures) for pictures, _ in entries))
    columns = max(1, min(MOST_COLUMNS // side_by_side, math.ceil(math.sqrt(len(entries)))))
    width = side_by_side * TILE_WIDTH + (side_by_side - 1) * _GAP
    tiles = [[shrunk(picture, TILE_WIDTH, TILE_HEIGHT) for picture in pictures] for pictures, _ in entries]
    captions = [_caption(parts, width) for _, parts in entries]
    rows = [range(start, min(start + columns, len(entries))) for start in range(0, len(entries), columns)]
    bottoms = [max((tile.height for i in row for tile in tiles[i]), default=0) for row in rows]
    texts = [_LINE_HEIGHT * max(len(captions[i]) for i in row) for row in rows]
    heights = [bottom + _GAP + text + _MARGIN for bottom, text in zip(bottoms, texts, strict=True)]
    size = (columns * (width + _MARGIN) + _MARGIN, sum(heights) + _MARGIN)
    sheet = PILImage.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, bottom, height in zip(rows, bottoms, heights, strict=True):
        for column, number in enumerate(row):
            left = _MARGIN + column * (width + _MARGIN)
            for place, tile in enumerate(tiles[number]):
                # At the lower edge, where the caption is.
                sheet.paste(tile, (left + place * (TILE_WIDTH + _GAP), top + bottom - tile.height))
            for line, text in enumerate(captions[number]):
                position = (left, top + bottom + _GAP // 2 + line * _LINE_HEIGHT)
                draw.text(position, text, font=_font(), fill=_INK)
        top += height
    return sheet


def shrunk(picture: RGB, width: int, height: int) -> PILImage.Image:
    """The picture as large as it fits, never enlarged."""
    small = PILImage.fromarray(np.ascontiguousarray(picture))
    small.thumbnail((width, height), PILImage.Resampling.LANCZOS)
    return small


def _caption(parts: Sequence[str], width: int) -> list[str]:
    """Lines of a caption, in letters that the font can draw."""
    font = _font()
    return [line for part in parts for line in wrap(_drawable(part, font), width, _LINES, font.getlength)]


@functools.cache
def _font() -> Font:
    """Pillow's own font, which is everywhere."""
    return ImageFont.load_default(_FONT_SIZE)


def _drawable(text: str, font: Font) -> str:
    """Text that the font takes: all letters if it is an outline font, which draws a box for those it lacks."""
    if isinstance(font, ImageFont.FreeTypeFont):
        return "".join(letter if letter.isprintable() else " " for letter in text)
    return text.encode("ascii", "replace").decode("ascii")
