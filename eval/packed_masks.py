"""Many masks of one frame in little memory: a byte holds eight of them, a bit each.

Notation: K masks of H x W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import Mask

Bits = NDArray[np.uint8]
Values = NDArray[np.float64]

MASKS_A_BYTE = 8


def pack(masks: Iterable[Mask]) -> list[Bits]:
    """Pack masks ``(H, W)`` bool of one size, each looked at once.

    Returns:
        ceil(K / 8) pictures of ``(H, W)`` bytes: mask 8n + i is bit i of picture n.
    """
    pictures: list[Bits] = []
    for number, mask in enumerate(masks):
        place = number % MASKS_A_BYTE
        if place == 0:
            pictures.append(mask.astype(np.uint8))
        else:
            # Multiplied, which is several times as fast as shifted.
            pictures[-1] |= mask.view(np.uint8) * np.uint8(1 << place)
    return pictures


def cut_out(pictures: Sequence[Bits]) -> list[Bits]:
    """All cut to the box around all pixels of any mask, and a pixel on each side where there is one.

    A pixel outside differs from none of its neighbours, so that no boundary is lost.
    """
    if not pictures:
        return []
    any_mask = functools.reduce(np.bitwise_or, pictures)
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(any_mask.max(axis=axis, initial=0))
        box.append(slice(max(0, int(hit[0]) - 1), int(hit[-1]) + 2) if len(hit) else slice(0, 1))
    return [picture[box[0], box[1]] for picture in pictures]


def unpack_line(line: Bits) -> Values:
    """``(n,)`` bytes as ``(n, 8)``, 0 or 1 for each of eight masks."""
    return np.unpackbits(line[:, None], axis=1, bitorder="little").astype(np.float64)
