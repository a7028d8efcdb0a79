"""All known objects of one picture, as samples of detection have them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import Mask


@dataclass(frozen=True)
class PictureObjects:
    """M objects of a picture, in its pixels.

    Attributes:
        boxes: ``(M, 4)`` float32 as (x0, y0, x1, y1), x1 and y1 exclusive.
        labels: ``(M,)`` int64 from 0.
        masks: ``(M, H, W)`` bool; None where only boxes are known.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.bool_] | None = None

    @classmethod
    def of_masks(cls, masks: NDArray[np.bool_], labels: NDArray[np.int64]) -> PictureObjects:
        """Objects with masks ``(M, H, W)``, of which none is empty: their boxes are told by the masks."""
        boxes = np.array([extent(mask) for mask in masks], np.float32).reshape(len(masks), 4)
        return cls(boxes, labels, masks)

    @classmethod
    def of_box(cls, mask: Mask) -> PictureObjects:
        """The box around a mask ``(H, W)`` bool as the one object; none if the mask is empty."""
        boxes = [extent(mask)] if mask.any() else []
        return cls(np.array(boxes, np.float32).reshape(-1, 4), np.zeros(len(boxes), np.int64))

    def __len__(self) -> int:
        """The number of objects, M."""
        return len(self.labels)

    def filled(self, size: tuple[int, ...]) -> Mask:
        """``(H, W)`` bool of this size: all pixels that a box touches."""
        mask = np.zeros(size, bool)
        for x0, y0, x1, y1 in self.boxes.astype(np.float64).tolist():
            mask[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)] = True
        return mask

    def that_are_left(self) -> PictureObjects:
        """Those with an area; masks that a crop cut tell their boxes anew."""
        if self.masks is not None:
            left = self.masks.any((1, 2))
            return PictureObjects.of_masks(self.masks[left], self.labels[left])
        left = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        return PictureObjects(self.boxes[left], self.labels[left])


def extent(mask: Any) -> tuple[int, int, int, int]:
    """The smallest box ``(x0, y0, x1, y1)`` around a mask ``(H, W)`` that is not empty, x1 and y1 exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
