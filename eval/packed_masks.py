"""Many masks of one frame in little memory: a byte holds eight of them, a bit each.

Notation: K masks of H x W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import Mask

Bits = NDArray[np.uint8]
Values = NDArray[np.float64]

MASKS_A_BYTE = 8


@dataclass(frozen=True)
class PackedMasks:
    """Masks of one frame, or of a part of it.

    Attributes:
        count: K.
        pictures: ceil(K / 8) of ``(H, W)`` bytes: mask 8n + i is bit i of picture n.
    """

    count: int
    pictures: tuple[Bits, ...]


def pack(masks: Iterable[Mask]) -> PackedMasks:
    """Pack masks ``(H, W)`` bool of one size, each looked at once."""
    pictures: list[Bits] = []
    count = 0
    for count, mask in enumerate(masks, start=1):
        place = (count - 1) % MASKS_A_BYTE
        if place == 0:
            pictures.append(mask.astype(np.uint8))
        else:
            # Multiplied, which is several times as fast as shifted.
            pictures[-1] |= mask.view(np.uint8) * np.uint8(1 << place)
    return PackedMasks(count, tuple(pictures))


def areas(packed: PackedMasks) -> Values:
    """Pixels of each mask, ``(K,)``."""
    return np.array(
        [
            np.count_nonzero(packed.pictures[k // MASKS_A_BYTE] & np.uint8(1 << k % MASKS_A_BYTE))
            for k in range(packed.count)
        ],
        np.float64,
    )


def cut_out(first: PackedMasks, second: PackedMasks) -> tuple[PackedMasks, PackedMasks]:
    """Both cut to the box around all pixels of any mask of either, and a pixel on each side where there is one.

    A pixel outside differs from none of its neighbours, so that no boundary is lost.
    """
    pictures = [*first.pictures, *second.pictures]
    if not pictures:
        return first, second
    any_mask = functools.reduce(np.bitwise_or, pictures)
    box = []
    for axis in (1, 0):
        hit = np.flatnonzero(any_mask.max(axis=axis, initial=0))
        box.append(slice(max(0, int(hit[0]) - 1), int(hit[-1]) + 2) if len(hit) else slice(0, 1))
    cut = (PackedMasks(p.count, tuple(picture[box[0], box[1]] for picture in p.pictures)) for p in (first, second))
    return next(cut), next(cut)


def unpack_line(line: Bits) -> Values:
    """``(n,)`` bytes as ``(n, 8)``, 0 or 1 for each of eight masks."""
    return np.unpackbits(line[:, None], axis=1, bitorder="little").astype(np.float64)
