"""PASCAL-VOC's colours, in which video sets show object ids."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_IDS = 256
_BITS = 8


def id_color(object_id: int) -> tuple[int, int, int]:
    """The PASCAL VOC colour (R, G, B) of an object id: 1 is (128, 0, 0), 2 is (0, 128, 0)."""
    color = [0, 0, 0]
    for bit in range(_BITS):
        for channel in range(3):
            color[channel] |= ((object_id >> (3 * bit + channel)) & 1) << (7 - bit)
    return color[0], color[1], color[2]


def ids_of_colors(colors: NDArray[Any]) -> NDArray[np.uint8]:
    """The ids ``(H, W)`` whose colours a picture ``(H, W, 3)`` uint8 RGB shows.

    Raises:
        ValueError: If a colour is no id's.
    """
    codes = _codes(colors.astype(np.int64))
    known = _known_codes()
    order = np.argsort(known)
    ids = order[np.searchsorted(known[order], codes).clip(max=_IDS - 1)]
    if (known[ids] != codes).any():
        strange = int(codes[known[ids] != codes][0])
        raise ValueError(f"it has the colour #{strange:06x}, which is no object's in PASCAL-VOC's palette")
    return ids.astype(np.uint8)


@lru_cache(maxsize=1)
def _known_codes() -> NDArray[np.int64]:
    """The colours as numbers, by id."""
    return _codes(np.array([id_color(number) for number in range(_IDS)], np.int64))


def _codes(colors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Colours ``(..., 3)`` as one number each."""
    return (colors[..., 0] << 16) | (colors[..., 1] << 8) | colors[..., 2]
