"""What `segment` returns: a mask at the picture's size, and the forms people want it in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sam_uniref.images import RGB, ImageLike, Mask, load_image

if TYPE_CHECKING:
    from sam_uniref.exchange import LabelledMask, Polygon


def encode_rle(mask: Mask) -> dict[str, Any]:
    """COCO run-length encoding: ``{"size": [height, width], "counts": str}``, ready for JSON."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def bounding_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive; None for an empty mask."""
    if not mask.any():
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def overlay_mask(image: RGB, mask: Mask, color: tuple[int, int, int], alpha: float = 0.5) -> RGB:
    """A copy of the image ``(H, W, 3)`` with the mask tinted and its border drawn in full colour.

    Args:
        image: HWC uint8 RGB.
        mask: HW bool.
        color: R, G, B in 0-255.
        alpha: Share of the colour inside the mask, 0-1.
    """
    painted = image.copy()
    tinted = (1 - alpha) * image[mask].astype(np.float32) + alpha * np.array(color, np.float32)
    painted[mask] = tinted.round().astype(np.uint8)
    inside = np.pad(mask, 1)
    inside = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    painted[mask & ~inside] = color
    return painted


@dataclass(frozen=True)
class Segmentation:
    """One object's mask in one picture of H x W pixels.

    Attributes:
        mask: ``(H, W)`` bool, logits above 0. All False when nothing was found.
        score: Predicted IoU (SamRef) or class probability (UniRef).
        logits: ``(H, W)`` float32.
        low_res_logits: ``(1, h, w)`` float32, to give back as ``mask_logits`` with more prompts.
    """

    mask: Mask
    score: float
    logits: NDArray[np.float32]
    low_res_logits: NDArray[np.float32]

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive; None for an empty mask."""
        return bounding_box(self.mask)

    def to_rle(self) -> dict[str, Any]:
        """COCO run-length encoding: ``{"size": [height, width], "counts": str}``, ready for JSON."""
        return encode_rle(self.mask)

    def to_coco(self, *, polygons: bool = False) -> dict[str, Any]:
        """What COCO says of an object: ``segmentation`` (RLE or polygons), ``bbox``, ``area``, ``iscrowd``, ``score``.

        A whole file of several pictures is `sam_uniref.exchange.encode_coco`'s.
        """
        from sam_uniref.exchange.coco import annotation

        return annotation(self.labelled(), polygons=polygons)

    def polygons(self, tolerance: float = 0.0) -> list[Polygon]:
        """The mask's parts as polygons with holes, along the pixels' edges, without loss.

        Args:
            tolerance: How far in pixels a simplified line may run from the true one.
        """
        from sam_uniref.exchange.polygons import encode_polygons

        return encode_polygons(self.mask, tolerance=tolerance)

    def labelled(self, label: str = "object") -> LabelledMask:
        """The mask with its score and a name, as everything in `sam_uniref.exchange` takes it."""
        from sam_uniref.exchange.labelled import LabelledMask

        return LabelledMask(self.mask, label, float(self.score))

    def overlay(self, image: ImageLike, color: tuple[int, int, int] = (255, 64, 32), alpha: float = 0.5) -> RGB:
        """The picture with the mask painted on, HWC uint8 RGB.

        Raises:
            ValueError: If the picture is of another size than the mask.
        """
        picture = load_image(image)
        if picture.shape[:2] != self.mask.shape:
            raise ValueError(f"the picture is {picture.shape[:2]}, the mask {self.mask.shape} (height, width)")
        return overlay_mask(picture, self.mask, color, alpha)


def innermost_point(mask: Mask) -> tuple[float, float]:
    """The middle ``(x, y)`` of the pixel of a mask that is farthest from everything outside, the picture's edge too.

    Raises:
        ValueError: If the mask is empty.
    """
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        raise ValueError("an empty mask has no point inside")
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), mask.shape)
    return float(x) + 0.5, float(y) + 0.5
