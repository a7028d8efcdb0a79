"""Masks painted on pictures so that they are seen whatever the pictures' own colours are.

Notation: a picture is ``(H, W, 3)`` uint8 RGB, a mask ``(H, W)`` bool.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from sam_uniref.images import RGB, Mask
from sam_uniref.palette import id_color
from sam_uniref.segmentation import overlay_mask

TRUTH, ANSWER = (0, 150, 70), (240, 70, 0)
"""Colours (R, G, B) of a true mask, and of one that was answered."""

STRIP_FRAMES = 6

_TINT = 0.65
_GAP, _GREY = 2, 128


def faded(picture: RGB) -> RGB:
    """A picture in light grey, on which every colour stands out."""
    grey = np.asarray(PILImage.fromarray(picture).convert("L"), np.uint16)
    return np.repeat(((grey + 255) // 2).astype(np.uint8)[:, :, None], 3, axis=2)


def tinted(picture: RGB, mask: Mask, color: tuple[int, int, int]) -> RGB:
    """The faded picture with a mask in a colour ``(R, G, B)``."""
    return overlay_mask(faded(picture), mask, color, _TINT)


def singled_out(picture: RGB, mask: Mask, color: tuple[int, int, int]) -> RGB:
    """The picture as it is where the mask is, outlined in a colour ``(R, G, B)``, and faded elsewhere."""
    return overlay_mask(np.where(mask[:, :, None], picture, faded(picture)), mask, color, alpha=0)


def with_ids(picture: RGB, ids: NDArray[np.integer]) -> RGB:
    """The faded picture with objects ``(H, W)`` in their ids' colours; 0 is none."""
    painted = faded(picture)
    for object_id in np.unique(ids[ids > 0]).tolist():
        painted = overlay_mask(painted, ids == object_id, id_color(object_id), _TINT)
    return painted


def side_by_side(pictures: Sequence[RGB]) -> RGB:
    """Pictures of one size in a row, with grey between them."""
    gap = np.full((pictures[0].shape[0], _GAP, 3), _GREY, np.uint8)
    pieces = [piece for picture in pictures for piece in (gap, picture)]
    return np.concatenate(pieces[1:], axis=1)


def enlarged(picture: RGB, times: int) -> RGB:
    """A picture so many times as high and wide."""
    size = (times * picture.shape[1], times * picture.shape[0])
    return np.asarray(PILImage.fromarray(picture).resize(size, PILImage.Resampling.BICUBIC))


def fitted(picture: RGB, side: int) -> RGB:
    """A picture whose longer side has so many pixels."""
    factor = side / max(picture.shape[:2])
    size = (max(1, round(factor * picture.shape[1])), max(1, round(factor * picture.shape[0])))
    return np.asarray(PILImage.fromarray(picture).resize(size, PILImage.Resampling.BICUBIC))


def strip_frames(frames: int) -> list[int]:
    """Which frames of a clip are shown: from the first to the last, evenly."""
    return np.linspace(0, frames - 1, min(frames, STRIP_FRAMES)).round().astype(int).tolist()
